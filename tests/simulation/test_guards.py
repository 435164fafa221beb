"""Each guard of the protocol is taken away, and the simulation finds what it is there for.

Nothing is patched: what is passed into sinkcore lies, or does not answer (tests/simulation/without.py).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.parts.simulation import Guards, Profile
from tests.simulation.run import CHUNK, run_all

AT_ONCE = 2 * CHUNK
# By the hole that each guard closes: the kind of run, the guard, what is found, and within how many seeds.
HOLES = {
    "1 silence": (Profile(skips=True), Guards(sees_silence=False), ("ENDLESS", "LOST"), 60),
    "2 positions before the first batch": (Profile(skips=True), Guards(starts_first=False), ("LOST",), 200),
    "3 no commit past the deadline": (
        Profile(rare=4.0, skips=False),
        Guards(host_deadline=False, failures_read=False),
        ("LOST", "failed"),
        200,
    ),
    "4 holes inside a list": (
        Profile(
            skips=True,
            transactions=True,
            tables=1,
            storage_faulty=0.0,
            rare=0.1,
            events=1_000,
            weights=(
                *(("rebalance", 4.0), ("transaction", 4.0), ("kill", 3.0), ("commit", 3.0)),
                *(("storage down", 0.0), ("table missing", 0.0), ("adx down", 0.0)),
            ),
        ),
        Guards(committed_known=False),
        ("LOST",),
        120,
    ),
    "6 questions have a deadline": (Profile(transactions=True), Guards(reads_end=False), ("ENDLESS",), 130),
    "7 the segment's row is read after a conflict": (
        Profile(
            mode="metadata",
            storage_faulty=0.1,
            storage_faults=("resent",),
            adx_faulty=0.0,
            only=("step", "poll", "invoke", "commit", "produce", "sweep"),
        ),
        Guards(read_back=False),
        ("left to the sweeper",),
        60,
    ),
    "8 no queueing past the deadline": (
        Profile(
            mode="metadata",
            storage_faulty=0.0,
            adx_faulty=0.0,
            freeze_at="answered: commit",
            events=400,
            weights=(
                *(("freeze", 30.0), ("time", 2.0), ("sweep", 4.0)),
                *(("adx down", 0.0), ("kill", 0.0), ("storage down", 0.0)),
            ),
        ),
        Guards(host_deadline=False),
        ("TWICE",),
        60,
    ),
    "10 topic ids": (Profile(rare=4.0), Guards(topic_ids=False), ("LOST", "ENDLESS"), 100),
}


@pytest.mark.parametrize("hole", HOLES)
def test_without_its_guard_the_simulation_finds_the_hole_and_with_it_the_same_seeds_are_sound(hole: str) -> None:
    profile, guards, kinds, seeds = HOLES[hole]
    found: list[int] = []
    others: list[str] = []

    for first in range(0, seeds, AT_ONCE):
        summary = run_all(range(first, min(first + AT_ONCE, seeds)), replace(profile, guards=guards))
        found += [o.seed for o in summary.broken if any(each.startswith(kinds) for each in o.broken)]
        others += [o.broken[0] for o in summary.broken if o.seed not in found]
        if found:
            break

    assert found, f"{seeds} seeds, and only {others[:5]}"
    assert [(o.seed, o.broken[:2]) for o in run_all(found, profile).broken] == []
