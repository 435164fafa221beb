"""The real sinkcore in a world made of a seed: nothing is lost or repeated, and everything comes to its end.

docs/simulation.md says what is simulated and how a trace reads.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.parts.simulation import MODES, Profile
from tests.simulation.run import EVENTS, INTERLEAVINGS, digest, run, run_all, text_of

RUNS = 2_000
DOUBT_RUNS = 300
# Each of them is met in RUNS schedules; a fault that is never met proves nothing.
FAULTS = (
    *("412", "503 after commit", "storage 503 before", "lost reply", "lost reply to a blob", "storage slow"),
    *("transaction lands late", "storage outage", "ledger table dropped", "blob lost"),
    *("adx down", "adx throttles", "adx table missing", "queue reply lost", "queue time-out"),
    *("General_InternalServerError", "BadRequest_InvalidBlob", "BadRequest_TableNotExist"),
    *("Download_SourceNotFound", "Skipped_IngestByTagAlreadyExists", "failure reported twice"),
    *("killed", "frozen", "functionTimeout", "host dies", "python works", "rebalance", "batch skipped"),
    *("committed moved back", "offsets expire", "operator resets", "other app", "week off", "eight days pass"),
    *("transaction open", "transaction committed", "transaction aborted", "compaction", "retention"),
    *("log truncated", "topic made again", "partition added", "kafka down", "silence", "wall clock jumps"),
)


def test_the_same_seed_gives_the_same_trace() -> None:
    """Byte for byte, in another process with other hashes too: else a seed would not repeat what it has shown."""
    call = "from tests.simulation.run import *; print([digest(run(n)) for n in range(6)])"
    told = {
        subprocess.run(
            [sys.executable, "-c", call],
            env=os.environ | {"PYTHONHASHSEED": str(hashes)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hashes in (1, 2)
    }

    assert told == {str([digest(run(n)) for n in range(6)])}
    assert len({digest(run(n)) for n in range(6)}) == 6


def test_whatever_happens_nothing_is_lost_or_repeated_and_everything_ends() -> None:
    summary = run_all(range(1, RUNS + 1))

    assert not summary.broken, "\n\n".join(text_of(outcome) for outcome in summary.broken[:3])
    assert summary.runs == RUNS
    assert summary.events_min >= EVENTS
    wanted = [f"interleaving {n}" for n in range(1, INTERLEAVINGS + 1)] + [f"fault: {name}" for name in FAULTS]
    assert [name for name in wanted if not summary.counts[name]] == []
    for name in sorted(summary.counts):
        print(f"{summary.counts[name]:8} {name}")  # noqa: T201 - shown with `-s`, and when the test fails


@pytest.mark.parametrize("mode", MODES)
def test_doubt_repeats_nothing_and_without_metadata_one_segment_a_death_at_most(mode: str) -> None:
    """A thousand deaths in each mode, all of them between the queue's answer and the mark."""
    profile = Profile(
        mode=mode,
        storage_faulty=0.0,
        adx_faulty=0.0,
        kill_at="transact merge s-",
        weights=(("kill", 60.0),),
        only=("step", "poll", "invoke", "commit", "sweep", "produce", "time", "kill"),
    )

    summary = run_all(range(DOUBT_RUNS), profile)

    assert not summary.broken, "\n\n".join(text_of(outcome) for outcome in summary.broken[:3])
    assert summary.counts["interleaving 4"] >= 1_000
    assert bool(summary.counts["repeated: segments without metadata"]) == (mode == "no metadata")
