"""A worker that dies at any step of a delivery or a sweep loses nothing and repeats nothing it need not."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.sweep import CLAIM_MARGIN_S, sweep
from tests.support.app import TOPIC, World
from tests.support.events import Sent, events_of
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


def steps_of_a_delivery() -> list[str]:
    world, steps = World(), Steps()
    world.stepped_sink(steps).deliver(TOPIC, events_of(RECORDS))
    return steps.taken


def recover(world: World) -> None:
    """The host hands the batch over again, later the sweeper runs."""
    world.sink().deliver(TOPIC, events_of(RECORDS))
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)
    sweep(world.sink())


def check(world: World, repeated: int) -> None:
    assert world.ledger_offsets() == dict.fromkeys(OFFSETS, 1), "each offset is in exactly one segment"
    assert world.dead_offsets() == {(0, 7): 1}
    assert [segment.state for segment in world.ledger.segments()] == ["queued"] * len(world.ledger.segments())
    assert list(world.ledger.open_segments()) == []
    assert set(world.queued_offsets()) == ROWS, "nothing is lost"
    assert max(world.queued_offsets().values()) == 1 + repeated


def test_a_delivery_takes_these_steps() -> None:
    """Two transactions for the batch (and, once a worker, its topic's row), a put a body, a message a blob."""
    assert Counter(step.partition(" ")[0] for step in steps_of_a_delivery()) == {
        "get": 1,  # is the topic listed?
        "transact": 3,  # the topic's row, the commit, the mark
        "rows": 1,  # the positions
        "put": 3,  # rows and dead letters are staged; dead letters go to their container
        "queue": 1,
    }


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, len(steps_of_a_delivery()) + 1))
def test_a_worker_that_dies_at_a_step_loses_and_repeats_nothing(step: int, after: bool) -> None:
    """But for the one window that nobody can close without asking ADX: between the queue's reply and the mark."""
    world = World()
    steps = Steps(step, after)

    with pytest.raises(Stopped):
        world.stepped_sink(steps).deliver(TOPIC, events_of(RECORDS))
    recover(world)

    last = steps.taken[-1]
    queued_unmarked = (last == "queue" and after) or (
        "queue" in steps.taken[:-1] and not (last.startswith("transact merge") and after)
    )
    check(world, repeated=int(queued_unmarked))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 9))
def test_a_sweeper_that_dies_at_a_step_is_followed_by_one_that_finishes(step: int, after: bool) -> None:
    world = World()
    commit = steps_of_a_delivery().index(next(s for s in steps_of_a_delivery() if s.count("create") > 1)) + 1
    with pytest.raises(Stopped):
        world.stepped_sink(Steps(commit, after=True)).deliver(TOPIC, events_of(RECORDS))
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)
    steps = Steps(step, after)
    with suppress(Stopped):
        sweep(world.stepped_sink(steps))
    died_unmarked = "queue" in steps.taken and not any(s.startswith("transact merge,delete") for s in steps.taken)
    if steps.taken[-1] == "queue" and not after:
        died_unmarked = False
    if steps.taken[-1].startswith("transact merge,delete") and not after and len(steps.taken) == step:
        died_unmarked = True

    recover(world)
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)
    sweep(world.sink())

    check(world, repeated=int(died_unmarked))


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
            hosts[host].deliver(TOPIC, events_of(batch))
            position = max(position, after)
            continue
        try:
            world.stepped_sink(Steps(stop_at, data.draw(st.booleans()))).deliver(TOPIC, events_of(batch))
        except Stopped:
            hosts[host] = world.sink()
    world.sink().deliver(TOPIC, events_of(Sent(b'{"n":0}', n) for n in range(last)))
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)
    sweep(world.sink())

    assert world.ledger_offsets() == dict.fromkeys([(0, n) for n in range(last)], 1)
    assert set(world.queued_offsets()) == {(0, n) for n in range(last)}
