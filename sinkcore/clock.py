"""Time, passed in: deadlines must hold in a process that was frozen, and tests must not sleep."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Wall time and monotonic time; either may stand still while a machine is frozen."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""

    def monotonic_s(self) -> float:
        """Seconds since some moment, never going back."""

    def rest(self, seconds: float) -> None:
        """So much time has passed, in which others had the machine."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """See Clock."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    def rest(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """`limit_s` after its start by whichever clock says more: a freeze can stop either of them."""

    clock: Clock
    limit_s: float
    started_ms: int
    started_s: float

    @classmethod
    def after(cls, clock: Clock, limit_s: float) -> Deadline:
        """A deadline that starts now."""
        return cls(clock, limit_s, clock.now_ms(), clock.monotonic_s())

    def spent_s(self) -> float:
        """Seconds since the start."""
        wall_s = (self.clock.now_ms() - self.started_ms) / 1000
        return max(wall_s, self.clock.monotonic_s() - self.started_s)

    def left_s(self) -> float:
        """Seconds until the deadline, 0 once it is past."""
        return max(0.0, self.limit_s - self.spent_s())

    def is_past(self) -> bool:
        """Whether no time is left."""
        return self.left_s() <= 0
