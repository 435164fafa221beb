"""One run: hosts, Kafka, storage and ADX under a theme's faults, then calm, until nothing is left to do."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace

from sinkcore import operate
from sinkcore.ledger import Ledger
from sinkcore.segment import Segment
from sinkcore.settings import Settings, read_settings
from sinkcore.sink import Sink, Topic
from sinkcore.sweep import Sweeper
from tests.simulation.adx import AdxFaults, SimAdx
from tests.simulation.group import Group
from tests.simulation.host import Host
from tests.simulation.kafka import SimKafka
from tests.simulation.scheduler import Actor, Process, ProcessClock, Scheduler
from tests.simulation.storage import Faults, Service, SimBlobs, SimTable
from tests.simulation.themes import THEMES, Theme
from tests.simulation.watch import Watch
from tests.support.memory import MemoryBlobs, MemoryFailures, MemoryTable, SameThread

TOPIC = "orders"
STEPS_MIN = 220
RECORDS_MAX = 160
SWEEP_MS, SWEEP_MS_MAX = 30_000, 6 * 3_600_000
SETTLE_SWEEPS_MAX = 300
DAY_MS = 86_400_000
MODES = (("effectively_once", True), ("effectively_once", False), ("exactly_once", True), ("effectively_once", True))


class EndlessError(AssertionError):
    """Work is left, and nobody gets it done."""


@functools.cache
def settings_of(delivery: str, metadata: bool, more: tuple[tuple[str, str], ...]) -> Settings:
    """The app's settings for a mode of delivery."""
    route = {"topic": TOPIC, "db": "db", "table": "Orders"} | ({"metadata": "_kafka"} if metadata else {})
    return read_settings(
        {
            "SINK_TOPICS_MAPPING": json.dumps([route]),
            "KAFKA_BROKERS": "127.0.0.1:9092",
            "KUSTO_INGESTION_URL": "http://127.0.0.1:41004",
            "KUSTO_QUERY_URL": "http://127.0.0.1:41003",
            "KUSTO_AUTHENTICATION": "none",
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "SINK_DELIVERY": delivery,
            **dict(more),
        }
    )


class ServiceClock:
    """The services' own clock: the true time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def ms(self) -> int:
        return self._scheduler.ms


class World:
    """Everything of one seed. `guards` replace parts of the real code, for the tests that take a guard away."""

    def __init__(self, seed: int, theme: Theme | None = None, mode: tuple[str, bool] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.theme = theme or THEMES[seed % len(THEMES)]
        self.delivery, self.metadata = mode or MODES[(seed // len(THEMES)) % len(MODES)]
        more = tuple(sorted(self.theme.settings.items()))
        self.settings = settings_of(self.delivery, self.metadata, more)
        self.scheduler = Scheduler(self.rng)
        self.scheduler.on_park = self._perhaps_fail
        self.watch = Watch(self)
        clock = ServiceClock(self.scheduler)
        self.memory_table = MemoryTable(clock)  # type: ignore[arg-type]
        self.memory_blobs = MemoryBlobs()
        theme = self.theme
        self.faults = Faults(theme.refused, theme.lost, theme.delayed, theme.slow)
        service = Service(self.scheduler, self.faults, self.watch.count)
        self.table = SimTable(self.memory_table, service, self.watch.transacted)
        self.blobs = SimBlobs(self.memory_blobs, service)
        self.adx = SimAdx(
            self.scheduler,
            self.memory_blobs,
            MemoryFailures(clock),  # type: ignore[arg-type]
            AdxFaults(
                theme.queue_refused,
                theme.queue_lost,
                theme.adx_transient,
                theme.adx_bad_data,
                theme.adx_unknown,
                theme.adx_again,
            ),
            self.delivery == "exactly_once",
            self.watch.count,
        )
        self.kafka = SimKafka(TOPIC, self.scheduler, self.watch.count)
        self.kafka.refused, self.kafka.silent = theme.kafka_refused, theme.kafka_silent
        self.kafka.inner.create(TOPIC, theme.partitions)
        self.partitions_at_start = theme.partitions
        group_name = self.settings.kafka.group_of(TOPIC)
        self.group = Group(group_name, self.kafka, self.scheduler)
        self.ledger = Ledger(self.memory_table, group_name)
        self.hosts = [self._host(number) for number in range(theme.hosts)]
        # Where a theme has one host alone, somebody else's timer still runs.
        if theme.hosts == 1:
            self.hosts.append(self._host(1))
            self.hosts[1].disabled = True
        self.calm = False
        self.away_until_ms = 0
        self.settle_sweeps = 0
        self._sweep_ms = SWEEP_MS
        self._seen_at_sweep = (0, 0)
        self._ids = itertools.count()

    def _host(self, number: int) -> Host:
        skew = self.theme.skew_ms * (1, -1, 0)[number % 3] // 2
        return Host(
            f"host-{number}",
            self.group,
            self.kafka,
            self.scheduler,
            self.new_worker,
            self.watch,
            self.theme.skips,
            self.theme.latest,
            skew,
        )

    def new_sink(self, clock: ProcessClock) -> Sink:
        """A worker's sink, on the simulated outside."""
        return Sink(
            settings=self.settings,
            table=self.table,
            blobs=self.blobs,
            queue=self.adx,
            kafka=self.kafka,
            clock=clock,
            executor=SameThread(),
            new_id=self._new_id,
        )

    def new_worker(self, process: Process) -> tuple[Sink, Sweeper]:
        """What a worker process keeps (see sinkcore.clients.App)."""
        sink = self.new_sink(process.clock)
        return sink, Sweeper(replace(sink, _topics={}), self.adx, self.adx)

    def _new_id(self, now_ms: int) -> str:
        return f"{now_ms:012x}{self.rng.getrandbits(80):020x}"

    # What is known from outside.

    def position(self, partition: int) -> int | None:
        """The ledger's position of the partition, None before it has one."""
        key = self.settings.kafka.group_of(TOPIC)
        entity = self.memory_table.partitions.get(key, {}).get(f"p-{partition:010}")
        return None if entity is None else int(entity.values["next_offset"])

    def segments(self) -> list[Segment]:
        """Every segment that the ledger has."""
        return self.ledger.segments()

    # The run.

    def run(self) -> World:
        """Faults for a while, then calm; afterwards nothing is left to do."""
        if self.theme.start_first:
            operate.start_topic(self._plain_sink(), TOPIC)
        for host in self.hosts:
            host.start()
        self._produce_on()
        self._happen_on()
        self._sweep_on()
        while self.scheduler.steps < STEPS_MIN or len(self.kafka.records) < RECORDS_MAX // 3:
            self.scheduler.step()
        self._settle()
        return self

    def _plain_sink(self) -> Sink:
        clock = ProcessClock(self.scheduler)
        return replace(self.new_sink(clock), table=self.memory_table, blobs=self.memory_blobs, kafka=self.kafka.inner)

    def _produce_on(self) -> None:
        if self.calm:
            return
        if len(self.kafka.records) < RECORDS_MAX:
            partition = self.rng.randrange(len(self.kafka.logs))
            for _ in range(self.rng.randint(1, 5)):
                draw = self.rng.random()
                kind = "bad" if draw < self.theme.bad else "row"
                kind = "tombstone" if draw > 1 - self.theme.tombstones else kind
                self.kafka.produce(partition, kind)
        self._note_topic()
        self.scheduler.after(max(self.rng.randint(100, 8_000), self.away_until_ms - self.scheduler.ms), self._produce_on)

    def _note_topic(self) -> None:
        """A new topic's records are the sink's to tell apart once the ledger has its id."""
        row = self.ledger.topic()
        if row is not None and row.topic_id == self.kafka.inner.ids[TOPIC]:
            self.kafka.new_topic_unknown = False

    def _happen_on(self) -> None:
        if self.calm:
            return
        names = sorted(self.theme.happenings)
        (name,) = self.rng.choices(names, [self.theme.happenings[each] for each in names])
        self.scheduler.say(f"happens: {name}")
        HAPPENINGS[name](self)
        wait_ms = max(self.rng.randint(2_000, 60_000), self.away_until_ms - self.scheduler.ms)
        self.scheduler.after(wait_ms, self._happen_on)

    def _sweep_on(self) -> None:
        """The timer, as the host has it; while nothing goes on it comes more and more rarely, to save our time."""
        self._note_topic()
        able = [host for host in self.hosts if host.alive and not host.is_frozen]
        self.rng.shuffle(able)
        seen = (len(self.kafka.records), self.scheduler.steps)
        for host in able[: 1 + (self.rng.random() < self.theme.second_sweeper)]:
            host.sweep()
        busy = seen[0] != self._seen_at_sweep[0] or bool(self.open_rows())
        self._sweep_ms = SWEEP_MS if busy or self.calm else min(self._sweep_ms * 2, SWEEP_MS_MAX)
        if self.calm and self.settle_sweeps > 20:
            self._sweep_ms = 300_000
        self._seen_at_sweep = seen
        self.scheduler.after(self._sweep_ms, self._sweep_on)

    def _perhaps_fail(self, actor: Actor) -> None:
        """Wherever an actor parks, its process may die or freeze."""
        if actor.label == "has queued" and not self.calm:
            actor.notes["queued"] = True
        if self.calm:
            return
        draw, theme = self.rng.random(), self.theme
        host: Host = actor.notes["host"]
        if draw < theme.kill:
            if actor.label == "has queued":
                self.watch.meet(4)
            self.watch.count(f"a death at: {actor.label}")
            host.kill_worker()
        elif draw < theme.kill + theme.freeze:
            self.watch.count(f"a freeze at: {actor.label}")
            if actor.label == "queue":
                self.watch.frozen_at_put.add(actor.notes["queueing"])
            stops = self.rng.random() < theme.clocks_stop
            self.scheduler.freeze(
                actor.process,
                self.rng.randint(*theme.freeze_ms),
                monotonic_stops=stops or self.rng.random() < 0.5,
                wall_stops=stops,
            )

    # Afterwards.

    def _settle(self) -> None:
        """No more faults; what was stopped is started; a person decides what only a person can."""
        self.scheduler.say("--- calm from here on")
        self.calm = True
        self.faults.calm()
        self.adx.faults.calm()
        self.kafka.refused = self.kafka.silent = 0.0
        self.kafka.out = False
        for partition in range(len(self.kafka.logs)):
            self.kafka.end_transaction(partition, commit=True)
        for host in self.hosts:
            host.revive()
        while True:
            before = self.settle_sweeps
            while self.settle_sweeps == before:
                if not self.scheduler.step():
                    raise EndlessError(f"nothing goes on, and there is work left: {self._left()}")
            self._release()
            left = self._left()
            if not left:
                return
            if self.settle_sweeps > SETTLE_SWEEPS_MAX:
                raise EndlessError(f"after {self.settle_sweeps} calm sweeps there is work left: {left}")

    def _release(self) -> None:
        """A person lets every held gap be drained."""
        for gap in self.ledger.gaps():
            if gap.held:
                topic = Topic(TOPIC, self.group.name, self.ledger, self.ledger.topic(), 0.0)  # type: ignore[arg-type]
                operate.release(topic, gap.key)

    def open_rows(self) -> list[str]:
        """The ledger's rows of what is not finished."""
        rows = self.memory_table.partitions.get(self.settings.kafka.group_of(TOPIC), {})
        return [key for key in rows if key.startswith(("o-", "g-"))]

    def _left(self) -> list[str]:
        """What keeps the run from being over."""
        left = [f"{host.name} is at work" for host in self.hosts if not host.is_idle or host.is_frozen]
        if left or self.adx.waiting or self.adx.failures.messages:
            return [*left, "ADX is at work"]
        left = self.open_rows()
        row = self.ledger.topic()
        if row is None or row.topic_id != self.kafka.inner.ids[TOPIC]:
            left.append("the topic's row is another topic's")
        for partition, log in enumerate(self.kafka.logs):
            if self.position(partition) != log.stable and (log.stable > log.low or self.position(partition)):
                left.append(f"partition {partition} is at {self.position(partition)} of {log.stable}")
        return left


class Listener(logging.Handler):
    """Hands the sink's own events to the watch of the run."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self._watch.said(record.__dict__["event"], record.__dict__["facts"])


def simulate(seed: int, prepare: Callable[[World], None] = lambda _: None, theme: Theme | None = None) -> World:
    """The run of a seed, to its end. `prepare` may change the world before it begins."""
    world = World(seed, theme)
    prepare(world)
    logger, listener = logging.getLogger("sinkcore"), Listener(world.watch)
    level, propagates = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(listener)
    try:
        return world.run()
    except BaseException as error:
        error.add_note(f"seed {seed}, theme {world.theme.name}, {world.delivery}, metadata {world.metadata}")
        error.world = world  # type: ignore[attr-defined]
        raise
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagates


def _some_host(world: World) -> Host:
    return world.rng.choice(world.hosts)


def _stop_host(world: World) -> None:
    host = _some_host(world)
    host.stop()
    world.scheduler.after(world.rng.randint(5_000, 120_000), host.revive)


def _rebalance(world: World) -> None:
    world.group.rebalance("drawn")


def _some_partition(world: World) -> int:
    return world.rng.randrange(len(world.kafka.logs))


def _transaction(world: World) -> None:
    partition = _some_partition(world)
    world.kafka.begin_transaction(partition)
    for _ in range(world.rng.randint(1, 4)):
        world.kafka.produce(partition, "row")
    commit = world.rng.random() < 0.7
    world.scheduler.after(
        world.rng.randint(10, 90_000), lambda: world.kafka.end_transaction(partition, commit=commit)
    )


def _abort(world: World) -> None:
    partition = _some_partition(world)
    world.kafka.begin_transaction(partition)
    world.kafka.produce(partition, "row")
    world.kafka.end_transaction(partition, commit=False)


def _retain(world: World) -> None:
    partition = _some_partition(world)
    log = world.kafka.logs[partition]
    world.kafka.retain(partition, world.rng.randint(log.low, log.stable))


def _truncate(world: World) -> None:
    partition = _some_partition(world)
    log = world.kafka.logs[partition]
    if log.end > log.low + 1:
        world.kafka.truncate(partition, world.rng.randint(max(log.low, log.end - 6), log.end - 1))


def _recreate(world: World) -> None:
    before = [world.position(p) or 0 for p in range(len(world.kafka.logs))]
    world.kafka.recreate(len(world.kafka.logs))
    for partition in range(len(world.kafka.logs)):
        for _ in range(world.rng.randint(0, 12)):
            world.kafka.produce(partition, "row")
        if world.kafka.logs[partition].end > before[partition] > 0:
            world.watch.meet(26)


def _add_partition(world: World) -> None:
    if len(world.kafka.logs) < 6:
        partition = world.kafka.add_partition()
        for _ in range(world.rng.randint(0, 3)):
            world.kafka.produce(partition, "row")
        world.group.rebalance("a partition was added")


def _off(world: World, ms: int) -> None:
    """Every host is off for so long; what is produced before and after it is enough to see what that does."""
    world.away_until_ms = world.scheduler.ms + ms
    for host in world.hosts:
        host.stop()
        world.scheduler.after(ms + world.rng.randint(0, 60_000), host.revive)


def _a_week(world: World) -> None:
    world.watch.meet(17)
    _off(world, 8 * DAY_MS)


def _offsets_expire(world: World) -> None:
    _off(world, 8 * DAY_MS)
    world.scheduler.after(7 * DAY_MS, world.group.committed.clear)


def _reset(world: World, forward: bool) -> None:
    """The group stands still, somebody moves its offsets, it goes on."""
    partition = _some_partition(world)
    log, at = world.kafka.logs[partition], world.group.committed.get(partition, 0)
    low, high = (at, log.stable) if forward else (log.low, at)
    to = world.rng.randint(min(low, high), high)
    if to == at:
        return
    world.watch.meet(19 if forward else 18)
    for host in world.hosts:
        host.stored.pop(partition, None)
    world.group.committed[partition] = to
    for host in world.hosts:
        if partition in host.assigned:
            host.assigned[partition] = to


def _adx_down(world: World) -> None:
    world.adx.faults.down = True
    world.scheduler.after(world.rng.randint(30_000, 900_000), lambda: setattr(world.adx.faults, "down", False))


def _table_missing(world: World) -> None:
    world.adx.faults.table_missing = True
    world.watch.count("the table in ADX is gone for a while")
    world.scheduler.after(
        world.rng.randint(60_000, 600_000), lambda: setattr(world.adx.faults, "table_missing", False)
    )


def _storage_out(world: World) -> None:
    world.faults.out = True
    world.scheduler.after(world.rng.randint(5_000, 180_000), lambda: setattr(world.faults, "out", False))


def _table_dropped(world: World) -> None:
    world.faults.dropped = True
    world.watch.meet(28)
    world.scheduler.after(world.rng.randint(5_000, 120_000), lambda: setattr(world.faults, "dropped", False))


HAPPENINGS: dict[str, Callable[[World], None]] = {
    "kill a worker": lambda world: _some_host(world).kill_worker(),
    "kill a host": _stop_host,
    "rebalance": _rebalance,
    "transaction": _transaction,
    "abort": _abort,
    "compact": lambda world: world.kafka.compact(_some_partition(world)),
    "retain": _retain,
    "truncate": _truncate,
    "recreate": _recreate,
    "add a partition": _add_partition,
    "a week": _a_week,
    "offsets expire": _offsets_expire,
    "reset backward": lambda world: _reset(world, forward=False),
    "reset forward": lambda world: _reset(world, forward=True),
    "ADX down": _adx_down,
    "table missing": _table_missing,
    "storage out": _storage_out,
    "table dropped": _table_dropped,
}
