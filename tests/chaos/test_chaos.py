"""A short run of `make chaos`, and what its own parts promise."""

from __future__ import annotations

from tests.chaos.run import run
from tests.chaos.schedule import parts_of, schedule

SECONDS = 7.0
SEED = 7


def test_what_is_killed_and_frozen_loses_nothing_and_repeats_nothing() -> None:
    """Everything of the stack is real; `make chaos` is the same for ten minutes, and on a host that skips.

    With tags nobody waits for ADX before a doubtful segment is queued: the other mode takes longer.
    """
    result = run(SECONDS, SEED, delivery="exactly_once", tell=lambda _: None)

    assert result.holds, result
    assert result.records > 0
    assert sum(result.kills.values()) + sum(result.freezes.values()) > 0


def test_a_seed_gives_the_same_schedule_and_each_process_its_turn() -> None:
    """A run that found something can be made again."""
    faults = schedule(1, 120.0, 2)

    assert faults == schedule(1, 120.0, 2)
    assert faults != schedule(2, 120.0, 2)
    assert {(fault.kind, fault.part) for fault in faults} == {
        (kind, part) for part in parts_of(2) for kind in ("kill", "freeze")
    }
