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


def moves_of(slices: Iterable[Slice], positions: Mapping[int, Position]) -> list[Move]:
    """What is left to take of `slices`, partition by partition; nothing for one that is all below its position.

    Every partition has a position.
    """
    found = (_move(piece, positions[piece.partition]) for piece in slices)
    return [move for move in found if move is not None]


def _move(piece: Slice, position: Position) -> Move | None:
    """The records before the first missing offset and after the last one; what lies between is asked of Kafka.

    All of them lie above a position that is held under its ETag, so nobody else has taken them.
    """
    if piece.offsets[-1] < position.next_offset:
        return None
    kept = part_of(piece, bisect_left(piece.offsets, position.next_offset), len(piece.offsets))
    begin, after = position.next_offset, kept.offsets[-1] + 1
    cursor = replace(position, next_offset=after)
    missing = _missing(kept, begin)
    if missing is None:
        return Move(kept, (OffsetRange(piece.partition, begin, after),), None, cursor)
    first, end = missing
    ranges = (OffsetRange(piece.partition, begin, first), OffsetRange(piece.partition, end, after))
    taken = with_records(kept, first, end, Slice(piece.partition, [], [], []))
    gap = Gap(piece.partition, first, end, SKIPPED)
    return Move(taken, tuple(r for r in ranges if r.first_offset < r.next_offset), gap, cursor)


def _missing(piece: Slice, position: int) -> tuple[int, int] | None:
    """The first missing offset and the one after the last missing one, from `position` on; None without a hole.

    | position | offsets      | known      | missing |
    |----------|--------------|------------|---------|
    | 5        | 5 6 7        |            | none    |
    | 5        | 7 8          |            | 5..7    |
    | 5        | 5 6 9        |            | 7..9    |
    | 5        | 5 8 9 12 13  |            | 6..12   |
    | 5        | 5 8 9 12 13  | settled 9  | 10..12  |
    | 5        | 7 9          | is_dense   | 5..7    |
    """
    offsets, start = piece.offsets, max(position, piece.settled)
    below = bisect_left(offsets, start)
    count = len(offsets) - below
    if count == 0 or offsets[-1] - start + 1 == count:
        return None
    if piece.is_dense:
        return (start, offsets[below]) if offsets[below] > start else None
    first = next(start + at for at in range(count) if offsets[below + at] != start + at)
    last = len(offsets) - 1
    while last > below and offsets[last - 1] == offsets[last] - 1:
        last -= 1
    return first, offsets[last]


def drained(cursor: Cursor, found: Slice, settled: int, lost: int) -> Move:
    """`cursor` moved to `settled`: what Kafka said of the offsets up to there, of which it had lost the first."""
    first = cursor.next_offset + lost
    ranges = (OffsetRange(cursor.partition, first, settled),) if first < settled else ()
    return Move(found, ranges, None, replace(cursor, next_offset=settled))


def ranges_of(moves: Sequence[Move]) -> tuple[OffsetRange, ...]:
    """The offsets that the moves take, as a segment lists them."""
    return tuple(offsets for move in moves for offsets in move.ranges)


def groups_of(moves: Sequence[Move]) -> list[list[Move]]:
    """The moves in the fewest groups of which each fits one transaction.

    Source: an entity group transaction holds at most 100 operations.
    """
    groups: list[list[Move]] = []
    room = 0
    for move in moves:
        operations = 1 if move.gap is None else 2
        if operations > room:
            groups.append([])
            room = CURSORS_MAX
        groups[-1].append(move)
        room -= operations
    return groups


def halves_of(slices: Sequence[Slice]) -> tuple[list[Slice], list[Slice]] | None:
    """The records in two halves, to be delivered one after the other; None where one record is left."""
    if len(slices) > 1:
        middle = len(slices) // 2
        return list(slices[:middle]), list(slices[middle:])
    only, middle = slices[0], len(slices[0].offsets) // 2
    if middle == 0:
        return None
    return [part_of(only, 0, middle)], [part_of(only, middle, len(only.offsets))]


def part_of(piece: Slice, first: int, end: int) -> Slice:
    """The records number `first` to `end` of the slice."""
    if first == 0 and end == len(piece.offsets):
        return piece
    columns = piece.offsets[first:end], piece.values[first:end], piece.events[first:end]
    return Slice(piece.partition, *columns, piece.ran_back, piece.settled, piece.is_dense)


def with_records(piece: Slice, first: int, end: int, found: Slice) -> Slice:
    """The slice with what `found` has in the place of its own records of the offsets from `first` to `end`."""
    before, behind = bisect_left(piece.offsets, first), bisect_left(piece.offsets, end)
    return Slice(
        piece.partition,
        piece.offsets[:before] + found.offsets + piece.offsets[behind:],
        piece.values[:before] + found.values + piece.values[behind:],
        piece.events[:before] + found.events + piece.events[behind:],
    )
