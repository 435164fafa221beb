"""A Functions host: the Kafka extension's list, its channel, one invocation at a time, and what it then commits.

Source: docs/delivery.md, "What a batch looks like": list and channel survive a rebalance, offsets are stored when
an invocation has ended, and for partitions that are assigned at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sinkcore.sink import Sink
from tests.simulation.parts.kafka import TOPIC, Kafka, Seen, events_of
from tests.simulation.parts.passed import ADDED, CRAWL, EXPIRED, FIRST, OUTAGE, Passed
from tests.simulation.parts.schedule import Actor, HostClock, Killed, Schedule

BATCH_MAX = 12


@dataclass(eq=False)
class Host:
    """One instance. `skips` is `commitOnFailure: true`."""

    name: str
    schedule: Schedule
    kafka: Kafka
    clock: HostClock
    skips: bool
    latest: bool
    new_sink: Callable[[HostClock], Sink]
    positions: Callable[[], dict[int, int]]
    passed: Passed
    storage_is_down: Callable[[], bool]
    python_works: bool = True
    fetch: dict[int, int] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    listed: list[Seen] = field(default_factory=list)
    channel: list[list[Seen]] = field(default_factory=list)
    running: Actor | None = None
    batch: list[Seen] = field(default_factory=list)
    sink: Sink | None = None
    outage_skips: int = 0
    delivered: set[tuple[int, int, int]] = field(default_factory=set)

    def assign(self, partitions: list[int]) -> None:
        """The partitions are this host's, each from its committed offset; list and channel stay as they are."""
        self.commit()
        self.fetch = {p: self._start(p) for p in partitions}
        self.stored = {}

    def _start(self, p: int) -> int:
        log, at = self.kafka.logs[p], self.kafka.committed_at.get(p)
        if at is None or not log.low <= at <= log.end:
            if self.latest:
                self._skips(p, log.end)
            elif self.kafka.expired:
                self.passed.expect(p, CRAWL)
            return log.end if self.latest else log.low
        return at

    def _skips(self, p: int, end: int) -> None:
        """`autoOffsetReset: Latest` steps over what is there; inside a list that has begun nothing shows it."""
        stepped_over = [(p, o) for o in range(self.positions().get(p, 0), end)]
        if p in self.kafka.ever_committed:
            why = [EXPIRED] if self.kafka.expired else []
        else:
            why = [ADDED] if p >= self.kafka.partitions else []
        self.passed.add(stepped_over, *why)
        if any(seen.partition == p for seen in self.listed):
            self.kafka.hidden |= set(stepped_over)

    def poll(self) -> None:
        """A few records of each partition come into the list, in runs, unless it is full."""
        if len(self.listed) >= BATCH_MAX:
            return
        for p in sorted(self.fetch):
            log = self.kafka.logs[p]
            if not log.low <= self.fetch[p] <= log.end:
                if self.latest:
                    self._skips(p, log.end)
                self.fetch[p] = log.end if self.latest else log.low
            for _ in range(self.schedule.rng.randint(1, 6)):
                if self.fetch[p] >= log.stable:
                    break
                if log.visible(self.fetch[p]):
                    self.listed.append(Seen(p, self.fetch[p], log.entries[self.fetch[p]]))
                self.fetch[p] += 1

    def flush(self) -> None:
        """The list becomes a batch, if the channel has room: one runs, one waits, one is being formed."""
        if self.listed and not self.channel:
            self.channel.append(self.listed)
            self.listed = []

    def invoke(self) -> None:
        """The waiting batch is handed to Python, in a worker of its own thread."""
        if self.running is not None or not (self.batch or self.channel):
            return
        self.batch = self.batch or self.channel.pop(0)
        self._classify()
        if not self.python_works:
            self.schedule.say(self.name, "python does not start")
            self.ended(Killed())
            return
        if self.sink is None:
            self.sink = self.new_sink(self.clock)
        sink, events = self.sink, events_of(self.batch)
        self.running = self.schedule.spawn(
            self.name, "deliver", self.clock, lambda: sink.deliver(TOPIC, events), self.ended
        )
        spans = [(s.partition, s.offset) for s in self.batch]
        self.schedule.say(self.name, f"  batch {spans}")

    def ended(self, error: BaseException | None) -> None:
        """The invocation has ended: the host stores offsets if it succeeded, or if it skips, else it repeats."""
        self.running = None
        if isinstance(error, Killed):
            self.sink = None
        elif error is not None and type(error).__module__ != "sinkcore.errors":
            self.schedule.errors.append(f"{self.name}: {error!r}")
        if error is not None and not self.skips:
            return
        if error is not None:
            self.schedule.hit("fault: batch skipped")
            positions = self.positions()
            first = [] if any(positions.values()) else [FIRST]
            self.outage_skips = self.outage_skips + 1 if self.storage_is_down() else 0
            outage = [OUTAGE] if self.outage_skips > 1 else []
            self.passed.add([(s.partition, s.offset) for s in self.batch], *first, *outage)
        last: dict[int, int] = {}
        for seen in self.batch:
            last[seen.partition] = seen.offset + 1
        self.batch = []
        for p, at in last.items():
            if p in self.fetch:
                self.stored[p] = at

    def commit(self) -> None:
        """What is stored is committed, also where it moves the committed offset back."""
        for p, at in sorted(self.stored.items()):
            if at < self.kafka.committed_at.get(p, 0):
                self.schedule.hit("fault: committed moved back")
                self.kafka.hidden |= {(p, o) for o in range(at, self.kafka.committed_at[p])}
                self.passed.moved_back(p, at, self.kafka.committed_at[p])
            self.kafka.committed_at[p] = at
            self.kafka.ever_committed.add(p)
        self.stored = {}

    def die(self) -> None:
        """The whole host is gone, with what it held; another one starts in its place."""
        if self.running:
            self.schedule.kill(self.running)
        self.listed, self.channel, self.batch, self.fetch, self.stored = [], [], [], {}, {}
        self.sink = None

    def holds(self) -> list[Seen]:
        """All records that it has in hand."""
        return [*self.listed, *self.batch, *(seen for batch in self.channel for seen in batch)]

    def _classify(self) -> None:
        positions = self.positions()
        offsets: dict[int, list[int]] = {}
        for seen in self.batch:
            offsets.setdefault(seen.partition, []).append(seen.offset)
        for p, listed in offsets.items():
            at = positions.get(p)
            if listed != sorted(listed):
                self.schedule.hit("interleaving 5")
            listed = sorted(set(listed))
            inner = set(range(listed[0], listed[-1])) - set(listed)
            if any(self.kafka.logs[p].visible(o) for o in inner if p < len(self.kafka.logs)):
                self.schedule.hit("interleaving 7")
            if at is not None and listed[0] < at <= listed[-1]:
                self.schedule.hit("interleaving 6")
            self.passed.delivered(p, listed[0], listed[-1], at or 0)
            here = (p, listed[0], listed[-1])
            if any(q == p and a <= listed[-1] and listed[0] <= b for q, a, b in self.delivered - {here}):
                self.schedule.hit("interleaving 8")
            self.delivered.add(here)
