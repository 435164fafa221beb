"""A worker process: the real sink and the real sweeper, on clocks of its own, until it dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import azure.functions as func

from sinkcore.sink import Sink
from sinkcore.sweep import Sweeper
from tests.simulation.kafka import TOPIC
from tests.simulation.outside import Line, OneAfterTheOther, SimBlobs, SimQueue, SimRows, SimTable
from tests.simulation.schedule import Task
from tests.support.memory import ManualClock

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World


@dataclass
class ProcessClock:
    """A machine's two clocks: each as far from the true time as its own freezes and corrections have made it."""

    truth: ManualClock
    wall_ms: int = 0
    monotonic_ms: int = 0

    def now_ms(self) -> int:
        return self.truth.ms + self.wall_ms

    def monotonic_s(self) -> float:
        return (self.truth.ms + self.monotonic_ms) / 1000


class Worker:
    """One process of the Functions worker. Frozen, its tasks stand still; dead, they are gone."""

    def __init__(self, world: World, name: str, host: Host | None = None) -> None:
        self.world = world
        self.name = name
        self.host = host
        self.alive = True
        self.frozen_until_ms = 0
        self.clock = ProcessClock(
            world.scheduler.clock, world.rng.randint(-2_000, 2_000), world.rng.randint(-(10**9), 10**9)
        )
        self.tasks: dict[Task, None] = {}
        self.sweeping = False
        self._runs = 0
        line = Line(self)
        self.sink = self._sink(line)
        self.sweeper = Sweeper(self._sink(line), SimRows(line))

    def _sink(self, line: Line) -> Sink:
        parts = self.world.parts
        return Sink(
            settings=self.world.settings,
            table=SimTable(line),
            blobs=SimBlobs(line),
            queue=SimQueue(line),
            kafka=parts.kafka(line),
            clock=self.clock,
            executor=OneAfterTheOther(),
            new_id=self.world.new_id,
        )

    def deliver(self, events: list[func.KafkaEvent], on_end: Callable[[Task], None]) -> Task:
        """An invocation of the topic's function has begun."""
        return self._spawn("deliver", lambda: self.sink.deliver(TOPIC, events), on_end)

    def sweep(self) -> None:
        """An invocation of the sweeper has begun, unless the last one still runs."""
        if self.alive and not self.sweeping:
            self.sweeping = True
            self._spawn("sweep", self.sweeper.sweep, self._swept)

    def die(self) -> None:
        """The process is gone, with all that it was doing."""
        if not self.alive:
            return
        self.alive = False
        for task in list(self.tasks):
            self.world.scheduler.kill(task)
        if self.host is not None:
            self.host.worker_died(self)

    def freeze(self, for_ms: int, where: str = "") -> None:
        """The worker stands still, or all of its machine does."""
        if self.host is not None and self.world.rng.random() < 0.6:
            self.host.freeze(for_ms, where)
        else:
            self.stand_still(for_ms, where)

    def stand_still(self, for_ms: int, where: str = "") -> None:
        """The process stands still, and perhaps one of its clocks; a wall clock may be put right afterwards."""
        world = self.world
        world.trace.add(self.name, f"is frozen for {for_ms / 1000:.0f} s {where}".rstrip())
        self.frozen_until_ms = max(self.frozen_until_ms, world.scheduler.clock.ms + for_ms)
        stops = world.rng.choice(["neither", "wall", "monotonic"])
        world.faults.met[f"frozen, {stops} clock stands still"] += 1
        for task in self.tasks:
            world.witness.frozen(task, for_ms)
        if stops == "wall":
            self.clock.wall_ms -= for_ms
            if world.rng.random() < 0.5:
                world.scheduler.after(for_ms + world.rng.randint(0, 30_000), lambda: self.jump(for_ms))
        elif stops == "monotonic":
            self.clock.monotonic_ms -= for_ms

    def jump(self, by_ms: int) -> None:
        """The wall clock is put right, or wrong."""
        self.world.trace.add(self.name, f"wall clock jumps by {by_ms / 1000:.0f} s")
        self.clock.wall_ms += by_ms
        for task in self.tasks:
            self.world.witness.of(task).mars += 2

    def _spawn(self, what: str, run: Callable[[], object], on_end: Callable[[Task], None]) -> Task:
        self._runs += 1
        task = self.world.scheduler.spawn(
            f"{self.name}.{what[0]}{self._runs}", self, run, lambda t: self._ended(t, on_end)
        )
        self.tasks[task] = None
        return task

    def _ended(self, task: Task, on_end: Callable[[Task], None]) -> None:
        self.tasks.pop(task, None)
        self.world.witness.ended(task)
        on_end(task)

    def _swept(self, task: Task) -> None:
        self.sweeping = False
