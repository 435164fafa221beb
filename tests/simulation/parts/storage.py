"""Table and blob storage with the faults that they have: lost replies, conflicts with oneself, late landings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sinkcore.errors import ConflictError, OutcomeUnknownError, TransientError
from sinkcore.table import Row
from sinkcore.transaction import Operation
from tests.simulation.parts.schedule import Schedule
from tests.support.memory import MemoryBlobs, MemoryTable

# Who is frozen for longer while a request is on its way finds no connection any more when it wakes.
CONNECTION_MS = 3_600_000
# Who is frozen for as long as this inside one request may have been given up by everybody.
GIVEN_UP_MS = 60_000


@dataclass(eq=False)
class Storage:
    """What the storage account's two services share: how often they fail, and outages."""

    schedule: Schedule
    faulty: float = 0.03
    kinds: tuple[str, ...] = ("before", "slow", "lost", "resent", "late", "blob")
    down: bool = False
    dropped: bool = False
    late: list[Callable[[], None]] = field(default_factory=list)

    def happens(self, kind: str) -> bool:
        """Whether this kind of fault comes now."""
        return kind in self.kinds and self.schedule.chance(self.faulty)

    def refuse(self, what: str) -> None:
        if self.down or self.dropped or (self.schedule.current() and self.happens("before")):
            self.schedule.hit("interleaving 28" if self.dropped else "fault: storage 503 before")
            raise TransientError(f"storage: {what} was refused")
        if self.happens("slow"):
            self.schedule.hit("fault: storage slow")
            self.schedule.clock.ms += self.schedule.rng.randint(1_000, 20_000)


@dataclass(eq=False)
class Table:
    """See sinkcore.table.Table."""

    storage: Storage
    inner: MemoryTable
    commits: Callable[[Sequence[Operation]], None] = lambda _: None

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        schedule = self.storage.schedule
        what = ",".join(f"{o.kind} {o.key[:13]}" for o in operations)
        asked_ms = schedule.clock.ms
        actor = schedule.seam(f"transact {what}")
        if actor and schedule.clock.ms - asked_ms > CONNECTION_MS:
            schedule.hit("fault: connection gone")
            raise TransientError("table: the connection was gone")
        self.storage.refuse("a transaction")
        fault = next((kind for kind in ("lost", "resent", "late") if self.storage.happens(kind)), "")
        if fault == "late":
            schedule.hit("fault: transaction lands late")
            self.storage.late.append(lambda: self._late(partition, operations))
            raise OutcomeUnknownError("table: no reply")
        try:
            etags = self.inner.transact(partition, operations)
        except ConflictError:
            schedule.say(actor.name if actor else "main", f"  412 on {what}")
            schedule.hit("fault: 412")
            kinds = {other.kind for other in schedule.actors if other is not actor}
            moves = any(o.key.startswith("p-") for o in operations)
            if actor and moves and kinds - {actor.kind}:
                schedule.hit("interleaving 20")
            if actor and actor.kind == "deliver" and moves:
                schedule.hit("interleaving 23")
            if actor and actor.kind == "sweep" and "sweep" in kinds:
                schedule.hit("interleaving 21")
            if any(o.key.startswith("g-") and o.kind != "create" for o in operations):
                schedule.hit("interleaving 22")
            raise
        self.commits(operations)
        if operations[0].kind == "create" and operations[0].key.startswith("s-"):
            schedule.seam("answered: commit")
        if fault == "lost":
            schedule.hit("fault: lost reply")
            raise OutcomeUnknownError("table: the reply was lost")
        if fault == "resent":
            schedule.hit("fault: 503 after commit")
            raise ConflictError("table: the SDK's second sending met the first")
        return etags

    def get(self, partition: str, key: str) -> Row | None:
        self.storage.schedule.seam(f"get {key[:13]}")
        self.storage.refuse("a read")
        return self.inner.get(partition, key)

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        self.storage.schedule.seam(f"rows {prefix}")
        self.storage.refuse("a query")
        return self.inner.rows(partition, prefix, before)

    def _late(self, partition: str, operations: Sequence[Operation]) -> None:
        try:
            self.inner.transact(partition, operations)
        except ConflictError:
            self.storage.schedule.hit("interleaving 24")
        else:
            self.commits(operations)


@dataclass(eq=False)
class Blobs:
    """See sinkcore.staging.Blobs."""

    storage: Storage
    inner: MemoryBlobs
    deleted: Callable[[str], None] = lambda _: None
    late_letters: Callable[[bytes], None] = lambda _: None

    def put(self, container: str, path: str, data: bytes) -> None:
        asked_ms = self.storage.schedule.clock.ms
        self.storage.schedule.seam(f"put {container} {path[-30:]}")
        if "dead-letters" in container and self.storage.schedule.clock.ms - asked_ms > GIVEN_UP_MS:
            self.late_letters(data)
        self.storage.refuse("a blob")
        self.inner.put(container, path, data)
        self.storage.schedule.seam("answered: put")
        if self.storage.happens("blob"):
            self.storage.schedule.hit("fault: lost reply to a blob")
            raise TransientError("blob: the reply was lost")

    def get(self, container: str, path: str) -> bytes:
        self.storage.schedule.seam(f"get blob {path[-30:]}")
        self.storage.refuse("a blob")
        if (container, path) not in self.inner.blobs:
            raise TransientError("blob: 404")
        return self.inner.get(container, path)

    def exists(self, container: str, path: str) -> bool:
        self.storage.schedule.seam(f"exists {path[-30:]}")
        self.storage.refuse("a look at a blob")
        return self.inner.exists(container, path)

    def url_for_adx(self, container: str, path: str) -> str:
        return self.inner.url_for_adx(container, path)

    def names(self, container: str, prefix: str) -> Iterator[str]:
        self.storage.schedule.seam(f"names {prefix}")
        self.storage.refuse("a listing")
        return self.inner.names(container, prefix)

    def delete(self, container: str, path: str) -> None:
        self.storage.schedule.seam(f"delete {path[-30:]}")
        self.storage.refuse("a deletion")
        self.inner.delete(container, path)
        self.deleted(path)

    def mark(self, container: str, path: str, marks: Mapping[str, str]) -> None:
        self.inner.mark(container, path, marks)

    def marks(self, container: str, path: str) -> dict[str, str]:
        return self.inner.marks(container, path)
