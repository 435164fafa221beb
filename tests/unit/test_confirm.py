"""How a queued segment becomes a landed one: ADX is asked, once it has had its time, about all of them at once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sinkcore.errors import TransientError
from sinkcore.landed import ASKED_MAX, NotAllowedError
from sinkcore.ledger import NEIGHBOURS_READ_SINGLY
from sinkcore.segment import Blob
from sinkcore.sweep import Sweeper
from sinkcore.unfinished import CONFIRM_MAX_S, LATE_S
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import SteppedTable, Steps

TIME_S = 300 + 300  # the batching time and the margin


def a_world(segments: int = 1, route: dict[str, Any] | None = None, **values: str) -> World:
    world = World(settings_of(route, **values))
    deliver(world, segments)
    return world


def deliver(world: World, segments: int, first: int = 0) -> None:
    sink = world.sink()
    for n in range(first, first + segments):
        sink.deliver(TOPIC, world.batch([Sent(b"{}", n)]))


def states(world: World) -> set[str]:
    return {segment.state for segment in world.ledger.segments()}


def still_open(world: World) -> int:
    return len(list(world.ledger.open_segments()))


def batching_s(blob: Blob) -> float:
    return 300.0


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == name]


def test_a_queued_segment_stays_open_until_its_rows_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world(3)
    assert (states(world), still_open(world)) == ({"queued"}, 3)

    world.clock.advance(TIME_S)
    world.sweep()
    assert world.landed.asked == [], "asked too early, the answer would mean nothing"
    world.clock.advance(1)
    assert world.sweep() == 3

    assert (states(world), still_open(world)) == ({"landed"}, 0)
    assert world.landed.asked == [3], "one question, whatever the number of segments"
    assert said(caplog, "segment_landed") == [{"topic": TOPIC, "segments": 3, "rows": 3, "rows_repeated": 0}]


@pytest.mark.parametrize(
    ("route", "values"),
    [({}, {"SINK_CONFIRM": "none"}), ({"metadata": None}, {}), ({"metadata": None}, {"SINK_CONFIRM": "query"})],
)
def test_where_nothing_confirms_a_queued_segment_is_final(route: dict[str, Any], values: dict[str, str]) -> None:
    """Without metadata there is nothing to go by, whatever the setting says."""
    world = a_world(1, route, **values)

    assert (states(world), still_open(world)) == ({"queued"}, 0)
    world.clock.advance(10 * TIME_S)
    world.sweep()
    assert world.landed.asked == []


def test_a_segment_of_dead_letters_alone_needs_no_confirmation() -> None:
    world = World()
    world.sink().deliver(TOPIC, world.batch([Sent(b"broken", 0)]))

    assert (states(world), still_open(world)) == ({"queued"}, 0)


def test_segments_that_were_open_when_confirmation_was_turned_off_are_final() -> None:
    world = a_world(2)
    world.settings = settings_of(SINK_CONFIRM="none")
    world.sweep()

    assert (states(world), still_open(world)) == ({"queued"}, 0)


def test_rows_that_do_not_show_are_waited_for_said_and_never_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    """ADX may be slow, or the rows deleted: only a message or a person says that they were refused."""
    world = a_world(2)
    world.landed.batching = 1e9
    world.landed.batching_s = batching_s  # type: ignore[method-assign]
    world.clock.advance(LATE_S)
    world.sweep()
    assert said(caplog, "segments_late") == []
    world.clock.advance(60)
    world.sweep()
    assert said(caplog, "segments_late") == [
        {"topic": TOPIC, "segments": 2, "oldest_s": LATE_S + 60, "given_up": 0}
    ]
    assert (states(world), still_open(world)) == ({"queued"}, 2)

    world.clock.advance(CONFIRM_MAX_S)
    world.sweep()

    assert said(caplog, "segments_late")[-1]["given_up"] == 2
    assert (states(world), still_open(world)) == ({"queued"}, 0)
    assert len(world.queue.queued) == 2


def test_rows_that_show_late_confirm_their_segment_all_the_same() -> None:
    world = a_world(1)
    world.landed.batching = 2 * LATE_S
    world.landed.batching_s = batching_s  # type: ignore[method-assign]
    for _ in range(3):
        world.clock.advance(LATE_S)
        world.sweep()

    assert states(world) == {"landed"}


def test_rows_that_are_there_twice_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """For instance those of a blob that somebody ingested by hand as well."""
    world = a_world(1)
    world.queue.queue(*world.queue.queued[0], 1.0)
    world.clock.advance(TIME_S + 1)
    world.sweep()

    assert states(world) == {"landed"}
    assert [facts["rows_repeated"] for facts in said(caplog, "segment_landed")] == [1]


def test_while_adx_does_not_answer_segments_wait() -> None:
    world = a_world(2)
    world.landed.fails_with = TransientError("ADX engine: 503")
    world.clock.advance(TIME_S + 1)
    world.sweep()
    assert still_open(world) == 2
    world.landed.fails_with = None
    world.sweep()

    assert states(world) == {"landed"}


def test_an_adx_that_hangs_is_not_asked_once_for_each_segment() -> None:
    """A question takes up to 20 s to fail, and a sweep has minutes."""
    world = a_world(50)
    looked_up = []

    def slow(blob: Blob) -> float:
        looked_up.append(blob)
        return 300.0

    world.landed.batching_s = slow  # type: ignore[method-assign]
    world.landed.fails_with = TransientError("ADX engine: no answer")
    world.clock.advance(TIME_S + 1)
    world.sweep()

    assert (len(looked_up), len(world.landed.asked)) == (1, 1)


@pytest.mark.parametrize("why", ["no such column", "no role"])
def test_where_adx_cannot_be_asked_it_is_said_once_a_worker(why: str, caplog: pytest.LogCaptureFixture) -> None:
    """Then it is as with SINK_CONFIRM=none."""
    world = a_world(2)
    world.landed.tells_segments_apart = why == "no role"
    world.landed.fails_with = NotAllowedError("ADX engine: 403") if why == "no role" else None
    sweeper = Sweeper(world.sink(), world.landed, world.failures)
    for first in (2, 3):
        world.clock.advance(TIME_S + 1)
        sweeper.sweep()
        assert (states(world), still_open(world)) == ({"queued"}, 0)
        deliver(world, 1, first)

    assert said(caplog, "confirmation_impossible") == [{"topic": TOPIC, "db": "db", "table": "Flights"}]


def test_what_waits_for_confirmation_does_not_hold_kafka_back() -> None:
    """ADX has taken it: SINK_PENDING_MAX counts what it has not."""
    world = a_world(5, SINK_PENDING_MAX="2")
    world.queue.fails_with = TransientError("down")
    deliver(world, 1, first=5)
    world.queue.fails_with = None
    world.sweep()  # the last one is swept, and has an attempt to its name
    world.sweep()

    row = world.ledger.topic()
    assert row is not None
    assert row.pending == 0
    deliver(world, 1, first=6)


def test_a_question_is_bounded_and_the_oldest_come_first() -> None:
    world = a_world(ASKED_MAX + 7)
    world.clock.advance(TIME_S + 1)
    assert world.sweep() == ASKED_MAX
    assert {segment.id for segment in world.ledger.segments() if segment.state == "queued"} == {
        segment.id for segment in world.ledger.segments()[ASKED_MAX:]
    }
    assert world.sweep() == 7
    assert world.landed.asked == [ASKED_MAX, 7]


def test_reading_the_open_segments_does_not_take_a_request_for_each() -> None:
    """All that was queued in the last ten minutes is open, and read at each sweep."""

    def requests(segments: int) -> int:
        world, steps = a_world(segments), Steps()
        ledger = type(world.ledger)(SteppedTable(world.table, steps), "adx-sink-flights")
        assert [each.segment for each in ledger.open_segments()] == world.ledger.segments()
        return len(steps.taken)

    assert requests(NEIGHBOURS_READ_SINGLY + 1) == requests(100) == 2
    assert requests(1) == 2


def test_an_old_straggler_does_not_make_the_history_be_read() -> None:
    world = a_world(1)
    (straggler,) = world.ledger.segments()
    world.clock.advance(3600)
    deliver(world, 20, first=1)
    steps = Steps()
    ledger = type(world.ledger)(SteppedTable(world.table, steps), "adx-sink-flights")

    first, *_ = ledger.open_segments()
    assert first.segment.id == straggler.id
    assert [step.partition("-")[0] for step in steps.taken] == ["rows o", "get s", "rows s"]
