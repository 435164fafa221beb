"""What a batch moves: each partition's records at or above its position, and the holes among them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sinkcore.ledger import CURSORS_MAX
from sinkcore.ledger_rows import Cursor, Gap, Position
from sinkcore.records import OffsetRange, Slice

SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's part of a commit.

    `taken` are the records in hand, `ranges` the offsets that they stand for, `gap` what is missing among them,
    and `cursor` what is moved, where it stands afterwards, under the ETag of the row that it replaces.
    """

    taken: Slice
    ranges: tuple[OffsetRange, ...]
    gap: Gap | None
    cursor: Cursor

    @property
    def operations(self) -> int:
        """How many operations the move takes in a transaction."""
        return 1 if self.gap is None else 2


def moves_of(slices: Iterable[Slice], positions: Mapping[int, Position]) -> list[Move]:
    """What is left to take of `slices`, partition by partition; nothing for one that is all below its position."""
    found = (_move(piece, positions.get(piece.partition)) for piece in slices)
    return [move for move in found if move is not None]


def _move(piece: Slice, position: Position | None) -> Move | None:
    if position is None:
        # Nobody has committed this partition before: it starts with the first record that the host hands over.
        first = piece.offsets[0]
        position = Position(piece.partition, first, first)
    if piece.offsets[-1] < position.next_offset:
        return None
    kept = _part(piece, bisect_left(piece.offsets, position.next_offset), len(piece.offsets))
    after = replace(position, next_offset=kept.offsets[-1] + 1)
    missing = _missing(kept.offsets, position.next_offset)
    if missing is None:
        whole = OffsetRange(piece.partition, position.next_offset, after.next_offset)
        return Move(kept, (whole,), None, after)
    return _move_around(kept, position, after, *missing)


def _missing(offsets: Sequence[int], position: int) -> tuple[int, int] | None:
    """The first missing offset and the one after the last missing one, from `position` on; None without a hole.

    | position | offsets      | missing |
    |----------|--------------|---------|
    | 5        | 5 6 7        | none    |
    | 5        | 7 8          | 5..7    |
    | 5        | 5 6 9        | 7..9    |
    | 5        | 5 8 9 12 13  | 6..12   |
    """
    if offsets[-1] - position + 1 == len(offsets):
        return None
    first = next((at for at, offset in enumerate(offsets) if offset != position + at), len(offsets))
    last = len(offsets) - 1
    while last > 0 and offsets[last - 1] == offsets[last] - 1:
        last -= 1
    return position + first, offsets[last]


def _move_around(kept: Slice, position: Position, after: Position, first: int, end: int) -> Move:
    """The records before the first missing offset and after the last one; what lies between is asked of Kafka.

    All of them lie above a position that is held under its ETag, so nobody else has taken them.
    """
    before, behind = bisect_left(kept.offsets, first), bisect_left(kept.offsets, end)
    ranges = (
        OffsetRange(kept.partition, position.next_offset, first),
        OffsetRange(kept.partition, end, after.next_offset),
    )
    taken = Slice(
        kept.partition,
        kept.offsets[:before] + kept.offsets[behind:],
        kept.values[:before] + kept.values[behind:],
        kept.events[:before] + kept.events[behind:],
    )
    gap = Gap(kept.partition, first, end, SKIPPED)
    return Move(taken, tuple(r for r in ranges if r.first_offset < r.next_offset), gap, after)


def groups_of(moves: Sequence[Move]) -> list[list[Move]]:
    """The moves in the fewest groups of which each fits one transaction.

    Source: an entity group transaction holds at most 100 operations.
    """
    groups: list[list[Move]] = []
    room = 0
    for move in moves:
        if move.operations > room:
            groups.append([])
            room = CURSORS_MAX
        groups[-1].append(move)
        room -= move.operations
    return groups


def halves_of(slices: Sequence[Slice]) -> tuple[list[Slice], list[Slice]] | None:
    """The records in two halves, to be delivered one after the other; None where one record is left."""
    if len(slices) > 1:
        middle = len(slices) // 2
        return list(slices[:middle]), list(slices[middle:])
    only, middle = slices[0], len(slices[0].offsets) // 2
    if middle == 0:
        return None
    return [_part(only, 0, middle)], [_part(only, middle, len(only.offsets))]


def _part(piece: Slice, first: int, end: int) -> Slice:
    if first == 0 and end == len(piece.offsets):
        return piece
    return Slice(piece.partition, piece.offsets[first:end], piece.values[first:end], piece.events[first:end])
