"""Offsets that the host stepped over, or that nobody delivers: recorded, read from Kafka, and taken once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sinkcore.audit import audit
from sinkcore.errors import TransientError
from sinkcore.ledger_rows import Gap
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent, events_of
from tests.support.kafka import Log


def records(*offsets: int, partition: int = 0) -> list[Sent]:
    return [Sent(b'{"n":%d}' % offset, offset, partition) for offset in offsets]


def log_of(world: World, count: int, partition: int = 0) -> Log:
    log = world.kafka.topics[TOPIC][partition]
    for _ in range(count):
        log.append(b'{"n":%d}' % log.end, partition)
    return log


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == name]


def offsets(*ranges: tuple[int, int], partition: int = 0) -> dict[tuple[int, int], int]:
    return dict.fromkeys([(partition, n) for first, end in ranges for n in range(first, end)], 1)


def test_what_the_host_skipped_is_read_from_kafka_by_the_sweeper(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1)))
    sink.deliver(TOPIC, world.batch(records(10, 11, 12)))

    world.sweep()

    assert world.queued_offsets() == offsets((0, 13))
    assert world.ledger_offsets() == offsets((0, 13))
    assert world.ledger.gaps() == []
    assert [(f["next_offset"], f["end_offset"]) for f in said(caplog, "gap_found")] == [(2, 10)]
    assert [(f["next_offset"], f["end_offset"]) for f in said(caplog, "gap_repaired")] == [(2, 10)]


def test_a_large_gap_is_drained_in_steps_until_the_deadline() -> None:
    """New records flow meanwhile; a sweep must end before the next."""
    world = World()
    log_of(world, 17_000)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(16_999)))

    read = world.kafka.read

    def takes_100_s(*args: Any, **options: Any) -> Any:
        world.clock.advance(100)
        return read(*args, **options)

    world.kafka.read = takes_100_s  # type: ignore[method-assign]
    world.sweep()
    (gap,) = world.ledger.gaps()
    assert 1 < gap.next_offset < gap.end_offset
    for _ in range(3):
        world.sweep()

    assert world.ledger.gaps() == []
    assert world.queued_offsets() == offsets((0, 17_000))


def test_of_a_gap_that_retention_took_in_part_the_loss_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    log = log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1)))
    sink.deliver(TOPIC, world.batch(records(10, 11)))
    log.retain_from(6)

    world.sweep()

    assert world.queued_offsets() == offsets((0, 2), (6, 12))
    assert world.ledger_offsets() == offsets((0, 2), (6, 12)), "what was lost is in no segment"
    assert [(f["first_offset"], f["records"]) for f in said(caplog, "records_lost_to_retention")] == [(2, 4)]


def test_a_gap_above_the_limit_is_held_until_somebody_decides(caplog: pytest.LogCaptureFixture) -> None:
    world = World(settings_of(SINK_GAP_MAX_RECORDS="5"))
    log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(10)))

    world.sweep()
    world.sweep()

    (gap,) = world.ledger.gaps()
    assert gap.held
    assert len(said(caplog, "gap_held")) == 1
    assert world.queued_offsets() == offsets((0, 1), (10, 11))


def test_a_hole_proven_empty_marks_the_topic_and_the_next_one_is_asked_at_once() -> None:
    """Transactions leave a marker behind each commit: their holes must not become rows all day."""
    world = World()
    log = world.kafka.topics[TOPIC][0]
    sink = world.sink()
    for _ in range(2):
        log.append(b"{}", 0)
    sink.deliver(TOPIC, world.batch(records(0, 1)))
    log.skip()
    log.append(b"{}", 0)
    sink.deliver(TOPIC, world.batch(records(3)))
    assert len(world.ledger.gaps()) == 1
    world.sweep()
    assert world.ledger.gaps() == []
    row = world.ledger.topic()
    assert row is not None
    assert row.sparse

    log.skip()
    log.append(b"{}", 0)
    world.sink().deliver(TOPIC, world.batch(records(5)))

    assert world.ledger.gaps() == []
    assert world.ledger.positions()[0].next_offset == 6
    assert world.queued_offsets() == offsets((0, 2), (3, 4), (5, 6))


def test_a_sparse_topic_still_finds_what_was_skipped_before_a_batch() -> None:
    world = World()
    log = world.kafka.topics[TOPIC][0]
    log.append(b"{}", 0)
    log.skip()
    for _ in range(5):
        log.append(b"{}", 0)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(2)))
    world.sweep()

    world.sink().deliver(TOPIC, world.batch(records(5, 6)))

    assert world.ledger.gaps() == []
    assert world.queued_offsets() == offsets((0, 1), (2, 7))


def test_in_a_sparse_topic_a_list_that_outlived_a_rebalance_is_not_trusted() -> None:
    """Another host took and skipped what lies inside; the committed offset above its first record tells."""
    world = World()
    log = log_of(world, 10)
    log.skip()
    world.sink().deliver(TOPIC, world.batch(records(0)))
    row = world.ledger.topic()
    assert row is not None
    sink = world.sink()
    sink.mark_sparse(sink.topic(TOPIC))
    world.kafka.commits["adx-sink-flights"] = {0: 6}

    sink.deliver(TOPIC, world.batch(records(1, 2, 6, 7)))
    world.sweep()

    assert world.queued_offsets() == offsets((0, 8))


def test_in_a_sparse_topic_a_list_that_runs_backwards_is_not_trusted() -> None:
    """A batch between was skipped, and its commit has not arrived when the next one is handed over."""
    world = World()
    log_of(world, 12)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.mark_sparse(sink.topic(TOPIC))
    world.kafka.commits["adx-sink-flights"] = {0: 1}

    sink.deliver(TOPIC, events_of(records(6, 7, 1, 2), TOPIC))
    world.sweep()

    assert world.queued_offsets() == offsets((0, 8))


def test_many_holes_at_once_are_asked_about_before_they_become_a_gap() -> None:
    world = World()
    log = world.kafka.topics[TOPIC][0]
    for _ in range(20):
        log.append(b"{}", 0)
        log.skip()

    world.sink().deliver(TOPIC, world.batch(records(*range(0, 40, 2))))

    assert world.ledger.gaps() == []
    assert world.queued_offsets() == dict.fromkeys([(0, n) for n in range(0, 40, 2)], 1)


def test_the_last_batch_that_a_host_skipped_is_found_without_further_traffic(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has no successor that would show a hole."""
    world = World()
    log_of(world, 10)
    world.sink().deliver(TOPIC, world.batch(records(0, 1)))

    for _ in range(2):
        world.sweep()
    assert world.queued_offsets() == offsets((0, 2)), "a live host gets its time"
    world.sweep()

    assert world.queued_offsets() == offsets((0, 10))
    assert [f["next_offset"] for f in said(caplog, "trigger_silent")] == [2]


def test_a_partition_from_which_nothing_ever_came_is_found_too() -> None:
    """Its first batches may have been skipped before Python ran at all."""
    world = World()
    log_of(world, 3)
    log_of(world, 4, partition=7)
    world.sink().deliver(TOPIC, world.batch(records(0, 1, 2)))

    for _ in range(5):
        world.sweep()

    assert world.queued_offsets() == offsets((0, 3)) | offsets((0, 4), partition=7)


def test_a_trailing_marker_moves_the_position_and_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """Its offset is in a segment without a blob, so that the audit knows it."""
    world = World()
    log_of(world, 2).skip()
    world.sink().deliver(TOPIC, world.batch(records(0, 1)))

    for _ in range(3):
        world.sweep()

    assert world.ledger.positions()[0].next_offset == 3
    assert sorted(len(segment.blobs) for segment in world.ledger.segments()) == [0, 1]
    assert said(caplog, "trigger_silent") == []
    sink = world.sink()
    (found,) = [a for a in audit(sink, sink.topic(TOPIC)) if a.partition == 0]
    assert (found.missing, found.twice) == ((), ())


def test_a_topic_that_was_made_again_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    log_of(world, 10)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1)))
    sink.deliver(TOPIC, world.batch(records(5, 6)))
    world.kafka.create(TOPIC, 2)
    log_of(world, 30)

    world.sweep()
    assert world.ledger.positions()[0].next_offset == 0
    assert world.ledger.gaps() == []
    world.sink().deliver(TOPIC, world.batch(records(*range(30))))

    assert world.ledger.positions()[0].next_offset == 30
    assert len(said(caplog, "topic_recreated")) == 1
    world.sweep()
    assert len(said(caplog, "topic_recreated")) == 1


def test_a_log_that_was_cut_short_goes_on_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Starting anew would repeat the whole partition."""
    world = World()
    log = log_of(world, 10)
    world.sink().deliver(TOPIC, world.batch(records(*range(10))))
    log.end = 7

    world.sweep()

    assert world.ledger.positions()[0].next_offset == 7
    assert [f["end_offset"] for f in said(caplog, "log_truncated")] == [7]


@pytest.mark.parametrize(
    ("committed", "first", "begins_at"),
    [(None, 5, 5), (3, 5, 3), (8, 5, 5), (5, 5, 5)],
    ids=["fresh", "committed below", "committed above", "committed there"],
)
def test_a_partition_begins_at_the_lower_of_committed_and_delivered(
    committed: int | None, first: int, begins_at: int
) -> None:
    """A host that skips commits what it never delivered."""
    world = World()
    log_of(world, 10)
    if committed is not None:
        world.kafka.commits["adx-sink-flights"] = {0: committed}

    world.sink().deliver(TOPIC, world.batch(records(first)))
    for _ in range(4):
        world.sweep()

    assert world.ledger_offsets()[0, begins_at] == 1
    assert min(offset for _, offset in world.ledger_offsets()) == begins_at


def test_a_partition_that_was_added_later_begins_at_its_low_watermark() -> None:
    world = World(settings_of())
    world.kafka.create(TOPIC, 1)
    log_of(world, 2)
    world.sink().deliver(TOPIC, world.batch(records(0, 1)))
    world.kafka.topics[TOPIC].append(Log())
    log_of(world, 6, partition=1)

    world.sink().deliver(TOPIC, world.batch(records(4, 5, partition=1)))
    world.sweep()

    assert world.queued_offsets() == offsets((0, 2)) | offsets((0, 6), partition=1)


def test_a_topic_that_kafka_does_not_have_is_not_started() -> None:
    world = World()
    del world.kafka.topics[TOPIC]

    with pytest.raises(TransientError, match="Kafka has no such topic"):
        world.sink().deliver(TOPIC, events())
    assert world.ledger.topic() is None


def events() -> list[Any]:
    from tests.support.events import events_of

    return events_of(records(0))


def test_while_kafka_does_not_answer_segments_are_finished_all_the_same() -> None:
    world = World()
    world.queue.fails_with = TransientError("ADX is down")
    world.sink().deliver(TOPIC, world.batch(records(0)))
    world.queue.fails_with = None
    world.kafka.fails_with = TransientError("Kafka is down")

    world.sweep()

    assert world.queued_offsets() == offsets((0, 1))


def test_a_gap_that_gets_no_answer_lets_others_go_first() -> None:
    world = World()
    log_of(world, 10)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(5)))
    world.kafka.silent.add(TOPIC)

    world.sweep()

    (gap,) = world.ledger.gaps()
    assert gap.tries == 1
    world.kafka.silent.clear()
    world.sweep()
    assert world.queued_offsets() == offsets((0, 6))


def test_too_much_that_waits_for_adx_leaves_the_rest_to_kafka(caplog: pytest.LogCaptureFixture) -> None:
    world = World(settings_of(SINK_PENDING_MAX="3"))
    log_of(world, 100)
    world.queue.fails_with = TransientError("ADX is down")
    sink = world.sink()
    for offset in range(3):
        sink.deliver(TOPIC, world.batch(records(offset)))
    world.sweep()
    world.clock.advance(11)

    with pytest.raises(TransientError, match="3 segments wait for ADX"):
        sink.deliver(TOPIC, world.batch(records(3)))
    assert said(caplog, "backpressure")

    world.queue.fails_with = None
    world.sweep()
    world.sweep()
    world.clock.advance(11)
    sink.deliver(TOPIC, world.batch(records(3)))
    assert world.queued_offsets() == offsets((0, 4))


def test_a_sweep_gives_adx_a_rest_after_three_refusals() -> None:
    """A thousand segments must not hammer at a service that is down."""
    world = World()
    world.queue.fails_with = TransientError("ADX is down")
    sink = world.sink()
    log_of(world, 10)
    for offset in range(10):
        sink.deliver(TOPIC, world.batch(records(offset)))
    tried: list[object] = []

    def refuse(blob: object, url: str, timeout_s: float) -> None:
        tried.append(blob)
        raise TransientError("ADX is down")

    world.queue.queue = refuse  # type: ignore[method-assign]

    world.sweep()

    assert len(tried) == 3


def test_a_topic_taken_out_of_the_settings_is_swept_and_not_read() -> None:
    world = World()
    log_of(world, 10)
    world.queue.fails_with = TransientError("ADX is down")
    world.sink().deliver(TOPIC, world.batch(records(0)))
    world.queue.fails_with = None
    other = World(settings_of({"topic": "other"}))
    other.table, other.queue, other.blobs, other.kafka = world.table, world.queue, world.blobs, world.kafka
    world.kafka.asked.clear()

    other.sweep()

    assert world.queued_offsets() == offsets((0, 1))
    assert world.kafka.asked == []


def test_a_gap_is_one_row_of_the_contract() -> None:
    world = World()
    log_of(world, 10)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(5)))

    (gap,) = world.ledger.gaps()
    (segment,) = [s for s in world.ledger.segments() if s.ranges[0].first_offset == 5]

    assert gap == Gap(0, 1, 5, "skipped", key=f"g-0000000000-0000000000000000001-{segment.id}", etag=gap.etag)
