"""Timing side by side: what is compared is run in turns, so that a busy machine slows all of it alike."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median

from sinkcore.records import COLLECT_EVERY


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the benchmark. `mark` is the most that `value` may be, where something was promised."""

    case: str
    data: str
    batch: int
    what: str
    value: float
    unit: str
    mark: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the mark holds; None where there is none."""
        return None if self.mark is None else self.value <= self.mark

    def as_dict(self) -> dict[str, object]:
        """For the JSON lines."""
        return {**asdict(self), "met": self.met}


def pin_to_one_core() -> str:
    """Stay on one core from here on, where the system allows that; says what came of it."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned to a core"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"pinned to core {core}"


def cpu_us(
    work: Mapping[str, Callable[[], object]], *, rounds: Mapping[str, int], burst: int = 1
) -> dict[str, float]:
    """The median CPU time of each piece of work, in microseconds, after one round that does not count.

    All pieces run once a round, `burst` times in a row, until each has had its `rounds`. The collector is on, and
    looks as often as in the app's worker; each round begins with a collection.
    """
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(max(rounds.values()) + 1):
        gc.collect()
        for name, run in work.items():
            if number > rounds[name]:
                continue
            started = time.thread_time_ns()
            for _ in range(burst):
                run()
            elapsed = time.thread_time_ns() - started
            if number:
                taken[name].append(elapsed / 1000 / burst)
    return {name: median(times) for name, times in taken.items()}
