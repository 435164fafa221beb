"""Two apps in one consumer group, each with a ledger of its own: neither is at fault, and both are told."""

from __future__ import annotations

from typing import Any

import pytest

from sinkcore.partitions import SHARED_TIMES, SILENT_SWEEPS
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent

GROUP = "adx-sink-flights"


def said(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == "group_shared"]


def a_world(partitions: int) -> World:
    world = World(settings_of())
    world.kafka.create(TOPIC, partitions)
    world.kafka.commits[GROUP] = {}
    return world


def take(world: World, partition: int, count: int = 1) -> None:
    """The group's consumer of this partition is this app: it takes the next records, and commits."""
    log = world.kafka.topics[TOPIC][partition]
    offsets = [log.append(b"{}", partition) for _ in range(count)]
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", n, partition) for n in offsets]))
    world.kafka.commits[GROUP][partition] = log.end


def test_who_has_only_some_of_the_groups_partitions_says_so(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = a_world(2), World()
    theirs.kafka = ours.kafka
    for _ in range(SHARED_TIMES * SILENT_SWEEPS):
        assert said(caplog) == []
        for app, partition in ((ours, 0), (theirs, 1)):
            take(app, partition)
            app.sweep()

    facts = {"topic": TOPIC, "group": GROUP}
    assert said(caplog) == [facts | {"partitions": [1]}, facts | {"partitions": [0]}]


def test_a_trigger_that_is_silent_for_good_is_no_second_app(caplog: pytest.LogCaptureFixture) -> None:
    """It commits nothing."""
    world = a_world(1)
    take(world, 0)

    for _ in range(5 * SILENT_SWEEPS):
        world.kafka.topics[TOPIC][0].append(b"{}", 0)
        world.sweep()

    assert said(caplog) == []


def test_a_host_that_skips_the_last_batch_now_and_then_is_no_second_app(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world(1)
    for _ in range(5):
        take(world, 0)
        world.kafka.topics[TOPIC][0].append(b"{}", 0)
        world.kafka.commits[GROUP][0] = world.kafka.topics[TOPIC][0].end
        for _ in range(SILENT_SWEEPS):
            world.sweep()

    assert world.ledger_offsets().total() == 10
    assert said(caplog) == []


def skip(world: World, partition: int) -> None:
    """Another app had the partition for a while."""
    log = world.kafka.topics[TOPIC][partition]
    log.append(b"{}", partition)
    world.kafka.commits[GROUP][partition] = log.end


def test_new_gaps_in_every_partition_sweep_after_sweep_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Partitions that go to and fro between the two apps."""
    world = a_world(3)
    for partition in range(3):
        take(world, partition)
    for n in range(SHARED_TIMES):
        assert said(caplog) == [], n
        for partition in range(3):
            skip(world, partition)
            take(world, partition)
        world.sweep()

    assert said(caplog) == [{"topic": TOPIC, "group": GROUP, "partitions": [0, 1, 2]}]


@pytest.mark.parametrize("gapped", [1, 2])
def test_gaps_in_some_partitions_or_gaps_that_stay_are_not(gapped: int, caplog: pytest.LogCaptureFixture) -> None:
    world = a_world(3)
    for partition in range(3):
        take(world, partition)
    for partition in range(3):
        skip(world, partition)
        take(world, partition)
    world.kafka.silent.add(TOPIC)
    for _ in range(2 * SHARED_TIMES):
        for partition in range(gapped):
            skip(world, partition)
            take(world, partition)
        world.sweep()

    assert said(caplog) == []
