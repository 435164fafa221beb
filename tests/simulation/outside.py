"""A worker's calls to the outside: each is under way for a while, there and back, and may fail or be the last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sinkcore.errors import OutcomeUnknownError, SinkError, TransientError
from sinkcore.segment import Blob
from sinkcore.table import Operation, Row
from tests.simulation.faults import Service
from tests.simulation.kafka import TOPIC
from tests.simulation.schedule import Killed

if TYPE_CHECKING:
    from sinkcore.gaps import Answer, TopicState
    from tests.simulation.worker import Worker

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{28}([0-9a-f]{4})")

# More calls than this in one delivery or sweep mean that its work has no bound.
CALLS_MAX = 5_000
ANSWER_S = 7.0
SLOW_MS = (2_000, 60_000)
LATER_MS = (1_000, 120_000)


class EndlessError(AssertionError):
    """A process makes call after call, and comes to no end."""


@dataclass
class Line:
    """What every call of a worker goes over. Between any two of its calls, and within each, others may run."""

    worker: Worker

    def call(
        self,
        service: Service,
        kind: str,
        what: str,
        effect: Callable[[], T],
        *,
        unknown: type[SinkError] = TransientError,
        shown: Callable[[T], str] = lambda _: "ok",
        silence: tuple[float, Callable[[], T] | None] = (0, None),
    ) -> T:
        """What `effect` returned, on its way there and back; `unknown` is raised where a reply is lost.

        `silence` is for how many seconds the caller waits for an answer, and what it has by then.
        """
        world = self.worker.world
        scheduler, faults = world.scheduler, world.faults
        task = scheduler.current
        task.calls += 1
        if task.calls > CALLS_MAX:
            raise EndlessError(f"{task.name}: more than {CALLS_MAX} calls")
        fault = faults.pick(service, kind, scheduler.clock.ms)
        scheduler.sleep(world.latency())
        if fault == "slow":
            scheduler.sleep(world.rng.randint(*SLOW_MS))
        elif fault in ("killed before", "frozen before"):
            self._befall(fault, what)
        elif fault in ("refused", "unheard", "lands later"):
            world.trace.add(task.name, what, fault)
            world.witness.fault(task, fault, kind)
            if fault == "lands later":
                scheduler.after(world.rng.randint(*LATER_MS), lambda: self._late(task.name, what, effect))
            raise (TransientError if fault == "refused" else unknown)(f"{service}: {fault}")
        elif fault == "silent":
            scheduler.sleep(int(silence[0] * 1000))
            world.trace.add(task.name, what, fault)
            if silence[1] is None:
                raise TransientError(f"{service}: no answer")
            return silence[1]()
        try:
            result = effect()
            if fault == "sent twice":
                result = effect()
        except SinkError as error:
            world.trace.add(task.name, what, f"{type(error).__name__} {fault}".strip())
            scheduler.sleep(world.latency())
            raise
        world.trace.add(task.name, what, f"{shown(result)}{', ' if fault else ''}{fault}")
        if fault in ("killed after", "frozen after"):
            self._befall(fault, what)
        scheduler.sleep(world.latency())
        if fault == "lost reply":
            world.witness.fault(task, fault, kind)
            raise unknown(f"{service}: the reply was lost")
        return result

    def _befall(self, fault: str, what: str) -> None:
        """The caller's process is killed or frozen, here and now."""
        world = self.worker.world
        if fault.startswith("killed"):
            world.trace.add(self.worker.name, f"dies {fault[7:]} {what}")
            self.worker.die()
            raise Killed
        self.worker.freeze(world.freeze_ms(), fault[7:] + " " + what)
        world.scheduler.sleep(1)

    def _late(self, name: str, what: str, effect: Callable[[], object]) -> None:
        try:
            effect()
        except SinkError as error:
            self.worker.world.trace.add(name, f"(late) {what}", type(error).__name__)
        else:
            self.worker.world.trace.add(name, f"(late) {what}", "ok")
            self.worker.world.witness.landed_late(what)


@dataclass
class SimTable:
    """The ledger's table as a worker reaches it. Lists come in pages, between which the table may change."""

    line: Line

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        world = self.line.worker.world
        task = world.scheduler.current

        def effect() -> list[str]:
            return world.witness.transact(task, operations, lambda: world.table.transact(partition, operations))

        return self.line.call("table", "table write", _named(operations), effect, unknown=OutcomeUnknownError)

    def get(self, partition: str, key: str) -> Row | None:
        table = self.line.worker.world.table
        return self.line.call(
            "table",
            "table read",
            f"get {short(key)}",
            lambda: table.get(partition, key),
            shown=lambda row: "none" if row is None else "found",
        )

    def rows(self, partition: str, prefix: str) -> Iterator[Row]:
        world = self.line.worker.world
        after = ""
        while True:
            start = after
            page: list[Row] = self.line.call(
                "table",
                "table read",
                f"rows {prefix}*",
                lambda: [r for r in world.table.rows(partition, prefix) if r.key > start][: world.page_rows],  # noqa: B023 - called at once
                shown=lambda rows: f"{len(rows)} rows",
            )
            yield from page
            if len(page) < world.page_rows:
                return
            after = page[-1].key


@dataclass
class SimBlobs:
    """The containers as a worker reaches them."""

    line: Line

    def put(self, container: str, path: str, data: bytes) -> None:
        world = self.line.worker.world
        task = world.scheduler.current
        what = f"put {short(path)}"
        self.line.call("blobs", "blob write", what, lambda: world.store.put(container, path, data))
        world.witness.put(task, container, path)

    def get(self, container: str, path: str) -> bytes:
        store = self.line.worker.world.store
        return self.line.call(
            "blobs",
            "blob read",
            f"read {short(path)}",
            lambda: store.get(container, path),
            shown=lambda d: "found",
        )

    def url_for_adx(self, container: str, path: str) -> str:
        return f"memory://{container}/{path}?secret"


@dataclass
class SimQueue:
    """ADX's ingestion queue as a worker reaches it."""

    line: Line

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        assert timeout_s > 0
        world = self.line.worker.world
        task = world.scheduler.current
        what = f"queue {short(blob.path)}"
        self.line.call("queue", "queue", what, lambda: world.adx.accept(blob, task), unknown=OutcomeUnknownError)


@dataclass
class SimRows:
    """ADX's engine as a worker reaches it."""

    line: Line

    def batching_s(self, blob: Blob) -> float:
        return self.line.worker.world.adx.batching_s

    def count(self, blob: Blob, segment_id: str) -> int | None:
        adx = self.line.worker.world.adx
        return self.line.call(
            "engine",
            "engine",
            f"count {short(segment_id)}",
            lambda: adx.count(segment_id),
            shown=lambda n: f"{n} rows",
        )


@dataclass
class SimKafka:
    """Kafka as a worker asks it."""

    line: Line

    def topic(self, topic: str) -> TopicState | None:
        return self._ask("topic?", lambda: self._log.topic(topic), lambda found: found.id if found else "none")

    def committed(self, group: str, topic: str) -> dict[int, int]:
        return self._ask("committed?", lambda: self._log.committed(group, topic), str)

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        asked = list(partitions)
        return self._ask("first?", lambda: self._log.first_offsets(topic, asked), str)

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        asked = list(partitions)
        return self._ask(
            "stable end?" if committed_only else "end?",
            lambda: self._log.end_offsets(topic, asked, committed_only=committed_only),
            str,
        )

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        asked = list(partitions)
        return self._ask("offsets at?", lambda: self._log.offsets_at(topic, timestamp_ms, asked), str)

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        world = self.line.worker.world
        if world.rng.random() < world.config.small_answers:
            max_records = min(max_records, world.rng.randint(1, 4))
        limits: dict[str, Any] = {"budget_s": budget_s, "max_records": max_records, "max_bytes": max_bytes}
        return self._ask(
            f"read {dict(asked)}",
            lambda: world.witness.read(asked, self._log.read(topic, asked, **limits)),
            lambda found: ", ".join(f"{p}: {len(a.events)} to {a.next_offset} {a.why}" for p, a in found.items()),
            (budget_s, lambda: {p: self._in_part(topic, p, first, end) for p, (first, end) in asked.items()}),
        )

    def _in_part(self, topic: str, partition: int, first: int, end: int) -> Answer:
        """What came before the brokers fell silent."""
        rng = self.line.worker.world.rng
        limits: dict[str, Any] = {"budget_s": 0, "max_records": rng.randint(0, 3), "max_bytes": 0}
        found: Answer = self._log.read(topic, {partition: (first, end)}, **limits)[partition]
        return found if found.why == "settled" else replace(found, why="unanswered")

    @property
    def _log(self) -> Any:
        return self.line.worker.world.broker.kafka

    def _ask(
        self,
        what: str,
        effect: Callable[[], T],
        shown: Callable[[T], str],
        silence: tuple[float, Callable[[], T] | None] = (ANSWER_S, None),
    ) -> T:
        return self.line.call("kafka", "kafka", what, effect, shown=shown, silence=silence)


class OneAfterTheOther(Executor):
    """Runs what it is given at once; who asks for the result gets what went wrong, as with threads."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed over to whoever asks for the result
            done.set_exception(error)
        return done


def short(name: str) -> str:
    """A path or key without its folder, and with the end of its segment's id, which tells it from others."""
    return _ID.sub(r"\1", name.rpartition("/20")[2][9:] if name.startswith(TOPIC + "/") else name)


def _named(operations: Sequence[Operation]) -> str:
    return ", ".join(f"{op.kind} {short(op.key)}" for op in operations)
