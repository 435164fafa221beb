"""A worker that dies at any step of a delivery or a sweep loses nothing and repeats nothing it need not."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.segment import Blob
from sinkcore.settings import Settings
from sinkcore.unfinished import REST_MAX_S
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import Steps, Stopped

RECORDS = [
    *(
        Sent(json.dumps({"flight": offset}).encode(), offset, partition)
        for partition in (0, 1)
        for offset in (5, 6)
    ),
    Sent(b"not json", 7),
    Sent(None, 8),
]
OFFSETS = {(record.partition, record.offset) for record in RECORDS}
ROWS = {(0, 5), (0, 6), (1, 5), (1, 6)}


FIVES = {"db": "other", "table": "Fives", "when": {"field": "flight", "equals": 5}}
ROUTES: dict[str, Settings] = {"one route": settings_of(), "two routes": settings_of(FIVES, {})}
FLIGHTS: dict[str, set[tuple[int, int]]] = {"one route": ROWS, "two routes": {(0, 6), (1, 6)}}
"""What is in the table that ADX refuses."""


def steps_of_a_delivery(routes: str = "one route") -> list[str]:
    world, steps = World(ROUTES[routes]), Steps()
    world.stepped_sink(steps).deliver(TOPIC, world.batch(RECORDS))
    return steps.taken


def recover(world: World) -> None:
    """The host hands the batch over again, later the sweeper runs."""
    world.sink().deliver(TOPIC, world.batch(RECORDS))
    world.sweep_to_the_end()


def tables_of(world: World) -> dict[str, set[int]]:
    return {table: {row["flight"] for row in rows} for table, rows in world.landed_rows().items()}


def check(world: World) -> None:
    assert world.ledger_offsets() == dict.fromkeys(OFFSETS, 1), "each offset is in exactly one segment"
    assert world.dead_offsets() == {(0, 7): 1}
    assert {segment.state for segment in world.ledger.segments()} == {"landed"}
    assert list(world.ledger.open_segments()) == []
    assert world.queued_offsets() == dict.fromkeys(ROWS, 1), "nothing is lost, and nothing repeated"
    assert tables_of(world) in ({"db.Flights": {5, 6}}, {"other.Fives": {5}, "db.Flights": {6}})


def test_a_delivery_takes_these_steps() -> None:
    """Two transactions for the batch (and, once a worker, its topic's row), a put a body, a message a blob."""
    assert Counter(step.partition(" ")[0] for step in steps_of_a_delivery()) == {
        "get": 3,  # is the topic started? what is in its row? is it still there?
        "transact": 4,  # the topic's two rows, the commit, the mark
        "rows": 1,  # the positions
        "put": 3,  # rows and dead letters are staged; dead letters go to their container
        "queue": 1,
    }


def test_each_table_takes_a_put_and_a_message_more() -> None:
    """And no transaction: all of them are one segment."""
    more = Counter(steps_of_a_delivery("two routes")) - Counter(steps_of_a_delivery())

    assert {step.partition(" ")[0]: count for step, count in more.items()} == {"put": 1, "queue": 1}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("routes", "step"),
    [(routes, step) for routes in ROUTES for step in range(1, len(steps_of_a_delivery(routes)) + 1)],
)
def test_a_worker_that_dies_at_a_step_loses_and_repeats_nothing(routes: str, step: int, after: bool) -> None:
    """Even between the queue's reply and the mark, since the rows tell their segment and ADX can be asked."""
    world = World(ROUTES[routes])

    with pytest.raises(Stopped):
        world.stepped_sink(Steps(step, after)).deliver(TOPIC, world.batch(RECORDS))
    recover(world)

    check(world)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("sweeper_stops_at", range(1, 15))
@pytest.mark.parametrize("worker_stops_after", ["transact create,create", "queue"])
@pytest.mark.parametrize("routes", ROUTES)
def test_a_sweeper_that_dies_at_a_step_is_followed_by_one_that_finishes(
    routes: str, worker_stops_after: str, sweeper_stops_at: int, after: bool
) -> None:
    """With two routes a worker that stops after the first message has queued the blob of one table alone."""
    world = World(ROUTES[routes])
    taken = steps_of_a_delivery(routes)
    step = next(n for n, name in enumerate(taken, start=1) if name.startswith(worker_stops_after))
    with pytest.raises(Stopped):
        world.stepped_sink(Steps(step, after=True)).deliver(TOPIC, world.batch(RECORDS))
    with suppress(Stopped):
        world.sweep_to_the_end(world.stepped_sink(Steps(sweeper_stops_at, after)))

    world.sweep_to_the_end()
    recover(world)

    check(world)


# ADX's answers to the first blobs that it is sent for the table Flights.
REFUSALS: dict[str, list[tuple[str, bool]]] = {
    "try again": [("General_InternalServerError", True)],
    "no such table": [("BadRequest_TableNotExist", False)],
    "broken data": [("BadRequest_InvalidBlob", False)],
    "broken data, twice": [("BadRequest_InvalidBlob", False)] * 2,
    "try again, then broken data": [("General_InternalServerError", True), ("BadRequest_InvalidBlob", False)],
    "nobody knows": [("BadRequest_New", False)],
}
SWEEPS = 6


def refused_world(routes: str, what: str, confirm: str) -> World:
    world = World(replace(ROUTES[routes], confirm=confirm))
    world.sink().deliver(TOPIC, world.batch(RECORDS))
    answers = iter(REFUSALS[what])

    def refusal(blob: Blob) -> str | None:
        code, retry = next(answers, (None, False)) if blob.table == "Flights" else (None, False)
        world.landed.refusal_more = {"ShouldRetry": retry}
        return code

    world.landed.refusal = refusal
    return world


def steps_of_sweeps(routes: str, what: str, confirm: str) -> list[int]:
    """How many steps each of the sweeps takes that follow a refusal."""
    world = refused_world(routes, what, confirm)
    counts = []
    for _ in range(SWEEPS):
        world.clock.advance(REST_MAX_S + 1)
        world.stepped_sweep(steps := Steps())
        counts.append(len(steps.taken))
    return counts


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("confirm", ["query", "none"])
@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.parametrize("routes", ROUTES)
def test_a_sweeper_that_dies_at_any_step_forgets_no_refusal_and_repeats_nothing(
    routes: str, what: str, confirm: str, after: bool
) -> None:
    """The message goes last; until then the next sweeper meets it again, and finds in the ledger what was done.

    What becomes of one table's blob touches no other's.
    """
    refused = FLIGHTS[routes] if what == "broken data, twice" else set()
    missing = FLIGHTS[routes] if what == "nobody knows" else set()
    counts = steps_of_sweeps(routes, what, confirm)
    points = [(n, step) for n, count in enumerate(counts) for step in range(1, count + 1)]
    assert len(points) > 40
    for n, step in points:
        world = refused_world(routes, what, confirm)
        for number in range(SWEEPS + 2):
            world.clock.advance(REST_MAX_S + 1)
            with suppress(Stopped):
                world.stepped_sweep(Steps(step, after) if number == n else Steps())

        assert world.landed_offsets() == dict.fromkeys(ROWS - refused - missing, 1), (n, step)
        assert world.dead_offsets() == dict.fromkeys(refused | {(0, 7)}, 1), (n, step)
        assert world.ledger_offsets() == dict.fromkeys(OFFSETS, 1)
        assert list(world.ledger.open_segments()) == [], (n, step)
        assert world.failures.messages == {}
        (segment,) = world.ledger.segments()
        assert segment.dead_letters == len(refused) + 1
        assert (segment.state == "failed") == (what == "nobody knows")


@pytest.mark.parametrize("worker_stops_after", ["transact create,create", "queue"])
def test_without_metadata_a_death_repeats_one_segment_at_most_and_it_is_said(
    worker_stops_after: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can tell whether it was queued: losing it would be worse."""
    world = World(settings_of({"metadata": None}))
    taken = steps_of_a_delivery()
    step = next(n for n, name in enumerate(taken, start=1) if name.startswith(worker_stops_after))
    with pytest.raises(Stopped):
        world.stepped_sink(Steps(step, after=True)).deliver(TOPIC, world.batch(RECORDS))

    recover(world)

    assert len(world.queued_rows()) in (4, 8)
    (said,) = [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == "segment_swept"]
    assert said["rows_perhaps_repeated"] == 4


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_boundaries_batches_have_and_whoever_dies_each_offset_is_taken_once(data: st.DataObject) -> None:
    """Batches are redelivered from anywhere, by several hosts, each of which may die at any of its steps."""
    world = World()
    last = 12
    hosts = [world.sink(), world.sink()]
    position = 0
    for _ in range(data.draw(st.integers(1, 6))):
        first = data.draw(st.integers(0, min(position, last - 1)))
        after = data.draw(st.integers(first + 1, last))
        batch = [Sent(json.dumps({"n": n}).encode(), n) for n in range(first, after)]
        host = data.draw(st.sampled_from([0, 1]))
        stop_at = data.draw(st.none() | st.integers(1, 8))
        if stop_at is None:
            hosts[host].deliver(TOPIC, world.batch(batch))
            position = max(position, after)
            continue
        try:
            world.stepped_sink(Steps(stop_at, data.draw(st.booleans()))).deliver(TOPIC, world.batch(batch))
        except Stopped:
            hosts[host] = world.sink()
    world.sink().deliver(TOPIC, world.batch(Sent(b'{"n":0}', n) for n in range(last)))
    world.sweep_to_the_end()

    assert world.ledger_offsets() == dict.fromkeys([(0, n) for n in range(last)], 1)
    assert world.queued_offsets() == dict.fromkeys([(0, n) for n in range(last)], 1)
