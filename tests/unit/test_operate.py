"""What only a person can decide, each shown by what it leaves in ledger and table."""

from __future__ import annotations

import gzip
from contextlib import suppress

import pytest

from sinkcore import operate, resend
from sinkcore.audit import audit
from sinkcore.errors import RecordError, TransientError
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
    world = World(partitions=100)
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


def test_a_record_that_stops_a_topic_is_given_up_alone_and_the_app_that_runs_goes_on() -> None:
    """The worker knows positions by heart, and would trust them for ever where its batch shows no hole."""
    world = World(settings_of(SINK_ON_BAD_RECORD="fail"))
    log = world.kafka.topics[TOPIC][0]
    for value in (b'{"n":0}', b'{"n":1}', b"bad", b'{"n":3}'):
        log.append(value, 0)
    batch = world.batch([Sent(b'{"n":0}', 0), Sent(b'{"n":1}', 1), Sent(b"bad", 2), Sent(b'{"n":3}', 3)])
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    with pytest.raises(RecordError, match=r"sinkctl skip flights --partition 0 --offset 2\)"):
        sink.deliver(TOPIC, batch)

    known = operate.known_topic(world.sink(), TOPIC)
    before = operate.skip_record(world.sink(), known, 0, 2)
    sink.deliver(TOPIC, batch)
    world.sweep()

    assert before.next_offset == 1
    assert world.queued_offsets() == offsets((0, 2), (3, 4))
    assert world.ledger.gaps() == []


def test_a_record_inside_a_gap_is_given_up_and_the_gap_is_drained_around_it() -> None:
    world = World()
    log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(10)))
    topic = sink.topic(TOPIC)

    for offset in (4, 1, 9):
        operate.skip_record(sink, topic, 0, offset)
    world.sweep()

    assert world.queued_offsets() == offsets((0, 1), (2, 4), (5, 9), (10, 11))
    with pytest.raises(operate.NotPossibleError, match="offset 4 of 0 was taken; the position is 11"):
        operate.skip_record(sink, topic, 0, 4)
    with pytest.raises(operate.NotPossibleError, match="ends at 20; it has no offset 20"):
        operate.skip_record(sink, topic, 0, 20)


def test_a_group_that_has_committed_nothing_gives_no_positions() -> None:
    """A mistyped name would otherwise begin at the topic's beginning, for good."""
    world = World()
    log_of(world, 5)
    world.kafka.commits["connect-sink"] = {0: 3}

    with pytest.raises(operate.NotPossibleError, match="group connect-snik has committed nothing for it"):
        operate.start_topic(world.sink(), TOPIC, "connect-snik")
    assert world.ledger.topic() is None

    begins = operate.start_topic(world.sink(), TOPIC, "connect-sink")
    again = operate.start_topic(world.sink(), TOPIC, "connect-snik")

    assert (begins[0], begins[1]) == (operate.Begins(3, "group connect-sink"), operate.Begins(0, "earliest"))
    assert {each.by for each in again.values()} == {"had a position"}


def test_looking_at_a_topic_that_was_never_started_starts_nothing() -> None:
    world = World()
    log_of(world, 5)

    with pytest.raises(operate.NotPossibleError, match="flights: it was never started; run start"):
        operate.known_topic(world.sink(), TOPIC)
    with pytest.raises(operate.NotPossibleError, match="weather: it was never started; SINK_TOPICS_MAPPING takes"):
        operate.known_topic(world.sink(), "weather")
    with pytest.raises(operate.NotPossibleError, match="weather: no route takes it; SINK_TOPICS_MAPPING takes"):
        operate.start_topic(world.sink(), "weather")
    assert world.ledger.topic() is None


def test_dead_letters_can_be_read() -> None:
    world = World()
    bad = Sent(b"br\xc3\xb6ken", 1, key=b"\xff\x00", headers=(("type", b"x"), ("none", None)))
    world.sink().deliver(TOPIC, world.batch([*records(0), bad]))

    ((path, letter),) = resend.letters(world.sink(), TOPIC)

    assert path.startswith("flights/")
    assert (letter["offset"], letter["reason"], letter["value"]) == (1, "invalid_json", "br\u00f6ken")
    assert letter["key"] == {"base64": "/wA="}
    assert letter["headers"] == [["type", "x"], ["none", None]]
    assert list(resend.letters(world.sink(), "weather/")) == []


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

    ((path, sent, refused),) = resend.replay_dead_letters(world.sink(), TOPIC)
    replayed = [path for path, _, _ in resend.replay_dead_letters(world.sink(), TOPIC)]

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
        list(resend.replay_dead_letters(world.stepped_sink(Steps(step, after)), TOPIC))

    list(resend.replay_dead_letters(world.sink(), TOPIC))
    world.sweep_to_the_end()

    assert world.queued_offsets() == offsets((0, 2))


def test_a_topic_that_is_not_in_kafka_cannot_be_started() -> None:
    world = World()
    del world.kafka.topics[TOPIC]

    with pytest.raises(TransientError, match="no such topic"):
        operate.start_topic(world.sink(), TOPIC)


@pytest.mark.parametrize("text", ["2013-01-01T10:00:00.12Z", "1969-12-31T23:59:59.999Z", "2026-11-23T00:00:00Z"])
def test_a_timestamp_goes_back_as_it_came(text: str) -> None:
    """The trigger trims zeros at a fraction's end."""
    assert timestamp_of(timestamp_ms_of(text)) == text
