"""A Functions host with the Kafka extension's semantics, and its worker, in which the sink runs.

What is emulated, and where it was read: docs/functions-host.md and docs/delivery.md, "What a batch looks like".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sinkcore.errors import SinkError
from tests.simulation.group import Group
from tests.simulation.kafka import SimKafka
from tests.simulation.scheduler import Actor, Process, ProcessClock, Scheduler
from tests.support.events import Sent, events_of

if TYPE_CHECKING:
    from sinkcore.sink import Sink
    from sinkcore.sweep import Sweeper

TICK_MS = (200, 1_500)
BATCH_RECORDS_MAX = 8
SESSION_TIMEOUT_MS = 45_000
MAX_POLL_MS = 900_000
FUNCTION_TIMEOUT_MS = 600_000
RETRY_MS = (2_000, 60_000)
WORKER_START_MS = 3_000
HOST_START_MS = 20_000


@dataclass
class Batch:
    """A list on its way through the host; `over_rebalance`: the list was begun before the last one."""

    records: list[Sent]
    over_rebalance: bool = False
    tries: int = 0
    started_ms: int = 0

    def span(self, partition: int) -> list[int]:
        return [record.offset for record in self.records if record.partition == partition]

    @property
    def partitions(self) -> list[int]:
        return list(dict.fromkeys(record.partition for record in self.records))


@dataclass(eq=False)
class Host:
    """One instance of the app. `skips`: its `commitOnFailure` is true, and it has no retry policy."""

    name: str
    group: Group
    kafka: SimKafka
    scheduler: Scheduler
    new_worker: Callable[[Process], tuple[Sink, Sweeper]]
    watch: Any
    skips: bool
    latest: bool
    skew_ms: int = 0
    disabled: bool = False
    alive: bool = False
    worker: Process | None = None
    sink: Sink | None = None
    sweeper: Sweeper | None = None
    assigned: dict[int, int] = field(default_factory=dict)
    current: Batch = field(default_factory=lambda: Batch([]))
    channel: deque[Batch] = field(default_factory=deque)
    executing: Batch | None = None
    stored: dict[int, int] = field(default_factory=dict)
    ran: bool = False
    _polled_ms: int = 0
    _retry_at_ms: int = 0
    _invocation: Actor | None = None
    _sweep: Actor | None = None
    _worker_starts_ms: int = 0
    _life: int = 0

    def start(self) -> None:
        """The host process runs, and joins its group unless its triggers are disabled."""
        self.alive, self._life = True, self._life + 1
        self._polled_ms = self.scheduler.ms
        self._start_worker()
        if not self.disabled:
            self.group.join(self)
        self._next_tick(self._life)

    def stop(self) -> None:
        """SIGKILL: lists are lost, and the group misses the member only after the session time-out."""
        if not self.alive:
            return
        self.alive = False
        self.scheduler.say(f"{self.name} is killed")
        self.current, self.executing, self._invocation = Batch([]), None, None
        self.channel.clear()
        self.stored.clear()
        if self.worker:
            self.scheduler.kill(self.worker)
        self.worker = None
        self.assigned.clear()
        life = self._life
        self.scheduler.after(SESSION_TIMEOUT_MS, lambda: self._missed(life))

    def _missed(self, life: int) -> None:
        if life == self._life and not self.alive:
            self.group.leave(self)

    def revive(self) -> None:
        """A new process of the same name; the group sees another member come and the old one go."""
        if not self.alive:
            self.group.leave(self)
            self.start()

    # The worker.

    def _start_worker(self) -> None:
        self.worker = Process(f"{self.name} worker", ProcessClock(self.scheduler, self.skew_ms))
        self.sink, self.sweeper = self.new_worker(self.worker)

    def kill_worker(self) -> None:
        """The worker dies; what it was at fails, and the host starts another."""
        if self.worker and not self.worker.dead:
            self.scheduler.kill(self.worker)
            self._worker_starts_ms = self.scheduler.ms + WORKER_START_MS

    @property
    def is_frozen(self) -> bool:
        return self.worker is not None and self.worker.frozen

    def _next_tick(self, life: int) -> None:
        def tick() -> None:
            if self.alive and life == self._life:
                self._tick()
                self._next_tick(life)

        self.scheduler.after(self.scheduler.rng.randint(*TICK_MS), tick)

    def _tick(self) -> None:
        if self.worker is not None and self.worker.dead and self.scheduler.ms >= self._worker_starts_ms:
            self._start_worker()
        if self.is_frozen:
            # The instance stands still as a whole: after the session time-out the group goes on without it.
            if self.scheduler.ms - self._polled_ms > SESSION_TIMEOUT_MS and self in self.group.members:
                self.group.members.remove(self)
                self.group.rebalance(f"{self.name} is missed")
            return
        if not self.disabled and self not in self.group.members:
            self.scheduler.say(f"{self.name} finds that it was ejected")
            self.assigned.clear()
            self.stored.clear()
            self.group.join(self)
        self._poll()
        self._dispatch()
        self._commit()

    # Records come in.

    def revoke(self) -> None:
        """See Member: what is stored is committed; lists and batches outlive it."""
        self._commit()
        self.assigned.clear()
        self.current.over_rebalance = bool(self.current.records)
        for batch in self.channel:
            batch.over_rebalance = True

    def assign(self, partitions: list[int]) -> None:
        """See Member: each begins at the committed offset, or where `autoOffsetReset` says."""
        for partition in partitions:
            log, at = self.kafka.logs[partition], self.group.committed.get(partition)
            if at is None:
                at = log.stable if self.latest else log.low
                self.watch.reset(partition, at, log)
            self.assigned[partition] = at

    def _poll(self) -> None:
        if self.disabled:
            return
        if len(self.channel) > 1 or self._is_retrying():
            if self.scheduler.ms - self._polled_ms > MAX_POLL_MS and self in self.group.members:
                self.watch.count("a host that is ejected for not polling")
                self.group.leave(self)
            return
        self._polled_ms = self.scheduler.ms
        order = sorted(self.assigned)
        self.scheduler.rng.shuffle(order)
        for partition in order:
            self._fetch(partition)
        if self.current.records and self.scheduler.rng.random() < 0.5:
            self._flush(len(self.current.records))

    def _is_retrying(self) -> bool:
        return self.executing is not None and self.executing.tries > 0

    def _fetch(self, partition: int) -> None:
        if partition >= len(self.kafka.logs):
            return
        log = self.kafka.logs[partition]
        at = self.assigned[partition]
        if at > log.end or at < log.low:
            at = log.stable if self.latest else log.low
        for _ in range(self.scheduler.rng.randint(0, BATCH_RECORDS_MAX)):
            while at < log.stable and at not in log.records:
                at += 1
            if at >= log.stable:
                break
            self.current.records.append(log.records[at])
            at += 1
            if len(self.current.records) >= BATCH_RECORDS_MAX:
                self._flush(BATCH_RECORDS_MAX)
        self.assigned[partition] = at

    def _flush(self, count: int) -> None:
        self.watch.flushed(self.current)
        self.channel.append(Batch(self.current.records[:count], self.current.over_rebalance))
        self.current = Batch(self.current.records[count:])

    # Batches go out.

    def _dispatch(self) -> None:
        if self.executing is None and self.channel:
            self.executing = self.channel.popleft()
            self._retry_at_ms = 0
        batch = self.executing
        if batch is None:
            return
        if self._invocation is not None:
            if self.scheduler.ms - batch.started_ms > FUNCTION_TIMEOUT_MS:
                self.watch.count("a function that times out")
                self.kill_worker()
            return
        if self.scheduler.ms < self._retry_at_ms:
            return
        if self.worker is None or self.worker.dead:
            self._ended(batch, RuntimeError("Did not find any initialized language workers"))
            return
        self.watch.begins(self, batch)
        sink, topic = self.sink, self.kafka.name
        assert sink is not None
        events = events_of(batch.records, topic)
        batch.started_ms, self.ran = self.scheduler.ms, True
        actor = self.scheduler.start(
            self.worker, f"{self.name} invocation", lambda: sink.deliver(topic, events), lambda e: self._ended(batch, e)
        )
        actor.notes |= {"batch": batch, "host": self}
        self._invocation = actor

    def _ended(self, batch: Batch, error: BaseException | None) -> None:
        """The extension stores what the batch ends with, or the retry policy hands it over again."""
        if not self.alive or self.executing is not batch:
            return
        if self._invocation is not None:
            self.watch.ended(self._invocation, error)
        self._invocation = None
        if error is not None and not isinstance(error, SinkError | RuntimeError) and type(error).__name__ != "Killed":
            raise error
        if error is None or self.skips:
            if error is not None:
                self.watch.skipped(self, batch)
            self.executing = None
            self._store(batch)
            return
        batch.tries += 1
        low, high = RETRY_MS
        self._retry_at_ms = self.scheduler.ms + min(low * 2 ** min(batch.tries - 1, 5), high)

    def _store(self, batch: Batch) -> None:
        for partition in batch.partitions:
            if partition not in self.assigned:
                self.watch.count("a store that fails after a rebalance")
                return
            self.stored[partition] = batch.span(partition)[-1] + 1

    def _commit(self) -> None:
        """What is stored is committed, by a member of the group; a late store can move it back."""
        if self not in self.group.members:
            self.stored.clear()
            return
        for partition, offset in self.stored.items():
            before = self.group.committed.get(partition)
            if before is not None and offset < before:
                self.watch.moved_back(partition, offset, before)
            self.group.committed[partition] = offset
        self.stored.clear()

    # The timer.

    def sweep(self) -> bool:
        """The sweeper runs in this host's worker, unless one does already; whether it does now."""
        if not self.alive or self.worker is None or self.worker.dead or self.worker.frozen or self._sweep is not None:
            return False
        sweeper = self.sweeper
        assert sweeper is not None

        def done(error: BaseException | None) -> None:
            self._sweep = None
            self.watch.swept(self, error)

        self._sweep = self.scheduler.start(self.worker, f"{self.name} sweeper", sweeper.sweep, done)
        self._sweep.notes["host"] = self
        return True

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not (self.current.records or self.channel or self.executing or self._sweep)
