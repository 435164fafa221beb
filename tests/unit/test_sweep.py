"""What the sweeper does with a segment that somebody left behind, by what is known of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.landed import NotAllowedError
from sinkcore.ledger import Ledger
from sinkcore.sweep import Sweeper
from sinkcore.unfinished import CLAIM_MARGIN_S
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent

BATCH = [Sent(b'{"flight":1}', 0), Sent(b"broken", 1)]


def left_behind(world: World, error: Exception) -> None:
    """A committed segment whose queueing ended with `error`."""
    world.queue.fails_with = error
    world.sink().deliver(TOPIC, world.batch(BATCH))
    world.queue.fails_with = None


def test_a_segment_that_was_certainly_not_queued_is_queued_at_once() -> None:
    world = World()
    left_behind(world, TransientError("ADX is down"))

    assert world.sweep() == 1
    assert world.sweep() == 0

    assert world.queued_offsets() == {(0, 0): 1}
    assert world.dead_offsets() == {(0, 1): 1}
    assert [segment.state for segment in world.ledger.segments()] == ["queued"]


def test_a_doubtful_segment_waits_until_adx_has_had_its_time() -> None:
    """Asked too early, the table would not have the rows yet, and they would be repeated."""
    world = World()
    left_behind(world, OutcomeUnknownError("lost"))
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)

    assert world.sweep() == 0
    (opened,) = world.ledger.open_segments()
    assert (opened.segment.waiting, opened.segment.attempts) == (True, 1)
    world.clock.advance(world.landed.batching + world.settings.doubt_margin_s - 1)
    assert world.sweep() == 0
    world.clock.advance(2)
    assert world.sweep() == 1

    assert world.queued_offsets() == {(0, 0): 1}


def test_a_doubtful_segment_that_has_landed_is_marked_and_not_queued_again() -> None:
    world = World()
    queue = world.queue.queue

    def queue_and_lose_the_reply(blob: object, url: str, timeout_s: float) -> None:
        queue(blob, url, timeout_s)  # type: ignore[arg-type]
        raise OutcomeUnknownError("lost")

    world.queue.queue = queue_and_lose_the_reply  # type: ignore[method-assign]
    world.sink().deliver(TOPIC, world.batch(BATCH))

    assert world.sweep_to_the_end() == 1

    assert world.queued_offsets() == {(0, 0): 1}
    assert [segment.state for segment in world.ledger.segments()] == ["landed"]


@pytest.mark.parametrize("kind", [TransientError, NotAllowedError])
def test_while_adx_does_not_answer_a_doubtful_segment_waits_on_and_it_is_said(
    kind: type[TransientError], caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    left_behind(world, OutcomeUnknownError("lost"))
    world.landed.fails_with = kind("ADX engine: no")

    assert world.sweep_to_the_end() == 0
    said = [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == "adx_silent"]
    assert said[-1] == {"topic": TOPIC, "error": "ADX engine: no"}
    world.landed.fails_with = None
    assert world.sweep() == 1


def test_a_table_that_cannot_tell_segments_apart_gets_the_segment_again_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.landed.tells_segments_apart = False
    left_behind(world, OutcomeUnknownError("lost"))

    assert world.sweep_to_the_end() == 1

    (said,) = [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == "segment_swept"]
    assert said["rows_perhaps_repeated"] == 1


def test_with_ingest_by_tags_nothing_needs_to_be_asked() -> None:
    world = World(settings_of(SINK_DELIVERY="exactly_once"))
    left_behind(world, OutcomeUnknownError("lost"))
    world.landed.fails_with = AssertionError("asked")
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)

    assert world.sweep() == 1


def test_a_sweep_ends_at_its_own_deadline() -> None:
    world = World()
    for first in range(0, 30, 2):
        world.queue.fails_with = TransientError("down")
        world.sink().deliver(TOPIC, world.batch([Sent(b"{}", first), Sent(b"{}", first + 1)]))
    world.queue.fails_with = None
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)
    queue = world.queue.queue

    def takes_100_s(blob: object, url: str, timeout_s: float) -> None:
        world.clock.advance(100)
        queue(blob, url, timeout_s)  # type: ignore[arg-type]

    world.queue.queue = takes_100_s  # type: ignore[method-assign]

    assert world.sweep() == 3


def test_one_topics_large_gap_does_not_keep_the_others_waiting() -> None:
    """A drain may use up a whole sweep; a turn is half of it here, and ends after a step."""
    routes = [{"topic": name, "db": "db", "table": "T", "metadata": "_kafka"} for name in ("large", "small")]
    world = World(settings_of(SINK_TOPICS_MAPPING=json.dumps(routes)))
    sink = world.sink()
    for name in ("large", "small"):
        log = world.kafka.topics[name][0]
        for _ in range(12_000 if name == "large" else 10):
            log.append(b"{}", 0)
        for offset in (0, log.end - 1):
            sink.deliver(name, world.batch([Sent(b"{}", offset)], name))
    world.queue.fails_with = TransientError("ADX is down")
    sink.deliver("small", world.batch([Sent(b"{}", 10)], "small"))
    world.queue.fails_with = None
    read = world.kafka.read

    def takes_long(topic: str, *args: Any, **options: Any) -> Any:
        world.clock.advance(150 if topic == "large" else 0)
        return read(topic, *args, **options)

    world.kafka.read = takes_long  # type: ignore[method-assign]
    sweeper = Sweeper(world.sink(), world.landed, world.failures, world.seen, turn=-1)
    large = Ledger(world.table, world.settings.kafka.group_of("large"))

    sweeper.sweep()

    small = Ledger(world.table, world.settings.kafka.group_of("small"))
    assert {segment.state for segment in small.segments()} == {"queued"}
    assert small.gaps() == [], "the large one had no more than its turn"
    assert [gap.next_offset for gap in large.gaps()] == [5_001], "the step that it was at was finished"
    world.kafka.read = read  # type: ignore[method-assign]
    assert sweeper._known()[0].name == "small", "and each sweep begins with another topic"


def test_what_a_turn_leaves_over_goes_to_who_has_more_to_do() -> None:
    """Nineteen idle topics must not make a drain nineteen times as slow."""
    names = ["large", *(f"idle{n}" for n in range(19))]
    routes = [{"topic": name, "db": "db", "table": "T", "metadata": "_kafka"} for name in names]
    world = World(settings_of(SINK_TOPICS_MAPPING=json.dumps(routes)))
    sink = world.sink()
    for name in names:
        sink.deliver(name, world.batch([Sent(b"{}", 0)], name))
    log = world.kafka.topics["large"][0]
    for _ in range(60_000):
        log.append(b"{}", 0)
    sink.deliver("large", world.batch([Sent(b"{}", log.end - 1)], "large"))
    read = world.kafka.read

    def takes_20_s(*args: Any, **options: Any) -> Any:
        world.clock.advance(20)
        return read(*args, **options)

    world.kafka.read = takes_20_s  # type: ignore[method-assign]

    world.sweep()

    (gap,) = Ledger(world.table, world.settings.kafka.group_of("large")).gaps()
    assert gap.next_offset == 1 + 11 * 5_000, "240 s are twelve steps, of which the last came too late to commit"
