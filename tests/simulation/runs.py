"""Many runs, in as many processes as there are processors, and what they came to."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context

from tests.simulation.config import Config
from tests.simulation.world import Outcome, run

CHUNK = 20


@dataclass
class Summary:
    """What many runs came to. Traces are kept of failed ones alone."""

    runs: int = 0
    events: int = 0
    events_least: int = 0
    failed: list[Outcome] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    interleavings: Counter[int] = field(default_factory=Counter)
    took_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.events += outcome.events
        self.events_least = min(self.events_least or outcome.events, outcome.events)
        self.faults.update(outcome.faults)
        self.interleavings.update(outcome.interleavings)
        if outcome.wrong:
            self.failed.append(outcome)


def run_all(seeds: Sequence[int], config: Config | None = None, processes: int | None = None) -> Summary:
    """Every seed's run; the order of `failed` is that of the seeds."""
    summary, started_s = Summary(), time.monotonic()
    for outcome in _outcomes(seeds, config, processes or os.cpu_count() or 1):
        summary.add(outcome)
    summary.took_s = time.monotonic() - started_s
    return summary


def _outcomes(seeds: Sequence[int], config: Config | None, processes: int) -> Iterator[Outcome]:
    if processes == 1 or len(seeds) < CHUNK:
        yield from (_one(config, seed) for seed in seeds)
        return
    # Spawned, since a forked process would have the threads' state without the threads.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_one, config), seeds, chunksize=CHUNK)


def _one(config: Config | None, seed: int) -> Outcome:
    outcome = run(seed, config)
    if not outcome.wrong:
        outcome.trace.clear()
    return outcome
