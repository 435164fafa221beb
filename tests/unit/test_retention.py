"""What is removed, and what never is."""

from __future__ import annotations

from contextlib import suppress

import pytest

from sinkcore.errors import TransientError
from sinkcore.retention import SEGMENTS_MAX
from sinkcore.sweep import Sweeper
from tests.support.app import PARTITIONS, TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import Steps, Stopped

DAY_S = 24 * 3600


def a_world(batches: int = 3) -> World:
    world = World(settings_of(SINK_CONFIRM="none"))
    sink = world.sink()
    for first in range(batches):
        sink.deliver(TOPIC, world.batch([Sent(b"{}", 2 * first), Sent(b"broken", 2 * first + 1)]))
    return world


def test_final_segments_and_their_blobs_are_removed_after_their_time() -> None:
    world = a_world()
    world.clock.advance(14 * DAY_S + 1)
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 6)]))

    world.sweep()

    assert [s.ranges[0].first_offset for s in world.ledger.segments()] == [6]
    assert len(world.blobs.in_container("sink-staging")) == 1
    assert len(world.blobs.in_container("sink-dead-letters")) == 3, "dead letters are the users' own"
    assert world.ledger.positions()[0].kept_from == 6
    assert world.ledger.positions()[0].next_offset == 7


def test_nothing_is_removed_before_its_time() -> None:
    world = a_world()
    world.clock.advance(14 * DAY_S - 60)

    world.sweep()

    assert len(world.ledger.segments()) == 3
    assert len(world.blobs.in_container("sink-staging")) == 6


def test_a_segment_that_is_not_finished_stays_however_old() -> None:
    world = World(settings_of(SINK_CONFIRM="none"))
    world.queue.fails_with = TransientError("ADX has been down for weeks")
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 0)]))
    world.clock.advance(30 * DAY_S)

    world.sweep()

    assert len(world.ledger.segments()) == 1
    assert len(world.blobs.in_container("sink-staging")) == 1


def test_blobs_that_no_segment_names_are_removed_as_late_as_the_others() -> None:
    """A zombie may still be about to commit them; it refuses to after its deadline, and this is much later."""
    world = a_world(1)
    with suppress(Stopped):
        world.stepped_sink(Steps(4, after=True)).deliver(TOPIC, world.batch([Sent(b"{}", 2)]))
    assert len(world.blobs.in_container("sink-staging")) == 3
    world.clock.advance(13 * DAY_S)
    world.sweep()
    assert len(world.blobs.in_container("sink-staging")) >= 3

    world.clock.advance(3 * DAY_S)
    world.sweep()

    named = {blob.path for segment in world.ledger.segments() for blob in segment.blobs}
    assert set(world.blobs.in_container("sink-staging")) == named


def test_a_ledger_that_was_lost_takes_no_blob_with_it() -> None:
    world = a_world()
    world.clock.advance(15 * DAY_S)
    world.table.partitions.clear()
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 6)]))

    world.sweep()

    assert len(world.blobs.in_container("sink-staging")) == 7


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 40, 3))
def test_a_sweeper_that_dies_while_removing_is_followed_by_one_that_ends_it(step: int, after: bool) -> None:
    world = a_world()
    world.clock.advance(14 * DAY_S + 1)
    with suppress(Stopped):
        world.sweep(world.stepped_sink(Steps(step, after)))

    world.sweep()

    assert world.ledger.segments() == []
    assert world.blobs.in_container("sink-staging") == {}
    assert world.ledger.positions()[0].kept_from == world.ledger.positions()[0].next_offset == 6


def test_a_segment_that_waited_for_adx_longer_than_it_is_kept_is_kept_from_then_on() -> None:
    """Its blob is all that ADX can read it from."""
    world = World(settings_of(SINK_CONFIRM="none"))
    world.queue.fails_with = TransientError("ADX has been down for weeks")
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 0)]))
    world.clock.advance(30 * DAY_S)
    world.queue.fails_with = None

    world.sweep()
    world.clock.advance(3600)
    world.sweep()

    assert [segment.state for segment in world.ledger.segments()] == ["queued"]
    assert len(world.blobs.in_container("sink-staging")) == 1


def test_a_busy_topic_is_kept_up_with() -> None:
    world = a_world(200)
    world.clock.advance(14 * DAY_S + 1)

    world.sweep()

    assert world.ledger.segments() == []
    assert world.blobs.in_container("sink-staging") == {}


def test_more_than_a_sweep_removes_is_gone_on_with_by_the_next_one() -> None:
    """Once an hour a busy topic of two segments a second would have 7,200, and keep the rest for ever."""
    world = World(settings_of(SINK_CONFIRM="none"))
    sink = world.sink()
    more = 10
    for offset in range(SEGMENTS_MAX + more):
        sink.deliver(TOPIC, world.batch([Sent(b"{}", offset)]))
    world.clock.advance(14 * DAY_S + 1)
    sweeper = Sweeper(world.sink(), world.landed, world.failures)

    sweeper.sweep()
    assert len(world.ledger.segments()) == more
    world.clock.advance(30)
    sweeper.sweep()

    assert world.ledger.segments() == []
    assert world.blobs.in_container("sink-staging") == {}


def test_removal_leaves_time_for_what_is_to_be_read() -> None:
    world = a_world(200)
    world.clock.advance(14 * DAY_S + 1)
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 410)]))
    delete = world.blobs.delete

    def takes_a_second(container: str, path: str) -> None:
        world.clock.advance(1)
        delete(container, path)

    world.blobs.delete = takes_a_second  # type: ignore[method-assign]

    world.sweep()

    assert 0 < len(world.ledger.segments()) < 200
    assert world.ledger.gaps() == []


def test_removing_a_topic_that_is_no_more_does_not_touch_where_the_new_one_is_kept_from() -> None:
    """Its offsets count in another topic of that name."""
    world = a_world()
    world.kafka.create(TOPIC, PARTITIONS)
    world.sweep()
    world.clock.advance(14 * DAY_S + 1)
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 0)]))

    world.sweep()

    position = world.ledger.positions()[0]
    assert (position.kept_from, position.next_offset) == (0, 1)
    assert len(world.ledger.segments()) == 1
