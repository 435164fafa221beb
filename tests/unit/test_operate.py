"""What only a person can decide, each shown by what it leaves in ledger and table."""

from __future__ import annotations

import gzip
from contextlib import suppress

import pytest

from sinkcore import operate
from sinkcore.audit import audit
from sinkcore.errors import TransientError
from sinkcore.records import timestamp_ms_of, timestamp_of
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import Steps, Stopped


def records(*offsets: int) -> list[Sent]:
    return [Sent(b'{"n":%d}' % offset, offset) for offset in offsets]


def log_of(world: World, count: int) -> None:
    log = world.kafka.topics[TOPIC][0]
    for _ in range(count):
        log.append(b'{"n":%d}' % log.end, 0)


def offsets(*ranges: tuple[int, int]) -> dict[tuple[int, int], int]:
    return dict.fromkeys([(0, n) for first, end in ranges for n in range(first, end)], 1)


def test_start_gives_every_partition_its_position_before_anything_is_delivered() -> None:
    """What the host skips before Python first runs lies above it, and is found."""
    world = World()
    log_of(world, 5)

    operate.start_topic(world.sink(), TOPIC)
    for _ in range(3):
        world.sweep()

    assert len(world.ledger.positions()) == 100
    assert world.queued_offsets() == offsets((0, 5))


def test_a_held_gap_is_drained_once_it_is_released() -> None:
    world = World(settings_of(SINK_GAP_MAX_RECORDS="3"))
    log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(10)))
    world.sweep()
    (gap,) = world.ledger.gaps()

    operate.release(sink.topic(TOPIC), gap.key)
    world.sweep()

    assert world.ledger.gaps() == []
    assert world.queued_offsets() == offsets((0, 11))


def test_a_gap_that_is_skipped_is_given_up() -> None:
    world = World()
    log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(10)))
    (gap,) = world.ledger.gaps()

    operate.skip_gap(sink.topic(TOPIC), gap.key)
    world.sweep()

    assert world.queued_offsets() == offsets((0, 1), (10, 11))
    with pytest.raises(operate.NotPossibleError, match="there is no gap"):
        operate.skip_gap(sink.topic(TOPIC), gap.key)


def test_a_position_is_only_ever_skipped_forward() -> None:
    world = World()
    log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1)))

    operate.skip_to(sink, sink.topic(TOPIC), 0, 15)
    world.sink().deliver(TOPIC, world.batch(records(15, 16)))

    assert world.queued_offsets() == offsets((0, 2), (15, 17))
    with pytest.raises(operate.NotPossibleError, match="replay takes a range again"):
        operate.skip_to(sink, sink.topic(TOPIC), 0, 3)
    with pytest.raises(operate.NotPossibleError, match="ends at 20, below 21"):
        operate.skip_to(sink, sink.topic(TOPIC), 0, 21)


def test_a_range_that_is_replayed_is_taken_once_more_and_the_audit_knows() -> None:
    world = World()
    log_of(world, 10)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(*range(10))))

    operate.replay(sink, sink.topic(TOPIC), 0, 3, 6)
    world.sweep()

    assert {at for at, times in world.queued_offsets().items() if times == 2} == {(0, 3), (0, 4), (0, 5)}
    (found,) = [a for a in audit(sink, sink.topic(TOPIC)) if a.partition == 0]
    assert (found.missing, found.twice) == ((), ())
    with pytest.raises(operate.NotPossibleError, match="no range below"):
        operate.replay(sink, sink.topic(TOPIC), 0, 8, 12)


def test_dead_letters_go_back_whole_by_todays_routes_and_only_once() -> None:
    world = World(settings_of({"tombstones": "dead_letter"}))
    bad = Sent(b"broken", 1, key=b"\xff\x00", timestamp="2013-01-01T10:00:00.12Z", headers=(("type", b"x"),))
    world.sink().deliver(TOPIC, world.batch([*records(0), bad, Sent(None, 2)]))
    world.settings = settings_of({"tombstones": "skip", "table": "Mended"})

    ((path, sent, refused),) = operate.replay_dead_letters(world.sink(), TOPIC)
    replayed = [path for path, _, _ in operate.replay_dead_letters(world.sink(), TOPIC)]

    assert (sent, refused) == (2, 1)
    assert path not in replayed
    ours = [letter for letter in world.dead_letters() if letter["reason"] == "invalid_json"]
    assert [letter["table"] for letter in ours][:2] == ["Flights", "Mended"]
    assert {letter["value"] for letter in ours} == {b"broken"}
    assert {letter["key"] for letter in ours} == {b"\xff\x00"}
    assert {letter["timestamp_ms"] for letter in ours} == {1357034400120}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 12))
def test_a_replay_of_dead_letters_that_dies_is_gone_on_with_and_repeats_nothing(step: int, after: bool) -> None:
    world = World()
    world.sink().deliver(TOPIC, world.batch([*records(0), Sent(b"[]", 1)]))
    ((at, letters),) = [(at, data) for at, data in world.blobs.blobs.items() if at[0] == "sink-dead-letters"]
    # Somebody has mended the record: {} in the place of [].
    world.blobs.blobs[at] = gzip.compress(gzip.decompress(letters).replace(b"W10=", b"e30="))
    with suppress(Stopped):
        list(operate.replay_dead_letters(world.stepped_sink(Steps(step, after)), TOPIC))

    list(operate.replay_dead_letters(world.sink(), TOPIC))
    world.sweep_to_the_end()

    assert world.queued_offsets() == offsets((0, 2))


def test_a_topic_that_is_not_in_kafka_cannot_be_started() -> None:
    world = World()
    del world.kafka.topics[TOPIC]

    with pytest.raises(TransientError, match="no such topic"):
        operate.start_topic(world.sink(), TOPIC)


@pytest.mark.parametrize(
    "text", ["2013-01-01T10:00:00.120Z", "1969-12-31T23:59:59.999Z", "2026-11-23T00:00:00.000Z"]
)
def test_a_timestamp_goes_back_as_it_came(text: str) -> None:
    assert timestamp_of(timestamp_ms_of(text)) == text
