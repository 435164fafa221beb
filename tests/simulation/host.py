"""A Functions host with the Kafka extension, as far as it decides what is delivered and what is committed.

Source: docs/functions-host.md. A list survives a revoke; up to three batches exist at once; offsets are stored after an
invocation, in the order of the list, up to the first partition that is not the host's any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sinkcore.errors import SinkError
from tests.simulation.group import SESSION_MS
from tests.simulation.schedule import Task
from tests.simulation.worker import Worker
from tests.support.events import Sent

if TYPE_CHECKING:
    from tests.simulation.world import World

FUNCTION_TIMEOUT_MS = 600_000
MAX_POLL_MS = 900_000
RESTART_MS = (500, 15_000)
SWEEP_MS = (30_000, 60_000)


@dataclass
class Batch:
    """What the extension hands over at once; `tries` counts its invocations, with or without a worker."""

    records: list[Sent]
    generations: dict[int, int]
    topic_id: str
    tries: int = 0
    python_ran: bool = False


@dataclass(eq=False)
class Host:
    """One instance: its consumer, its list and channel, its executor, and its worker process."""

    world: World
    name: str
    generation: int = 0
    at: dict[int, int] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    gathered: list[Sent] = field(default_factory=list)
    channel: list[Batch] = field(default_factory=list)
    running: Batch | None = None
    worker: Worker | None = None
    alive: bool = True
    draining: bool = False
    frozen_until_ms: int = 0
    polled_ms: int = 0
    _workers: int = 0

    def start(self) -> None:
        """The host runs: it polls, commits, sweeps, and starts its worker."""
        self.world.trace.add(self.name, "starts")
        self.polled_ms = self.world.scheduler.clock.ms
        self._start_worker()
        self.world.group.join(self)
        self._again(self.world.rng.randint(0, 2_000), self._poll)
        self._again(200, self._commit)
        self._again(self.world.rng.randint(1_000, SWEEP_MS[1]), self._sweep)

    def die(self, why: str = "is killed") -> None:
        """The whole instance is gone; the group finds out when its session ends."""
        if self.alive:
            self.world.trace.add(self.name, why)
            self.alive = False
            if self.worker is not None:
                self.worker.die()
            self.world.scheduler.after(SESSION_MS, lambda: self.world.group.leave(self, "no heartbeat"))

    def stop(self, *, drain: bool) -> None:
        """The listener stops and leaves the group; what runs may end, and is stored only if `drain`."""
        if not self.alive or self.draining:
            return
        self.world.trace.add(self.name, f"stops {'with' if drain else 'without'} drain")
        self.draining = True
        if not drain:
            self.channel.clear()
            self.stored.clear()
            self.at.clear()
            self.world.group.leave(self, "stopped")
        self.gathered.clear()
        self._again(60_000, lambda: self._gone(drain))

    def freeze(self, for_ms: int, where: str = "") -> None:
        """The machine stands still."""
        now_ms = self.world.scheduler.clock.ms
        self.world.trace.add(self.name, f"is frozen for {for_ms / 1000:.0f} s")
        self.frozen_until_ms = max(self.frozen_until_ms, now_ms + for_ms)
        if self.worker is not None:
            self.worker.stand_still(for_ms, where)
        self.world.scheduler.after(SESSION_MS, lambda: self.world.group.check_session(self))

    def worker_died(self, worker: Worker) -> None:
        """Another worker process is started soon; until then invocations fail without it."""
        if worker is self.worker:
            self.worker = None
            self._again(self.world.rng.randint(*RESTART_MS), self._start_worker)

    def revoke(self) -> None:
        """No partition is the host's any more; what was stored is committed, the list stays as it is."""
        if self.stored and self.world.rng.random() < 0.8:
            self.world.group.commit(self, self.stored)
        self.at.clear()
        self.stored.clear()

    def assign(self, generation: int, partitions: list[int]) -> None:
        """Each of `partitions` is read from its committed offset on."""
        self.generation = generation
        self.at = dict.fromkeys(partitions, -1)

    @property
    def outdated(self) -> bool:
        """The group has gone on without this member."""
        return self not in self.world.group.members or self.generation != self.world.group.generation

    def _gone(self, drain: bool) -> None:
        if drain:
            self._commit_now()
        self.world.group.leave(self, "stopped")
        self.die("ends")

    def _again(self, delay_ms: int, call: object) -> None:
        """`call` after so long, or when the machine is no longer frozen; not if it is gone."""

        def due() -> None:
            if not self.alive:
                return
            thaw_ms = self.frozen_until_ms - self.world.scheduler.clock.ms
            if thaw_ms > 0:
                self.world.scheduler.after(thaw_ms + self.world.rng.randint(0, 50), due)
            else:
                call()  # type: ignore[operator]

        self.world.scheduler.after(delay_ms, due)

    def _poll(self) -> None:
        """Records come into the list, and the list into the channel; a full channel stops it all."""
        self._again(self.world.rng.randint(*self.world.config.poll_ms), self._poll)
        now_ms = self.world.scheduler.clock.ms
        if self.draining:
            return
        if len(self.channel) >= 2:
            if now_ms - self.polled_ms > MAX_POLL_MS:
                self.world.group.leave(self, "it does not poll")
            return
        self.polled_ms = now_ms
        if self not in self.world.group.members:
            self.at.clear()
            self.stored.clear()
            self.world.group.join(self)
        if not self.outdated:
            self._fetch()
        if self.gathered and (len(self.gathered) >= self.world.config.batch_max or self.world.rng.random() < 0.7):
            generations = {sent.partition: self.generation for sent in self.gathered}
            self.channel.append(Batch(self.gathered, generations, self.world.broker.topic_id))
            self.gathered = []
            self._next()

    def _fetch(self) -> None:
        broker, rng = self.world.broker, self.world.rng
        for partition in self.at:
            room = self.world.config.batch_max - len(self.gathered)
            if partition >= len(broker.logs):
                continue
            log = broker.log(partition)
            at = self.at[partition]
            if at < 0:
                at = broker.committed.get(partition, -1)
            if at < log.low or at > log.end:
                self.world.witness.reset(self, partition, at)
                at = log.low if self.world.config.reset == "earliest" else log.stable
            take = rng.randint(0, room)
            upto = log.stable
            while at < upto and take > 0:
                if at in log.records:
                    self.gathered.append(log.records[at])
                    take -= 1
                at += 1
            self.at[partition] = at

    def _next(self) -> None:
        """The next batch runs, if none does."""
        if self.running is None and self.channel and self.alive:
            self.running = self.channel.pop(0)
            self.world.witness.batch(self, self.running)
            self._try()

    def _try(self) -> None:
        batch = self.running
        if batch is None or not self.alive:
            return
        batch.tries += 1
        worker = self.worker
        if worker is None or not worker.alive:
            self._failed(batch, "no worker")
            return
        batch.python_ran = True
        task = worker.deliver(
            [self.world.broker.event_of(sent) for sent in batch.records], lambda t: self._ended(batch, t)
        )
        self.world.trace.add(task.name, f"takes {shown(batch.records)}")
        self._again(FUNCTION_TIMEOUT_MS, lambda: self._time_out(task))

    def _time_out(self, task: Task) -> None:
        if not task.done and self.worker is not None and task in self.worker.tasks:
            self.world.faults.met["function timeout"] += 1
            self.world.trace.add(self.name, f"kills its worker: {task.name} takes too long")
            self.worker.die()

    def _ended(self, batch: Batch, task: Task) -> None:
        """An invocation has ended; frozen hosts hear of it when they thaw."""
        self._again(0, lambda: self._heard(batch, task))

    def _heard(self, batch: Batch, task: Task) -> None:
        if batch is not self.running:
            return
        if task.error is None:
            self._done(batch)
            return
        why = str(task.error) if isinstance(task.error, SinkError) else type(task.error).__name__
        self._failed(batch, why)

    def _failed(self, batch: Batch, why: str) -> None:
        """It is tried again, as often as the host is set to; then it is skipped."""
        tries = self.world.config.tries
        if tries is None or batch.tries < tries:
            self._again(self.world.rng.randint(*self.world.config.backoff_ms), self._try)
            return
        self.world.trace.add(self.name, f"skips {shown(batch.records)}: {why}")
        self.world.witness.skipped(self, batch)
        self._done(batch)

    def _done(self, batch: Batch) -> None:
        """Its offsets are stored, the last in the list of each partition, and the next one runs."""
        self.running = None
        for partition, offset in {sent.partition: sent.offset for sent in batch.records}.items():
            if partition not in self.at:
                break  # Source: "Local: Erroneous state" skips the batch's other partitions.
            self.stored[partition] = offset + 1
        self._next()

    def _commit(self) -> None:
        self._again(self.world.rng.randint(200, 3_000), self._commit)
        self._commit_now()

    def _commit_now(self) -> None:
        if self.stored and self.world.group.commit(self, self.stored):
            self.stored = {}

    def _sweep(self) -> None:
        self._again(self.world.rng.randint(*SWEEP_MS), self._sweep)
        if self.worker is not None and not self.draining:
            self.worker.sweep()

    def _start_worker(self) -> None:
        if self.alive and (self.worker is None or not self.worker.alive):
            self._workers += 1
            self.worker = Worker(self.world, f"{self.name}.w{self._workers}", self)


def shown(records: list[Sent]) -> str:
    """The records as runs of offsets, partition by partition, in the order of the list."""
    runs: list[list[int]] = []
    for sent in records:
        if runs and runs[-1][0] == sent.partition and runs[-1][2] == sent.offset:
            runs[-1][2] += 1
        else:
            runs.append([sent.partition, sent.offset, sent.offset + 1])
    return " ".join(f"{p}:[{first},{end})" for p, first, end in runs)
