"""Logs that are no longer what they were: topics made again, logs cut short, records that retention took."""

from __future__ import annotations

from collections import Counter

import pytest

from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.sink import EARLIER_LIFE_S
from tests.support.app import TOPIC, World
from tests.support.events import Sent
from tests.support.faults import SteppedTable, Steps, Stopped
from tests.support.kafka import Log
from tests.unit.test_gaps import log_of, offsets, records, said


def test_partitions_that_a_topic_made_again_lacks_at_first_begin_at_their_start() -> None:
    """Where the old topic's position stood says nothing about a partition that is added to the new one."""
    world = World()
    world.kafka.create(TOPIC, 2)
    log_of(world, 10, partition=1)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1, partition=1)))
    sink.deliver(TOPIC, world.batch(records(5, 6, partition=1)))
    world.kafka.create(TOPIC, 1)
    world.sweep()
    assert world.ledger.gaps() == []

    world.kafka.topics[TOPIC].append(Log())
    log_of(world, 3, partition=1)
    for _ in range(4):
        world.sweep()

    assert world.ledger.positions()[1].next_offset == 3
    assert world.ledger_offsets()[1, 2] == 1


@pytest.mark.parametrize("knows_positions", [False, True])
def test_a_list_of_a_topics_earlier_life_is_not_taken_for_the_new_ones_records(
    knows_positions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A host retries without end: its batch can come when the sweeper has long seen that the topic is another."""
    world = World()
    world.kafka.create(TOPIC, 1)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch([Sent(b'{"old":0}', 0)]))
    late = world.batch([Sent(b'{"old":1}', 1), Sent(b'{"old":2}', 2)])
    world.kafka.create(TOPIC, 1)
    for n in range(4):
        world.kafka.topics[TOPIC][0].append(b'{"new":%d}' % n, 0)
    world.sweep()

    (sink if knows_positions else world.sink()).deliver(TOPIC, late)
    for _ in range(4):
        world.sweep()

    found = [row for row in world.queued_rows() if "new" in row]
    assert sorted(row["new"] for row in found) == [0, 1, 2, 3]
    assert [row["old"] for row in world.queued_rows() if "old" in row] == [0]
    (said_of,) = said(caplog, "earlier_records_dropped")[:1]
    assert (said_of["next_offset"], said_of["end_offset"]) == (1, 3)


def test_long_after_a_topic_was_made_again_its_batches_are_taken_as_they_come() -> None:
    """To read everything twice for ever would be a high price for a list that nobody holds any more."""
    world = World()
    world.kafka.create(TOPIC, 1)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    world.kafka.create(TOPIC, 1)
    world.sweep()
    world.clock.advance(EARLIER_LIFE_S + 1)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    world.kafka.asked.clear()

    sink.deliver(TOPIC, world.batch(records(1)))

    assert world.kafka.asked == []
    assert world.ledger.positions()[0].next_offset == 2


def test_a_topic_has_begun_anew_only_when_each_partition_has() -> None:
    """Else one without a row would begin where a host that skips has committed, above what it never delivered."""
    world = World()
    world.kafka.create(TOPIC, 1)
    log_of(world, 3)
    world.sink().deliver(TOPIC, world.batch(records(0, 1)))
    world.kafka.create(TOPIC, 2)
    log_of(world, 8, partition=1)

    class LosesARow(SteppedTable):
        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            if operations[0].key == "p-0000000001":
                raise OutcomeUnknownError("lost on the way there")
            return self.inner.transact(partition, operations)

    world.sweep(world.sink(table=LosesARow(world.table, Steps())))
    world.kafka.commits["adx-sink-flights"] = {1: 4}
    world.sink().deliver(TOPIC, world.batch(records(4, 5, partition=1)))
    for _ in range(4):
        world.sweep()

    assert world.queued_offsets() >= Counter(offsets((0, 8), partition=1))


def test_while_a_topic_begins_anew_a_gap_of_the_new_topic_stays() -> None:
    """A batch that comes between the sweeper's steps steps over records of the new topic, not of the old one."""
    world = World()
    log_of(world, 10)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1)))
    sink.deliver(TOPIC, world.batch(records(5, 6)))
    world.kafka.create(TOPIC, 1)
    log_of(world, 30)

    class GetsABatch(SteppedTable):
        """The position has begun anew; the next batch is there before the sweeper does anything else."""

        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            etags = self.inner.transact(partition, operations)
            if operations[0].key == "p-0000000000" and operations[0].values["next_offset"] == 0:
                world.sink().deliver(TOPIC, world.batch(records(20, 21)))
            return etags

    world.sweep(world.sink(table=GetsABatch(world.table, Steps())))
    world.sweep()

    assert world.ledger.gaps() == []
    assert world.queued_offsets() >= Counter(offsets((0, 22)))


def test_gaps_of_a_log_that_was_cut_short_end_where_it_ends() -> None:
    """What is written there later comes with the position: with the gap as well, it would come twice."""
    world = World()
    log = log_of(world, 12)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.deliver(TOPIC, world.batch(records(4)))
    sink.deliver(TOPIC, world.batch(records(10, 11)))
    log.end = 6
    log.records = {offset: sent for offset, sent in log.records.items() if offset < 6}
    world.kafka.silent.add(TOPIC)

    world.sweep()

    assert [(gap.next_offset, gap.end_offset) for gap in world.ledger.gaps()] == [(1, 4), (5, 6)]
    world.kafka.silent.clear()
    world.sweep()
    assert world.ledger.gaps() == []
    assert world.ledger.positions()[0].next_offset == 6


def test_a_segment_that_becomes_gaps_after_its_log_was_cut_short_is_read_up_to_the_position() -> None:
    """Above it the gap would wait for ever for records, and then take those that the position takes."""
    world = World()
    log = log_of(world, 12)
    world.queue.fails_with = TransientError("ADX is down")
    world.sink().deliver(TOPIC, world.batch(records(*range(12))))
    (segment,) = world.ledger.segments()
    log.end = 6
    log.records = {offset: sent for offset, sent in log.records.items() if offset < 6}
    world.sweep()
    assert world.ledger.positions()[0].next_offset == 6
    for blob in segment.blobs:
        world.blobs.delete(blob.container, blob.path)
    world.queue.fails_with = None

    world.sweep_to_the_end()
    log_of(world, 4)
    world.sink().deliver(TOPIC, world.batch(records(6, 7, 8, 9)))
    world.sweep_to_the_end()

    assert world.ledger.gaps() == []
    assert world.queued_offsets() == offsets((0, 10))


def test_of_a_partition_that_is_gone_before_the_first_start_what_is_in_hand_is_taken() -> None:
    """The topic was made again with fewer partitions while the host held a batch of the old one."""
    world = World()
    world.kafka.create(TOPIC, 3)
    batch = world.batch(records(4, 5, partition=2))
    world.kafka.create(TOPIC, 1)

    world.sink().deliver(TOPIC, batch)

    assert world.queued_offsets() == offsets((4, 6), partition=2)


def test_a_loss_is_said_even_by_who_dies_behind_the_commit(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    log = log_of(world, 20)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0, 1)))
    sink.deliver(TOPIC, world.batch(records(10, 11)))
    log.retain_from(6)

    class DiesBehindTheCommit(SteppedTable):
        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            etags = self.inner.transact(partition, operations)
            if operations[0].key.startswith("s-"):
                raise Stopped
            return etags

    with pytest.raises(Stopped):
        world.sweep(world.sink(table=DiesBehindTheCommit(world.table, Steps())))

    assert world.ledger.gaps() == []
    assert [(f["first_offset"], f["records"]) for f in said(caplog, "records_lost_to_retention")] == [(2, 4)]


def test_in_a_sparse_topic_a_list_that_retention_has_overtaken_is_not_trusted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The host's consumer goes on at the low watermark, in the same list: what it passed is lost, not empty."""
    world = World()
    log = log_of(world, 12)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(records(0)))
    sink.mark_sparse(sink.topic(TOPIC))
    log.retain_from(9)

    sink.deliver(TOPIC, world.batch(records(1, 2, 9, 10)))
    world.sweep()

    assert world.ledger_offsets() == offsets((0, 3), (9, 11))
    assert [(f["first_offset"], f["records"]) for f in said(caplog, "records_lost_to_retention")] == [(3, 6)]
