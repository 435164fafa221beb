"""One run: everything that a seed decides, from the first record to the last check."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sinkcore.ledger import Ledger
from sinkcore.start import start
from tests.simulation.adx import Adx
from tests.simulation.config import Config, config_of
from tests.simulation.disturb import Disturbances
from tests.simulation.faults import Faults
from tests.simulation.group import Group
from tests.simulation.host import Host
from tests.simulation.invariants import check
from tests.simulation.kafka import GROUP, TOPIC, Broker
from tests.simulation.outside import Line, SimKafka
from tests.simulation.schedule import Scheduler, Trace
from tests.simulation.store import Store
from tests.simulation.witness import Witness
from tests.simulation.worker import Worker
from tests.support.memory import MemoryTable

# So many sweeps after the last fault must be enough to end whatever was begun.
QUIET_SWEEPS_MAX = 60


@dataclass(frozen=True)
class Parts:
    """What tests of the simulation itself put in the place of a worker's parts."""

    kafka: Callable[[Line], SimKafka] = SimKafka


@dataclass
class Outcome:
    """How a run ended."""

    seed: int
    config: Config
    wrong: list[str]
    trace: list[str]
    faults: dict[str, int]
    interleavings: dict[int, int]
    events: int = field(init=False)

    def __post_init__(self) -> None:
        self.events = len(self.trace)


class World:
    """Everything outside of the code under test."""

    def __init__(self, seed: int, config: Config | None = None, parts: Parts | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.config = config_of(self.rng) if config is None else config
        self.parts = parts or Parts()
        self.settings = self.config.settings
        self.scheduler = Scheduler()
        self.trace = Trace(self.scheduler)
        self.faults = Faults(self.rng, self.config.fault_rate)
        self.witness = Witness(self)
        self.table = MemoryTable(self.scheduler.clock)
        self.store = Store(self.scheduler.clock)
        self.adx = Adx(self, self.config.batching_s)
        self.broker = Broker(self.config.partitions, self.scheduler.clock.now_ms)
        self.group = Group(self)
        self.hosts: list[Host] = []
        self.begins: dict[int, int] = {}
        self.page_rows = self.config.page_rows
        self.was_cut = False
        self.quiet = False
        self._ids = 0
        self._hosts = 0
        first, last = self.config.latency_ms
        self._latencies = [int(first * (last / first) ** (n / 63)) for n in range(64)]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.table, GROUP)

    def latency(self) -> int:
        """Milliseconds that a request or a reply takes."""
        return self._latencies[int(self.rng.random() * 64)]

    def freeze_ms(self) -> int:
        """For how long a process stands still: mostly for seconds, at times beyond every deadline."""
        return int(1_000 * 1_500 ** self.rng.random())

    def new_id(self, now_ms: int) -> str:
        """As sinkcore makes them, with a number instead of chance."""
        self._ids += 1
        return f"{now_ms:012x}{self._ids:020x}"

    def new_host(self) -> Host:
        """One more instance has started."""
        self._hosts += 1
        host = Host(self, f"h{self._hosts}")
        self.hosts.append(host)
        host.start()
        return host

    def run(self) -> Outcome:
        """The run from its first to its last event, and what is wrong afterwards."""
        with _heard(self):
            try:
                self._run()
                wrong = check(self)
            finally:
                self.scheduler.end()
        return Outcome(
            self.seed, self.config, wrong, self.trace.lines, dict(self.faults.met), dict(self.witness.seen)
        )

    def _run(self) -> None:
        disturbances = Disturbances(self)
        self.trace.add("world", f"seed {self.seed}, {self.config}")
        disturbances.write_before()
        if self.config.deployed:
            self._deploy()
        for _ in range(self.config.hosts):
            self.new_host()
        disturbances.begin()
        self.scheduler.sleep(self.config.lasts_ms)
        disturbances.end()
        self.faults.end()
        self.trace.add("world", "faults have ended")
        self._wait_for_the_frozen()
        self.quiet = True
        if self.rng.random() < 0.5:
            for host in self.hosts:
                host.die()
        self._settle()

    def _deploy(self) -> None:
        """The topic has its rows before any host runs, as the deployment's step `start` leaves it."""
        line = Line(Worker(self, "deploy"))
        faults, self.faults.on = self.faults.on, False
        start(self.ledger, self.parts.kafka(line), TOPIC, self.settings.routes_of(TOPIC)[0].start)
        line.worker.sweep()
        while line.worker.sweeping:
            self.scheduler.sleep(1_000)
        self.faults.on = faults

    def _wait_for_the_frozen(self) -> None:
        processes = [p for host in self.hosts for p in (host, host.worker) if p is not None]
        thaw_ms = max([p.frozen_until_ms for p in processes], default=0)
        self.scheduler.sleep(max(0, thaw_ms - self.scheduler.clock.ms) + 1_000)

    def _settle(self) -> None:
        """Sweeps, one after the other, until nothing is left to do."""
        worker = Worker(self, "last")
        for number in range(QUIET_SWEEPS_MAX):
            self.scheduler.sleep(30_000 if number < 5 else 180_000)
            worker.sweep()
            while worker.sweeping:
                self.scheduler.sleep(1_000)
            if number > 2 and self._is_settled():
                return
            self._release_held_gaps()
        self.witness.wrong(f"after {QUIET_SWEEPS_MAX} sweeps without a fault something is left to do")

    def _release_held_gaps(self) -> None:
        """A person decides about gaps above the limit: they are to be read."""
        from dataclasses import replace

        from sinkcore.drain import RELEASED

        for gap in self.ledger.gaps():
            if gap.held:
                self.trace.add("operator", f"releases {gap.key}")
                self.ledger.move([replace(gap, held=False, why=RELEASED)])

    def _is_settled(self) -> bool:
        positions = self.ledger.positions()
        return (
            not self.adx.waiting
            and not any(True for _ in self.ledger.open_segments())
            and not self.ledger.gaps()
            and all(
                log.stable == 0 or (p in positions and positions[p].next_offset >= log.stable)
                for p, log in enumerate(self.broker.logs)
            )
        )


def run(seed: int, config: Config | None = None, parts: Parts | None = None) -> Outcome:
    """One run of the simulation."""
    return World(seed, config, parts).run()


@contextmanager
def _heard(world: World) -> Iterator[None]:
    """What sinkcore logs is heard by the witness, and by nobody else."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            facts: dict[str, Any] = record.__dict__["facts"]
            world.witness.says(world.scheduler.current, record.__dict__["event"], facts, record.getMessage())

    log = logging.getLogger("sinkcore")
    before, ear = (log.level, log.propagate), Ear()
    log.setLevel(logging.WARNING)
    log.propagate = False
    log.addHandler(ear)
    try:
        yield
    finally:
        log.removeHandler(ear)
        log.level, log.propagate = before
