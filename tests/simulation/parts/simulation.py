"""One run: everything that a seed makes, and the real sinkcore in the middle of it."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any

from sinkcore.clock import Clock
from sinkcore.ledger import Ledger
from sinkcore.partitions import Seen
from sinkcore.settings import Settings
from sinkcore.sink import Sink
from sinkcore.sweep import Sweeper
from sinkcore.transaction import Operation
from tests.simulation.parts.adx import Adx
from tests.simulation.parts.hosts import Host
from tests.simulation.parts.kafka import TOPIC, Kafka
from tests.simulation.parts.passed import Passed
from tests.simulation.parts.schedule import Actor, HostClock, Killed, Schedule
from tests.simulation.parts.storage import Blobs, Storage, Table
from tests.support.app import settings_of
from tests.support.memory import MemoryBlobs, MemoryTable, SameThread

HOUR_MS = 3_600_000
MODES = ("metadata", "no metadata", "exactly_once")


@cache
def _settings(mode: str, tables: int) -> Settings:
    route: dict[str, Any] = {"metadata": "_kafka" if mode == "metadata" else None}
    odd = [route | {"table": "Odd", "when": {"field": "to", "equals": "odd"}}] if tables > 1 else []
    delivery = "exactly_once" if mode == "exactly_once" else "effectively_once"
    settings = settings_of(
        *odd, route, SINK_DELIVERY=delivery, SINK_STAGED_BLOB_TTL_DAYS="7", SINK_DOUBT_MARGIN_S="60"
    )
    return replace(settings, gap_max_records=60, pending_max=25)


@dataclass(frozen=True, slots=True)
class Guards:
    """What a test takes away, each through a seam of sinkcore (tests/simulation/test_guards.py)."""

    sees_silence: bool = True
    starts_first: bool = True
    host_deadline: bool = True
    committed_known: bool = True
    reads_end: bool = True
    read_back: bool = True
    topic_ids: bool = True
    failures_read: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of run it is; None is drawn from the seed."""

    mode: str | None = None
    tables: int | None = None
    skips: bool | None = None
    transactions: bool | None = None
    storage_faulty: float | None = None
    storage_faults: tuple[str, ...] = ("before", "slow", "lost", "resent", "late", "blob")
    adx_faulty: float | None = None
    rare: float = 1.0
    deaths: float = 1.0
    guards: Guards = Guards()
    events: int = 200
    # How much oftener than usual an event comes; where a freeze or a death meets its actor.
    weights: tuple[tuple[str, float], ...] = ()
    freeze_at: str = ""
    kill_at: str = ""
    # Only a directed test leaves random events out.
    only: tuple[str, ...] = ()


def uids_of_letters(data: bytes) -> Counter[int]:
    """The records in a blob of dead letters."""
    values = (base64.b64decode(json.loads(line)["value"] or "") for line in gzip.decompress(data).splitlines())
    return Counter(int(re.sub(rb"\D", b"", value) or 0) for value in values)


class Unseen(Seen):
    """Silence is never noticed."""

    def sweeps_at(self, group: str, position: object) -> int:
        return 0


@dataclass(eq=False)
class Simulation:
    """The world of one seed."""

    seed: int
    profile: Profile = field(default_factory=Profile)
    schedule: Schedule = field(init=False)
    kafka: Kafka = field(init=False)
    storage: Storage = field(init=False)
    table: Table = field(init=False)
    blobs: Blobs = field(init=False)
    adx: Adx = field(init=False)
    hosts: list[Host] = field(init=False)
    sweepers: list[Sweeper] = field(init=False)
    sweeping: dict[int, Actor] = field(default_factory=dict)
    sweep_clocks: list[HostClock] = field(init=False)
    passed: Passed = field(init=False)
    litter_swept_at_ms: int = 0
    recreated: bool = False
    calls_of_sweeps: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        profile = self.profile
        schedule = self.schedule = Schedule(self.seed)
        rng = schedule.rng
        self.passed = Passed(schedule.hit)
        drawn_mode, drawn_skips, drawn_transactions = rng.choice(MODES), rng.random() < 0.5, rng.random() < 0.4
        self.mode = profile.mode or drawn_mode
        self.skips = drawn_skips if profile.skips is None else profile.skips
        self.transactional = drawn_transactions if profile.transactions is None else profile.transactions
        # Of its own numbers, so that a seed's run is the same but for the tables.
        self.tables = profile.tables or (2 if Random(f"tables of {self.seed}").random() < 0.4 else 1)
        self.latest = rng.random() < 0.4
        faulty = rng.choice((0.0, 0.01, 0.05)) if profile.storage_faulty is None else profile.storage_faulty
        self.kafka = Kafka(schedule, rng.randint(1, 3))
        self.kafka.known_id = self._known_id
        self.storage = Storage(schedule, faulty, profile.storage_faults)
        self.table = Table(self.storage, MemoryTable(schedule.clock), self._committed)
        self.blobs = Blobs(self.storage, MemoryBlobs(), self._deleted, self._late_letters)
        self.adx = Adx(schedule, self.blobs.inner, self.mode == "exactly_once", faulty)
        if profile.adx_faulty is not None:
            self.adx.faulty = profile.adx_faulty
        self.hosts = [self._host(n) for n in range(2)]
        self.sweep_clocks = [self._clock() for _ in range(2)]
        self.sweepers = [self._sweeper(n) for n in range(2)]
        self.ids = Random(self.seed)

    def _known_id(self) -> str:
        row = self.ledger.topic()
        return row.topic_id if row else ""

    def _clock(self) -> HostClock:
        rng = self.schedule.rng
        return HostClock(
            self.schedule.clock, rng.randint(-HOUR_MS // 2, HOUR_MS // 2), rng.choice(("wall", "monotonic"))
        )

    def _host(self, number: int) -> Host:
        return Host(
            f"host-{number}", self.schedule, self.kafka, self._clock(), self.skips, self.latest, self._live_sink,
            self.positions, self.passed, lambda: self.storage.down,
        )  # fmt: skip

    def new_id(self, now_ms: int) -> str:
        """As sinkcore's own, from the seed's numbers."""
        return f"{now_ms:012x}{self.ids.getrandbits(80):020x}"

    def sink(self, clock: Clock) -> Sink:
        """A worker's sink, on this world's parts."""
        from tests.simulation.without import kafka_of, table_of

        guards = self.profile.guards
        return Sink(
            self.settings, table_of(self.table, guards), self.blobs, self.adx, kafka_of(self.kafka, guards),
            clock, SameThread(), self.new_id,
        )  # fmt: skip

    def _live_sink(self, clock: HostClock) -> Sink:
        sink = self.sink(clock)
        if not self.profile.guards.host_deadline:
            sink.settings = replace(sink.settings, invocation_max_s=10**9)
        return sink

    def _sweeper(self, number: int) -> Sweeper:
        from tests.simulation.without import failures_of

        seen = Seen() if self.profile.guards.sees_silence else Unseen()
        return Sweeper(
            self.sink(self.sweep_clocks[number]), self.adx, failures_of(self.adx, self.profile.guards), seen
        )

    def sweep(self, number: int) -> None:
        """The sweeper begins, unless it is at it."""
        if number in self.sweeping:
            return
        self.adx.ingest()
        sweeper = self.sweepers[number]

        def ended(error: BaseException | None) -> None:
            actor = self.sweeping.pop(number)
            self.calls_of_sweeps.append(actor.calls)
            if isinstance(error, Killed):
                self.sweepers[number] = self._sweeper(number)
            elif error is not None and type(error).__module__ != "sinkcore.errors":
                self.schedule.errors.append(f"sweep-{number}: {error!r}")

        self.sweeping[number] = self.schedule.spawn(
            f"sweep-{number}", "sweep", self.sweep_clocks[number], sweeper.sweep, ended
        )

    @property
    def ledger(self) -> Ledger:
        """The ledger as it is, read without faults."""
        return Ledger(self.table.inner, self.settings.kafka.group_of(TOPIC))

    @property
    def settings(self) -> Settings:
        return _settings(self.mode, self.tables)

    def positions(self) -> dict[int, int]:
        """The position of each partition that has one."""
        return {p: position.next_offset for p, position in self.ledger.positions().items()}

    def _committed(self, operations: Sequence[Operation]) -> None:
        actor = self.schedule.current()
        if actor is not None:
            self.passed.committed(operations, actor.kind)

    def _late_letters(self, data: bytes) -> None:
        """A freeze inside the very request: by then the segment may be gaps, whose dead letters are others."""
        self.schedule.hit("excused: frozen while dead letters were on their way")
        self.kafka.repeatable |= uids_of_letters(data).keys()

    def _deleted(self, path: str) -> None:
        self.litter_swept_at_ms = self.schedule.clock.ms
        self.schedule.hit("work: blob removed")


@contextmanager
def quiet() -> Iterator[None]:
    """What sinkcore logs is not formatted: ten thousand runs would say it a million times."""
    log = logging.getLogger("sinkcore")
    level, log.level = log.level, logging.CRITICAL + 1
    log.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        log.setLevel(level)
