"""While ADX refuses, one sweep asks for all, a little more each time that it takes something."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field

import pytest

from sinkcore.errors import TransientError
from sinkcore.ledger import Ledger
from sinkcore.segment import Blob
from sinkcore.sink import TOPIC_READ_EVERY_S, Sink
from sinkcore.unfinished import REFUSALS_MAX
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent

DOWN = TransientError("ADX is down")


@dataclass
class Adx:
    """ADX's queue, which counts what it is asked while it is down, and takes what it is allowed to."""

    world: World
    down: bool = True
    never_takes: str = "?"
    asked: list[str] = field(default_factory=list)

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        self.asked.append(blob.path)
        if self.down or self.never_takes in blob.path:
            raise DOWN
        self.world.queue.queue(blob, url, timeout_s)

    def asked_since(self) -> int:
        count = len(self.asked)
        self.asked.clear()
        return count


def deliver(world: World, sink: Sink, *offsets: int, topic: str = TOPIC) -> None:
    for offset in offsets:
        world.clock.advance(1)  # the ids of segments sort by age
        sink.deliver(topic, world.batch([Sent(b"{}", offset)], topic))


def test_while_adx_is_down_no_instance_asks_it_but_the_sweeper() -> None:
    """Each of many instances would otherwise hang at it for 30 s with every batch."""
    world = World()
    adx = Adx(world)
    hosts = [world.sink(queue=adx) for _ in range(4)]
    deliver(world, hosts[0], 0, 1, 2)
    sweeper = world.sink(queue=adx)
    world.sweep(sweeper)
    world.clock.advance(TOPIC_READ_EVERY_S + 1)
    adx.asked.clear()

    for n, host in enumerate(hosts):
        deliver(world, host, n + 3)

    assert adx.asked == []
    assert world.ledger_offsets() == {(0, n): 1 for n in range(7)}, "all are committed"
    assert {b.state for s in world.ledger.segments() for b in s.blobs} == {"unsent"}, "and none is in doubt"


def test_the_rate_grows_while_adx_takes_segments_and_begins_anew_when_it_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    adx = Adx(world)
    sink = world.sink(queue=adx)
    deliver(world, sink, *range(60))
    adx.asked.clear()

    tried = []
    for down in (True, True, False, False, False, True, False, False, False, False):
        adx.down = down
        world.sweep(sink)
        tried.append(adx.asked_since())

    assert tried == [3, 1, 1, 4, 16, 1, 1, 4, 16, 60 - 1 - 4 - 16 - 1 - 4 - 16]
    row = world.ledger.topic()
    assert row is not None
    assert (row.probes, row.pending) == (0, 0)
    assert world.queued_offsets() == {(0, n): 1 for n in range(60)}
    said = [r.__dict__["event"] for r in caplog.records if r.__dict__.get("event", "").startswith("breaker")]
    assert said == ["breaker_opened", "breaker_closed"]
    world.clock.advance(TOPIC_READ_EVERY_S + 1)
    deliver(world, sink, 60)
    assert world.queued_offsets()[0, 60] == 1, "batches queue their own again"


def test_adx_is_asked_as_seldom_for_twenty_topics_as_for_one() -> None:
    """It is one service: what one topic has met, the others need not try."""
    names = [f"t{n}" for n in range(20)]
    routes = [{"topic": name, "db": "db", "table": "T", "metadata": "_kafka"} for name in names]
    world = World(settings_of(SINK_TOPICS_MAPPING=json.dumps(routes)))
    adx = Adx(world)
    sink = world.sink(queue=adx)
    for name in names:
        deliver(world, sink, 0, 1, topic=name)
    adx.asked.clear()

    for _ in range(3):
        world.sweep(sink)
        assert adx.asked_since() == REFUSALS_MAX
    rows = [Ledger(world.table, world.settings.kafka.group_of(name)).topic() for name in names]
    assert {row.probes for row in rows if row} == {1}

    adx.down = False
    for _ in range(3):
        world.sweep(sink)
    rows = [Ledger(world.table, world.settings.kafka.group_of(name)).topic() for name in names]
    assert {(row.probes, row.pending) for row in rows if row} == {(0, 0)}


def test_a_segment_that_adx_never_takes_does_not_keep_the_breaker_open() -> None:
    """Tried by it alone, ADX would be down for ever."""
    world = World()
    adx = Adx(world)
    sink = world.sink(queue=adx)
    deliver(world, sink, *range(10))
    world.sweep(sink)
    (never,) = [s for s in world.ledger.segments() if s.ranges[0].first_offset == 0]
    adx.never_takes, adx.down = never.id, False

    for _ in range(4):
        world.sweep(sink)
    row = world.ledger.topic()

    assert world.queued_offsets() == {(0, n): 1 for n in range(1, 10)}
    assert row is not None
    assert (row.probes, row.pending) == (0, 1)


def test_gaps_are_drained_into_storage_alone_while_the_breaker_is_open() -> None:
    world = World()
    adx = Adx(world)
    sink = world.sink(queue=adx)
    log = world.kafka.topics[TOPIC][0]
    for _ in range(10):
        log.append(b"{}", 0)
    deliver(world, sink, 0, 1, 9)
    adx.asked.clear()

    world.sweep(sink)

    assert adx.asked_since() == 3, "the three segments, and not what came of the gap"
    assert world.ledger.gaps() == []
    assert sum(world.ledger_offsets().values()) == 10


def test_what_waits_is_on_the_topics_row_before_adx_is_tried() -> None:
    """An ADX that hangs takes 30 s a try; meanwhile workers would take far more than SINK_PENDING_MAX."""
    world = World(settings_of(SINK_PENDING_MAX="5"))
    seen: list[int] = []

    class Hanging(Adx):
        def queue(self, *_: object) -> None:
            row = world.ledger.topic()
            assert row is not None
            seen.append(row.pending)
            raise DOWN

    sink = world.sink(queue=Hanging(world))
    deliver(world, sink, *range(8))
    seen.clear()

    world.sweep(sink)

    assert seen == [8, 8, 8]
    world.clock.advance(TOPIC_READ_EVERY_S + 1)
    with pytest.raises(TransientError, match="8 segments wait for ADX"):
        deliver(world, sink, 8)
