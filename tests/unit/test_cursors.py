"""What is taken of a batch: by hand for each case, and by hypothesis against a set of offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkcore.cursors import groups_of, halves_of, moves_of
from sinkcore.ledger_rows import Gap, Position
from sinkcore.records import slices_of
from tests.support.events import Sent, events_of


def slices(*offsets: int, partition: int = 0) -> list:  # type: ignore[type-arg]
    return slices_of(events_of(Sent(b"%d" % offset, offset, partition) for offset in offsets))


@pytest.mark.parametrize(
    ("position", "offsets", "taken", "ranges", "gap"),
    [
        (5, [5, 6, 7], [5, 6, 7], [(5, 8)], None),
        (6, [5, 6, 7], [6, 7], [(6, 8)], None),
        (5, [7, 8], [7, 8], [(7, 9)], (5, 7)),
        (5, [5, 6, 9], [5, 6, 9], [(5, 7), (9, 10)], (7, 9)),
        (5, [5, 8, 9, 12, 13], [5, 12, 13], [(5, 6), (12, 14)], (6, 12)),
        (5, [8, 9, 12], [12], [(12, 13)], (5, 12)),
        (5, [5], [5], [(5, 6)], None),
        (0, [2**40], [2**40], [(2**40, 2**40 + 1)], (0, 2**40)),
    ],
)
def test_records_outside_one_gap_are_taken(
    position: int,
    offsets: list[int],
    taken: list[int],
    ranges: list[tuple[int, int]],
    gap: tuple[int, int] | None,
) -> None:
    (move,) = moves_of(slices(*offsets), {0: Position(0, position, 0, etag="etag")})

    assert move.taken.offsets == taken
    assert move.taken.values == [b"%d" % offset for offset in taken]
    assert [(r.first_offset, r.next_offset) for r in move.ranges] == ranges
    assert move.gap == (Gap(0, *gap, "skipped") if gap else None)
    assert move.cursor == Position(0, offsets[-1] + 1, 0, etag="etag")


def test_nothing_is_left_of_what_lies_below_the_position() -> None:
    assert moves_of(slices(1, 2, 3), {0: Position(0, 4, 0, etag="etag")}) == []


@given(
    position=st.integers(0, 40),
    offsets=st.lists(st.integers(0, 40), min_size=1).map(lambda found: sorted(set(found))),
)
def test_each_offset_up_to_the_new_position_is_taken_or_in_the_gap_once(position: int, offsets: list[int]) -> None:
    moves = moves_of(slices(*offsets), {0: Position(0, position, 0, etag="etag")})

    if not moves:
        assert offsets[-1] < position
        return
    (move,) = moves
    inside = [o for r in move.ranges for o in range(r.first_offset, r.next_offset)]
    gap = range(move.gap.next_offset, move.gap.end_offset) if move.gap else range(0)
    assert sorted([*inside, *gap]) == list(range(position, offsets[-1] + 1))
    assert move.taken.offsets == [o for o in offsets if o >= position and o not in gap]
    assert set(move.taken.offsets) == set(inside), "a range holds only what is in hand"


def test_a_hundred_partitions_take_the_fewest_transactions() -> None:
    """A transaction takes 100 operations, two of which are the segment's own."""

    def partitions(count: int, gaps: int = 0) -> list[int]:
        batch = [piece for p in range(count) for piece in slices(5, partition=p)]
        positions = {p: Position(p, 4 if p < gaps else 5, 0, etag="etag") for p in range(count)}
        return [len(group) for group in groups_of(moves_of(batch, positions))]

    assert partitions(1) == [1]
    assert partitions(45, gaps=45) == [45]
    assert partitions(98) == [98]
    assert partitions(99) == [98, 1]
    assert partitions(100, gaps=100) == [49, 49, 2]
    assert partitions(0) == []


def test_halves_keep_every_record_in_order() -> None:
    one = slices(1, 2, 3)
    two = [*slices(1), *slices(1, partition=1), *slices(1, partition=2)]

    (first,), (second,) = halves_of(one) or ([], [])
    assert (first.offsets, second.offsets) == ([1], [2, 3])
    assert [[s.partition for s in half] for half in halves_of(two) or ()] == [[0], [1, 2]]
    assert halves_of(slices(1)) is None
