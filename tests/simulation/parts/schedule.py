"""Actors that run real code, one step at a time: which one goes on, and when, is drawn from the seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from greenlet import getcurrent, greenlet

from tests.support.memory import ManualClock

DAY_S = 24 * 3600


class Killed(BaseException):
    """The process ends at this seam; nothing in sinkcore catches it."""


@dataclass(eq=False)
class Actor:
    """One call of `deliver()` or `sweep()`; `at` is the effect before which it waits, `calls` how many it had."""

    name: str
    kind: str
    run: greenlet
    clock: HostClock
    ended: Callable[[BaseException | None], None]
    at: str = "begin"
    calls: int = 0
    started_ms: int = 0
    frozen_until_ms: int = 0
    position_when_frozen: object = None


@dataclass(eq=False)
class HostClock:
    """One machine's clocks: skewed, and in a freeze one of the two stands still."""

    true: ManualClock
    skew_ms: int = 0
    still: str = "monotonic"
    behind_ms: int = 0

    def now_ms(self) -> int:
        return self.true.ms + self.skew_ms - (self.behind_ms if self.still == "wall" else 0)

    def monotonic_s(self) -> float:
        return (self.true.ms - (self.behind_ms if self.still == "monotonic" else 0)) / 1000

    def rest(self, seconds: float) -> None:
        """For everybody: who rests has nothing to do meanwhile that others could come between."""
        self.true.advance(seconds)


@dataclass(eq=False)
class Schedule:
    """The seed's random numbers, true time, the actors, and what has happened."""

    seed: int
    rng: Random = field(init=False)
    clock: ManualClock = field(default_factory=ManualClock)
    actors: list[Actor] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    events: int = 0
    faults: bool = True

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)

    def say(self, who: str, what: str) -> None:
        """The event is in the trace: number, seconds since the start, who, what."""
        self.events += 1
        self.trace.append(f"{self.events:5} {(self.clock.ms - 1_767_323_045_000) / 1000:13.3f} {who:9} {what}")

    def hit(self, name: str) -> None:
        """A fault or an interleaving has happened once more."""
        self.counts[name] += 1

    def chance(self, probability: float) -> bool:
        """Whether it happens; never once the faults have stopped."""
        return self.faults and self.rng.random() < probability

    def spawn(
        self, name: str, kind: str, clock: HostClock, call: Callable[[], object],
        ended: Callable[[BaseException | None], None],
    ) -> Actor:  # fmt: skip
        """The call runs as an actor, which waits at each seam until it is stepped."""
        actor = Actor(name, kind, greenlet(call, getcurrent()), clock, ended, started_ms=self.clock.ms)
        self.actors.append(actor)
        self.say(name, f"{kind} begins")
        return actor

    def current(self) -> Actor | None:
        """The actor that runs now; None outside of any."""
        me = getcurrent()
        return next((actor for actor in self.actors if actor.run is me), None)

    def seam(self, what: str) -> Actor | None:
        """Any step of any other actor may happen here, or this one's end. Then the effect follows."""
        actor = self.current()
        if actor is None:
            return None
        actor.at = what
        actor.run.parent.switch()
        actor.calls += 1
        self.clock.ms += self.rng.randint(1, 20)
        self.say(actor.name, what)
        return actor

    def step(self, actor: Actor) -> None:
        """The actor does the effect before which it waits, and goes on to the next one or to its end."""
        self._go(actor, lambda: actor.run.switch())

    def kill(self, actor: Actor) -> None:
        """The actor ends where it waits."""
        self.say(actor.name, f"KILLED before: {actor.at}")
        self.hit("fault: killed")
        self._go(actor, lambda: actor.run.throw(Killed()))

    def freeze(self, actor: Actor, seconds: float) -> None:
        """The actor's machine stands still for that long, and one of its clocks with it."""
        actor.frozen_until_ms = self.clock.ms + int(seconds * 1000)
        self.say(actor.name, f"FROZEN for {seconds:.0f} s before: {actor.at}")
        self.hit("fault: frozen")
        actor.clock.behind_ms += int(seconds * 1000)

    def is_frozen(self, actor: Actor) -> bool:
        return actor.frozen_until_ms > self.clock.ms

    def _go(self, actor: Actor, resume: Callable[[], object]) -> None:
        error: BaseException | None = None
        try:
            resume()
        except BaseException as raised:  # noqa: BLE001 - whatever ended it is for its host to see
            error = raised
        if not actor.run.dead:
            return
        self.actors.remove(actor)
        if actor.clock.still == "wall":
            actor.clock.behind_ms = 0  # The machine's wall clock has been set right.
        self.say(actor.name, f"{actor.kind} ends: {type(error).__name__ if error else 'done'}")
        actor.ended(error)
