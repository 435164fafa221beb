"""Unusual, and it must hold all the same: a thousand partitions, clocks an hour apart, settings that change."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sinkcore.errors import TransientError
from sinkcore.ledger import CURSORS_MAX
from sinkcore.operate import start_topic
from sinkcore.unfinished import CLAIM_MARGIN_S
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import Steps, Stopped

MANY = 1_000
HOUR_MS = 3_600_000
# Of a delivery: the topic's row, is it there still?, positions, staging, the commit, the message.
QUEUED = 6


def a_wide_world() -> World:
    world = World(settings_of(SINK_CONFIRM="none"))
    world.kafka.create(TOPIC, MANY)
    return world


def one_each() -> list[Sent]:
    return [Sent(b'{"n":1}', 0, partition) for partition in range(MANY)]


def test_a_batch_of_a_thousand_partitions_is_as_many_segments_as_the_transactions_that_it_needs() -> None:
    world, steps = a_wide_world(), Steps()
    sink = world.stepped_sink(steps)

    sink.deliver(TOPIC, world.batch(one_each()))

    assert world.queued_offsets() == {(partition, 0): 1 for partition in range(MANY)}
    segments = -(-MANY // CURSORS_MAX)
    assert len(world.ledger.segments()) == segments
    assert sum(step.startswith("transact") for step in steps.taken) == 2 + 2 * segments, (
        "the topic's, commits, marks"
    )
    assert sum(step == "rows p-" for step in steps.taken) == 1, "positions are loaded once"

    steps.taken.clear()
    sink.deliver(TOPIC, world.batch(one_each()))
    assert steps.taken == [], "a redelivery costs nothing"


def test_a_sweep_of_a_thousand_idle_partitions_asks_as_often_as_one_of_a_few() -> None:
    asked = []
    for partitions in (1, MANY):
        world = World(settings_of(SINK_CONFIRM="none"))
        world.kafka.create(TOPIC, partitions)
        world.sink().deliver(TOPIC, world.batch(one_each()[:partitions]))
        world.sweep()
        world.kafka.asked.clear()
        world.stepped_sweep(steps := Steps())
        asked.append((steps.taken, list(world.kafka.asked)))

    assert asked[0] == asked[1]


def test_a_thousand_partitions_are_started_by_a_hundred_at_once() -> None:
    world, steps = a_wide_world(), Steps()

    positions = start_topic(world.stepped_sink(steps), TOPIC)

    assert len(positions) == MANY
    assert sum(step.startswith("transact") for step in steps.taken) == 2 + MANY // 100


def test_a_start_beside_the_first_batch_leaves_no_partition_out() -> None:
    """One position that is there already undoes the transaction of a hundred."""
    world = a_wide_world()
    batch = world.batch(one_each()[5:6])
    sink = world.sink()
    topic = sink.topic(TOPIC)
    move = topic.ledger.move

    def deliver_first(*cursors: Any) -> bool:
        topic.ledger.move = move  # type: ignore[method-assign]
        world.sink().deliver(TOPIC, batch)
        return move(*cursors)

    topic.ledger.move = deliver_first  # type: ignore[assignment,method-assign]

    assert start_topic(sink, TOPIC).keys() == set(range(MANY))


@pytest.mark.parametrize("silent", [5, MANY])
def test_what_is_silent_among_a_thousand_partitions_is_found(silent: int) -> None:
    world = a_wide_world()
    world.sink().deliver(TOPIC, world.batch(one_each()))
    for partition in range(silent):
        world.kafka.topics[TOPIC][partition].append(b"{}", partition)

    for _ in range(4):
        world.sweep()

    assert world.queued_offsets().total() == MANY + silent


@dataclass
class Skewed:
    """The clock of a host that is off."""

    true: World
    off_ms: int

    def now_ms(self) -> int:
        return self.true.clock.now_ms() + self.off_ms

    def monotonic_s(self) -> float:
        return self.true.clock.monotonic_s()

    def rest(self, seconds: float) -> None:
        self.true.clock.rest(seconds)


@pytest.mark.parametrize("worker", [-HOUR_MS, 0, HOUR_MS])
@pytest.mark.parametrize("sweeper", [-HOUR_MS, 0, HOUR_MS])
def test_hosts_whose_clocks_are_an_hour_apart_do_not_take_each_others_segments(worker: int, sweeper: int) -> None:
    """Ages are by the service's clock: no segment is taken while somebody is at it, or left for an hour."""
    world = World()
    batch = world.batch([Sent(b"{}", 0)])
    world.sink().topic(TOPIC)
    dies = replace(world.stepped_sink(Steps(QUEUED, after=True)), clock=Skewed(world, worker))
    with pytest.raises(Stopped):
        dies.deliver(TOPIC, batch)
    (opened,) = world.ledger.open_segments()

    world.clock.advance(world.settings.invocation_max_s)
    world.sweep(world.sink(clock=Skewed(world, sweeper)))
    assert not any(o.segment.attempts for o in world.ledger.open_segments()), "somebody may still be at it"
    world.clock.advance(CLAIM_MARGIN_S + 1)
    world.sweep(world.sink(clock=Skewed(world, sweeper)))
    assert all(o.segment.waiting for o in world.ledger.open_segments())
    world.clock.advance(world.landed.batching + world.settings.doubt_margin_s + 1)
    world.sweep(world.sink(clock=Skewed(world, sweeper)))
    world.sink(clock=Skewed(world, -sweeper)).deliver(TOPIC, batch)

    assert world.queued_offsets() == {(0, 0): 1}
    assert world.ledger.segment(opened.segment.id) is not None


def test_a_route_that_is_re_aimed_leads_only_what_comes_later() -> None:
    """A segment holds all that queueing it needs."""
    world = World()
    world.queue.fails_with = TransientError("ADX is down")
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 0)]))
    world.queue.fails_with = None
    later = settings_of({"table": "Elsewhere", "mapping": "Other", "metadata": None})
    sink = world.sink(settings=later)

    sink.deliver(TOPIC, world.batch([Sent(b"{}", 1)]))
    world.sweep(sink)

    sent = {(blob.table, blob.mapping, blob.metadata) for blob, _ in world.queue.queued}
    assert sent == {("Flights", None, "_kafka"), ("Elsewhere", "Other", None)}


def test_a_topic_taken_out_of_the_settings_ends_and_is_not_consumed_even_where_its_gaps_wait() -> None:
    world = World()
    log = world.kafka.topics[TOPIC][0]
    for _ in range(10):
        log.append(b"{}", 0)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch([Sent(b"{}", 0)]))
    world.queue.fails_with = TransientError("ADX is down")
    sink.deliver(TOPIC, world.batch([Sent(b"{}", 5)]))
    world.queue.fails_with = None
    routes = [{"topic": "other", "db": "db", "table": "T"}]
    world.kafka.create("other", 1)
    without = world.sink(settings=settings_of(SINK_TOPICS_MAPPING=json.dumps(routes)))

    for _ in range(5):
        world.sweep(without)
    assert world.queued_offsets() == {(0, 0): 1, (0, 5): 1}
    assert len(world.ledger.gaps()) == 1

    world.sweep()
    assert world.ledger.gaps() == [], "with its route it goes on where it was"
