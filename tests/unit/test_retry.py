"""`sinkctl retry`: failed segments are tried again, and nothing that is in the table is sent once more."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from sinkcore import operate
from sinkcore.segment import Segment
from tests.support.app import TOPIC, World
from tests.support.faults import Steps, Stopped
from tests.unit.test_refusals import a_world, all_is_well, blob_states, refuse, sweep_late, the_segment


def retry(world: World, segment_id: str | None = None) -> list[Segment]:
    return operate.retry(world.sink().topic(TOPIC), segment_id)


def failed_for_good(**route: Any) -> World:
    """ADX has refused the blob with a code that is for a person."""
    world = a_world(route or None)
    refuse(world, "BadRequest_SomethingNew", times=1)
    sweep_late(world, 2)
    assert (the_segment(world).state, blob_states(world)) == ("failed", ["failed", "queued"])
    assert list(world.ledger.open_segments()) == []
    return world


@pytest.mark.parametrize("by_id", [True, False])
def test_a_failed_segment_is_tried_again_and_lands(by_id: bool) -> None:
    world = failed_for_good()

    (segment,) = retry(world, the_segment(world).id if by_id else None)
    sweep_late(world, 3)

    assert segment.id == the_segment(world).id
    all_is_well(world)


def test_without_metadata_it_is_queued_again_too() -> None:
    world = failed_for_good(metadata=None)

    retry(world)
    sweep_late(world, 3)

    assert (the_segment(world).state, len(world.landed.landed)) == ("queued", 1)


def test_rows_that_are_there_after_all_are_not_sent_again() -> None:
    """Somebody ingested the blob by hand, or ADX reported a failure of what it then ingested."""
    world = failed_for_good()
    (blob, _), *_ = world.queue.queued
    world.landed.landed.append(blob)

    retry(world)
    sweep_late(world, 3)

    all_is_well(world)
    assert len(world.queue.queued) == 1


def test_what_fails_again_fails_again_and_can_be_retried_again() -> None:
    world = failed_for_good()
    for _ in range(2):
        refuse(world, "BadRequest_SomethingNew", times=1)
        retry(world)
        sweep_late(world, 3)
        assert the_segment(world).state == "failed"

    retry(world)
    sweep_late(world, 3)

    all_is_well(world)


def test_typed_twice_it_is_done_once() -> None:
    world = failed_for_good()

    assert len(retry(world)) == 1
    assert retry(world) == []
    with pytest.raises(operate.NotPossibleError, match="is staged; only a failed one"):
        retry(world, the_segment(world).id)
    sweep_late(world, 3)

    all_is_well(world)
    assert len(world.queue.queued) == 2


def test_what_the_sweeper_waits_for_is_left_to_it() -> None:
    """Its table is missing: once ADX has it, the sweeper goes on by itself."""
    world = a_world()
    world.landed.lacking = {"Flights"}
    sweep_late(world, 3)
    assert the_segment(world).state == "failed"

    assert retry(world) == []
    with pytest.raises(operate.NotPossibleError, match="the sweeper tries it again by itself"):
        retry(world, the_segment(world).id)

    assert blob_states(world) == ["set_up", "queued"]


def test_only_a_failed_segment_is_tried_again() -> None:
    world = a_world()

    with pytest.raises(operate.NotPossibleError, match="is queued; only a failed one"):
        retry(world, the_segment(world).id)
    with pytest.raises(operate.NotPossibleError, match="is not in the ledger"):
        retry(world, "0" * 32)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 8))
def test_whoever_dies_on_the_way_types_it_again(step: int, after: bool) -> None:
    world = failed_for_good()
    with suppress(Stopped):
        operate.retry(world.stepped_sink(Steps(step, after)).topic(TOPIC))

    retry(world)
    sweep_late(world, 3)

    all_is_well(world)
    assert len(world.queue.queued) == 2
