"""Time and the order of things: actors take turns at each of their calls to the outside, by one seeded generator.

An actor is a greenlet that runs real code of the sink. It parks at every call; whoever goes on next, who is frozen
or killed there, and how much time passes, is drawn. Nothing here depends on the machine's clock or threads.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import greenlet

STEP_MS_MAX = 15


class Killed(BaseException):  # noqa: N818 - no error: nothing may catch it, as nothing catches SIGKILL
    """The process ends here."""


@dataclass
class ProcessClock:
    """A process's own clocks: how far off its wall clock is, and what each missed while it stood still."""

    scheduler: Scheduler
    skew_ms: int = 0
    missed_s: float = 0.0

    def now_ms(self) -> int:
        return self.scheduler.ms + self.skew_ms

    def monotonic_s(self) -> float:
        return self.scheduler.ms / 1000 - self.missed_s


@dataclass(eq=False)
class Process:
    """What dies or freezes together."""

    name: str
    clock: ProcessClock
    actors: list[Actor] = field(default_factory=list)
    dead: bool = False
    frozen: bool = False
    on_death: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False)
class Actor:
    """One run of the sink's code: an invocation, a sweep, a person's command."""

    name: str
    process: Process
    green: greenlet.greenlet
    done: Callable[[BaseException | None], None]
    label: str = "begins"
    wakes_ms: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Scheduler:
    """Who goes on next, and when. `on_park` is told wherever an actor parks, and may kill or freeze its process."""

    rng: random.Random
    ms: int = 1_767_323_045_000
    trace: list[str] = field(default_factory=list)
    steps: int = 0
    actors: list[Actor] = field(default_factory=list)
    on_park: Callable[[Actor], None] = lambda _: None
    _timers: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _running: Actor | None = None

    def say(self, text: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{self.ms - 1_767_323_045_000:>12} {text}")

    def after(self, ms: int, call: Callable[[], None]) -> None:
        """`call` happens in so many milliseconds."""
        self._count += 1
        heapq.heappush(self._timers, (self.ms + ms, self._count, call))

    def start(
        self, process: Process, name: str, run: Callable[[], object], done: Callable[[BaseException | None], None]
    ) -> Actor:
        """An actor begins; `done` hears how it ended: None, its error, or `Killed`."""
        actor = Actor(name, process, greenlet.greenlet(run), done)
        self.actors.append(actor)
        process.actors.append(actor)
        return actor

    @property
    def running(self) -> Actor | None:
        """The actor whose code runs just now; None between two."""
        return self._running

    def park(self, label: str, wait_ms: int = 0) -> None:
        """Others go on before the calling actor does. Outside an actor nothing happens."""
        actor = self._running
        if actor is None:
            return
        actor.label, actor.wakes_ms = label, self.ms + wait_ms
        parent = actor.green.parent
        assert parent is not None
        parent.switch()

    def step(self) -> bool:
        """One actor goes on to its next call, or time goes on to the next timer; False if nothing is left."""
        ready = [a for a in self.actors if not a.process.frozen and a.wakes_ms <= self.ms]
        if self._timers and (not ready or self._timers[0][0] <= self.ms):
            at_ms, _, call = heapq.heappop(self._timers)
            waking = min((a.wakes_ms for a in self.actors if not a.process.frozen), default=at_ms)
            if not ready and waking < at_ms:
                heapq.heappush(self._timers, (at_ms, _, call))
                self.ms = max(self.ms, waking)
                return True
            self.ms = max(self.ms, at_ms)
            call()
            return True
        if not ready:
            return False
        self.ms += self.rng.randint(1, STEP_MS_MAX)
        self.steps += 1
        self._resume(self.rng.choice(ready))
        return True

    def kill(self, process: Process) -> None:
        """All of the process's actors end where they are parked."""
        if process.dead:
            return
        process.dead = True
        self.say(f"{process.name} is killed")
        for actor in list(process.actors):
            self._end(actor, Killed())
            self._throw(actor)
        for call in process.on_death:
            call()

    def freeze(self, process: Process, ms: int, *, monotonic_stops: bool, wall_stops: bool) -> None:
        """The process stands still for so long; when it goes on, its clocks may have missed that."""
        if process.frozen or process.dead:
            return
        process.frozen = True
        self.say(f"{process.name} freezes for {ms} ms")

        def wake() -> None:
            process.frozen = False
            process.clock.missed_s += ms / 1000 if monotonic_stops else 0.0
            process.clock.skew_ms -= ms if wall_stops else 0
            for actor in process.actors:
                actor.notes["frozen at"] = actor.label
            self.say(f"{process.name} goes on")

        self.after(ms, wake)

    def _resume(self, actor: Actor) -> None:
        self.say(f"{actor.name} {actor.label}")
        self._running = actor
        error: BaseException | None = None
        try:
            actor.green.switch()
        except Exception as raised:
            error = raised
        finally:
            self._running = None
        if actor.green.dead:
            self._end(actor, error)
        else:
            self.on_park(actor)

    def _end(self, actor: Actor, error: BaseException | None) -> None:
        if actor in self.actors:
            self.actors.remove(actor)
            actor.process.actors.remove(actor)
            if error is not None:
                self.say(f"{actor.name} ends with {type(error).__name__}: {error}")
            actor.done(error)

    def _throw(self, actor: Actor) -> None:
        """Its stack unwinds without a further call to the outside: the sink has no `finally` that makes one."""
        if actor.green:
            try:
                actor.green.throw(Killed)
            except Killed:
                pass
