"""The audit: what the ledger leaves out or has twice, and what Kafka says of it."""

from __future__ import annotations

from typing import Any

import pytest

from sinkcore import audit as audits
from sinkcore import operate
from sinkcore.audit import Audit, audit, joined
from sinkcore.records import OffsetRange
from tests.support.app import TOPIC, World
from tests.support.events import Sent
from tests.support.memory import MemoryTable


def records(*offsets: int) -> list[Sent]:
    return [Sent(b'{"n":%d}' % offset, offset) for offset in offsets]


def audited(world: World) -> Audit:
    sink = world.sink()
    (found,) = [each for each in audit(sink, sink.topic(TOPIC)) if each.partition == 0]
    return found


def edited(world: World, *ranges: str) -> None:
    """The segments have other ranges than those that were committed: a defect, as one would look."""
    rows: dict[str, Any] = world.table.partitions["adx-sink-flights"]
    segments = [rows[key].values for key in sorted(rows) if key.startswith("s-")]
    for values, text in zip(segments, ranges, strict=True):
        values["ranges"] = text


def a_world() -> World:
    """Two segments, of ten records each."""
    world = World()
    for first in (0, 10):
        world.sink().deliver(TOPIC, world.batch(records(*range(first, first + 10))))
    return world


def test_what_is_in_no_segment_and_what_is_in_two_are_shown_as_ranges() -> None:
    world = a_world()
    edited(world, "[[0,0,4]]", "[[0,6,20],[0,15,16]]")

    found = audited(world)

    assert found.missing == (OffsetRange(0, 4, 6),)
    assert found.twice == (OffsetRange(0, 15, 16),)
    assert (found.kept_from, found.next_offset, found.gone, found.unchecked) == (0, 20, (), ())


def test_a_ledger_that_is_whole_asks_kafka_nothing() -> None:
    """On a busy topic that would be much."""
    world = a_world()
    world.kafka.asked.clear()

    found = audited(world)

    assert (found.missing, found.twice) == ((), ())
    assert "read" not in world.kafka.asked


def test_what_kafka_proves_empty_is_not_missing() -> None:
    """The sweeper moves a position over markers without a segment."""
    world = a_world()
    edited(world, "[[0,0,4]]", "[[0,10,20]]")
    for offset in (4, 5, 9):
        del world.kafka.topics[TOPIC][0].records[offset]

    assert audited(world).missing == (OffsetRange(0, 6, 9),)


def test_markers_at_the_end_that_a_sweep_passed_are_well() -> None:
    world = World()
    log = world.kafka.topics[TOPIC][0]
    world.sink().deliver(TOPIC, world.batch(records(0, 1)))
    log.skip(3)
    for _ in range(4):
        world.sweep()

    found = audited(world)

    assert (found.next_offset, found.missing, found.gone) == (5, (), ())


def test_what_retention_took_is_gone_and_not_missing() -> None:
    """It was counted when it was passed, and nobody can look at it any more."""
    world = a_world()
    edited(world, "[[0,0,4]]", "[[0,10,20]]")
    world.kafka.topics[TOPIC][0].retain_from(7)

    found = audited(world)

    assert (found.gone, found.missing) == ((OffsetRange(0, 4, 7),), (OffsetRange(0, 7, 10),))


def test_what_was_given_up_is_missing_for_as_long_as_kafka_has_it() -> None:
    world = a_world()
    for _ in range(10):
        world.kafka.topics[TOPIC][0].append(b"{}", 0)
    sink = world.sink()
    operate.skip_to(sink, sink.topic(TOPIC), 0, 25)

    assert audited(world).missing == (OffsetRange(0, 20, 25),)


def test_where_kafka_does_not_answer_nothing_is_claimed() -> None:
    world = a_world()
    edited(world, "[[0,0,4]]", "[[0,10,20]]")
    world.kafka.silent = {TOPIC}

    found = audited(world)

    assert (found.missing, found.unchecked) == ((), (OffsetRange(0, 4, 10),))


def test_it_looks_at_so_many_records_and_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody gave up ten million records: to list them one would have to read them all."""
    monkeypatch.setattr(audits, "RECORDS_MAX", 5)
    monkeypatch.setattr(audits, "STEP_RECORDS", 3)
    world = a_world()
    edited(world, "[[0,0,1]]", "[[0,11,20]]")
    told: list[tuple[int, int]] = []
    sink = world.sink()

    (found,) = [a for a in audit(sink, sink.topic(TOPIC), lambda *at: told.append(at)) if a.partition == 0]

    assert found.missing == (OffsetRange(0, 1, 4), OffsetRange(0, 4, 6))
    assert found.unchecked == (OffsetRange(0, 6, 11),)
    assert told == [(3, 10), (5, 10)]


def test_what_is_in_a_gap_is_not_missing() -> None:
    world = World()
    for offset in range(20):
        world.kafka.topics[TOPIC][0].append(b'{"n":%d}' % offset, 0)
    world.sink().deliver(TOPIC, world.batch(records(0)))
    world.sink().deliver(TOPIC, world.batch(records(10)))

    found = audited(world)

    assert (found.missing, found.twice, found.in_gaps) == ((), (), 9)


class Meanwhile:
    """A table that somebody works on: `then` is called once, before rows of a kind are read for the n-th time."""

    def __init__(self, table: MemoryTable, prefix: str, number: int, then: Any) -> None:
        self._table, self._prefix, self._left, self._then = table, prefix, number, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def rows(self, partition: str, prefix: str, below: str = "") -> Any:
        self._left -= prefix == self._prefix
        if self._left == 0 and self._then is not None:
            then, self._then = self._then, None
            then()
        return self._table.rows(partition, prefix, below) if below else self._table.rows(partition, prefix)


@pytest.mark.parametrize(("before", "number"), [("p-", 1), ("g-", 1), ("s-", 1), ("g-", 2), ("p-", 2)])
def test_an_app_that_works_meanwhile_is_no_fault(before: str, number: int) -> None:
    """A gap is drained and a batch is taken between two of the audit's readings."""
    world = World()
    for offset in range(20):
        world.kafka.topics[TOPIC][0].append(b'{"n":%d}' % offset, 0)
    world.sink().deliver(TOPIC, world.batch(records(0)))
    world.sink().deliver(TOPIC, world.batch(records(10)))

    def work() -> None:
        world.sweep()
        world.sink().deliver(TOPIC, world.batch(records(11, 12)))

    sink = world.sink(table=Meanwhile(world.table, before, number, work))
    (found,) = [each for each in audit(sink, sink.topic(TOPIC)) if each.partition == 0]

    assert (found.missing, found.twice, found.gone, found.unchecked) == ((), (), (), ())


def test_offsets_of_a_topic_that_was_made_again_are_not_twice() -> None:
    """The new one counts from its own low watermark, and the old one's segments are there for days."""
    world = a_world()
    world.kafka.create(TOPIC, 100)
    world.sweep()
    world.sink().deliver(TOPIC, world.batch(records(0, 1)))

    found = audited(world)

    assert (found.next_offset, found.missing, found.twice) == (2, (), ())


def test_rising_offsets_become_ranges() -> None:
    assert list(joined(1, [])) == []
    assert list(joined(1, [0, 1, 2, 5, 7, 8])) == [
        OffsetRange(1, 0, 3),
        OffsetRange(1, 5, 6),
        OffsetRange(1, 7, 9),
    ]
