"""Runs of the simulation: one seed, or many in two processes, with what they met."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context

from sinkcore.operate import start_topic
from tests.simulation.parts.invariants import EndlessError, settle, violations
from tests.simulation.parts.kafka import TOPIC
from tests.simulation.parts.simulation import Profile, Simulation, quiet
from tests.simulation.parts.weather import Weather

EVENTS = 200
INTERLEAVINGS = 29
CHUNK = 20
TRACE_LINES_MAX = 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run has shown."""

    seed: int
    broken: tuple[str, ...]
    trace: tuple[str, ...]
    counts: Counter[str]
    events: int
    sweeps: int


@dataclass(slots=True)
class Summary:
    """What many runs have shown; of those that broke a promise, the whole outcome."""

    runs: int = 0
    events: int = 0
    events_min: int = 1 << 60
    sweeps_max: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[Outcome] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """The other's runs count as well."""
        self.runs, self.events = self.runs + other.runs, self.events + other.events
        self.events_min = min(self.events_min, other.events_min)
        self.sweeps_max = max(self.sweeps_max, other.sweeps_max)
        self.counts.update(other.counts)
        self.broken += other.broken


def run(seed: int, profile: Profile | None = None) -> Outcome:
    """The seed's schedule, to its settled end."""
    with quiet():
        sim = Simulation(seed, profile or Profile())
        weather = Weather(sim)
        if sim.profile.guards.starts_first:
            sim.schedule.faults = False
            start_topic(sim.sink(sim.sweep_clocks[0]), TOPIC)
            sim.schedule.faults = True
        weather.rebalance()
        sweeps, broken = 0, []
        try:
            while sim.schedule.events < sim.profile.events:
                weather.blow()
            sweeps = settle(sim)
        except EndlessError as endless:
            broken.append(f"ENDLESS: {endless}")
        broken += violations(sim)
        for actor in list(sim.schedule.actors):
            sim.schedule.kill(actor)
    schedule = sim.schedule
    return Outcome(seed, tuple(broken), tuple(schedule.trace), schedule.counts, schedule.events, sweeps)


def run_all(seeds: Sequence[int], profile: Profile | None = None, processes: int = 2) -> Summary:
    """All seeds, in so many processes."""
    chunks = [seeds[n : n + CHUNK] for n in range(0, len(seeds), CHUNK)]
    summary = Summary()
    for part in _pool(processes).map(partial(_chunk, profile), chunks):
        summary.add(part)
    return summary


@cache
def _pool(processes: int) -> ProcessPoolExecutor:
    """They import everything once, and end with this one."""
    return ProcessPoolExecutor(processes, get_context("spawn"))


def _chunk(profile: Profile | None, seeds: Iterable[int]) -> Summary:
    summary = Summary()
    for seed in seeds:
        outcome = run(seed, profile)
        broken = [outcome] if outcome.broken else []
        summary.add(Summary(1, outcome.events, outcome.events, outcome.sweeps, outcome.counts, broken))
    return summary


def digest(outcome: Outcome) -> str:
    """Two runs with the same digest had the same trace, byte for byte."""
    return hashlib.sha256("\n".join(outcome.trace).encode()).hexdigest()


def text_of(outcome: Outcome) -> str:
    """A broken run as somebody reads it."""
    lines = outcome.trace if len(outcome.trace) <= TRACE_LINES_MAX else outcome.trace[-TRACE_LINES_MAX:]
    head = f"seed {outcome.seed}: make simulate SEED={outcome.seed} RUNS=1"
    return "\n".join([head, *outcome.broken[:10], *lines])
