"""The ledger's table and the containers, as Azure's fail: before a write, after it, later than they said, slowly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sinkcore.errors import ConflictError, OutcomeUnknownError, TransientError
from sinkcore.table import Operation, Row
from tests.simulation.scheduler import Scheduler
from tests.support.memory import MemoryBlobs, MemoryTable

T = TypeVar("T")
SLOW_MS_MAX = 40_000


@dataclass
class Faults:
    """How often storage fails, each a probability of one call; none of it while `calm`."""

    refused: float = 0.0
    lost: float = 0.0
    delayed: float = 0.0
    slow: float = 0.0
    out: bool = False
    dropped: bool = False

    def calm(self) -> None:
        self.refused = self.lost = self.delayed = self.slow = 0.0
        self.out = self.dropped = False


@dataclass
class Service:
    """What table and containers share: one call is one or two steps, and may fail by the faults drawn for it."""

    scheduler: Scheduler
    faults: Faults
    count: Callable[[str], None]

    def read(self, what: str, call: Callable[[], T]) -> T:
        self._before(what)
        return call()

    def write(self, what: str, call: Callable[[], T]) -> T:
        """Before and after the write others may go on, and whoever makes it may die."""
        self._before(what)
        rng = self.scheduler.rng
        if rng.random() < self.faults.delayed:
            self.count("a write that lands after its caller has given up")
            self.scheduler.after(rng.randint(1, 90_000), lambda: self._late(what, call))
            raise OutcomeUnknownError(f"{what}: no reply")
        result = call()
        if rng.random() < self.faults.lost:
            self.count("a reply that is lost after the write")
            raise OutcomeUnknownError(f"{what}: the reply was lost")
        self.scheduler.park(f"has done {what}")
        return result

    def _late(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except ConflictError:
            self.scheduler.say(f"late {what} meets a conflict")
        else:
            self.scheduler.say(f"late {what} lands")

    def _before(self, what: str) -> None:
        rng, faults = self.scheduler.rng, self.faults
        slow = rng.random() < faults.slow
        if slow:
            self.count("a slow call to storage")
        self.scheduler.park(what, rng.randint(1_000, SLOW_MS_MAX) if slow else 0)
        if faults.dropped:
            raise TransientError("ledger: storage answered 404 TableNotFound")
        if faults.out or rng.random() < faults.refused:
            self.count("storage out" if faults.out else "a call that storage refuses")
            raise TransientError(f"{what}: 503")


@dataclass
class SimTable:
    """See sinkcore.table.Table. `on_conflict` hears the keys that a refused transaction had."""

    inner: MemoryTable
    service: Service
    on_transact: Callable[[Sequence[Operation], bool], None] = lambda _operations, _done: None

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        def call() -> list[str]:
            try:
                etags = self.inner.transact(partition, operations)
            except ConflictError:
                self.on_transact(operations, False)
                raise
            self.on_transact(operations, True)
            return etags

        return self.service.write(_named(operations), call)

    def get(self, partition: str, key: str) -> Row | None:
        return self.service.read(f"get {key[:2]}", lambda: self.inner.get(partition, key))

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        return self.service.read(f"rows {prefix}", lambda: self.inner.rows(partition, prefix, before))


def _named(operations: Sequence[Operation]) -> str:
    first = operations[0]
    if first.kind == "create" and first.key.startswith("s-"):
        return "commit"
    return f"{first.kind} {first.key[:2]}"


@dataclass
class SimBlobs:
    """See sinkcore.staging.Blobs."""

    inner: MemoryBlobs
    service: Service
    deleted: set[str] = field(default_factory=set)

    def put(self, container: str, path: str, data: bytes) -> None:
        def call() -> None:
            self.inner.put(container, path, data)

        try:
            self.service.write(f"put {container}", call)
        except OutcomeUnknownError as error:
            # A put whose reply was lost is sent again by the SDK, and given up as refused.
            raise TransientError(str(error)) from None

    def get(self, container: str, path: str) -> bytes:
        return self.service.read(f"get {container}", lambda: self.inner.get(container, path))

    def url_for_adx(self, container: str, path: str) -> str:
        return self.inner.url_for_adx(container, path)

    def names(self, container: str, prefix: str) -> Iterator[str]:
        return self.service.read(f"names {container}", lambda: self.inner.names(container, prefix))

    def delete(self, container: str, path: str) -> None:
        def call() -> None:
            self.inner.delete(container, path)
            self.deleted.add(path)

        self.service.read(f"delete {container}", call)

    def mark(self, container: str, path: str, marks: Mapping[str, str]) -> None:
        self.service.read(f"mark {container}", lambda: self.inner.mark(container, path, marks))

    def marks(self, container: str, path: str) -> dict[str, str]:
        return self.service.read(f"marks {container}", lambda: self.inner.marks(container, path))
