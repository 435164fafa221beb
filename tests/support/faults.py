"""Small wrappers that fail as the world does: before a write, after it, or by stopping the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sinkcore.errors import OutcomeUnknownError
from sinkcore.failures import FailedIngestion
from sinkcore.segment import Blob
from sinkcore.table import Row, Table
from sinkcore.transaction import Operation


class Stopped(BaseException):
    """The process ends here; nothing catches it, as nothing catches SIGKILL."""


@dataclass
class Steps:
    """Counts what reaches the outside, and stops before or after a given step."""

    stop_at: int | None = None
    after: bool = False
    taken: list[str] = field(default_factory=list)

    def take(self, name: str, call: Callable[[], Any]) -> Any:
        self.taken.append(name)
        stops = len(self.taken) == self.stop_at
        if stops and not self.after:
            raise Stopped(name)
        result = call()
        if stops:
            raise Stopped(name)
        return result


@dataclass
class SteppedTable:
    """A table whose every call is a step."""

    inner: Table
    steps: Steps

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        kinds = ",".join(operation.kind for operation in operations)
        found: list[str] = self.steps.take(f"transact {kinds}", lambda: self.inner.transact(partition, operations))
        return found

    def get(self, partition: str, key: str) -> Row | None:
        found: Row | None = self.steps.take(f"get {key[:2]}", lambda: self.inner.get(partition, key))
        return found

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        found: Iterator[Row] = self.steps.take(
            f"rows {prefix}", lambda: self.inner.rows(partition, prefix, before)
        )
        return found


@dataclass
class SteppedBlobs:
    """Containers whose every write is a step."""

    inner: Any
    steps: Steps

    def put(self, container: str, path: str, data: bytes) -> None:
        self.steps.take(f"put {container}", lambda: self.inner.put(container, path, data))

    def get(self, container: str, path: str) -> bytes:
        found: bytes = self.inner.get(container, path)
        return found

    def exists(self, container: str, path: str) -> bool:
        found: bool = self.inner.exists(container, path)
        return found

    def url_for_adx(self, container: str, path: str) -> str:
        found: str = self.inner.url_for_adx(container, path)
        return found

    def names(self, container: str, prefix: str) -> Iterator[str]:
        found: Iterator[str] = self.inner.names(container, prefix)
        return found

    def delete(self, container: str, path: str) -> None:
        self.steps.take(f"delete {container}", lambda: self.inner.delete(container, path))

    def mark(self, container: str, path: str, marks: Mapping[str, str]) -> None:
        self.steps.take(f"mark {container}", lambda: self.inner.mark(container, path, marks))

    def marks(self, container: str, path: str) -> dict[str, str]:
        found: dict[str, str] = self.inner.marks(container, path)
        return found


@dataclass
class SteppedQueue:
    """A queue whose every message is a step."""

    inner: Any
    steps: Steps

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        self.steps.take("queue", lambda: self.inner.queue(blob, url, timeout_s))


@dataclass
class SteppedFailures:
    """A queue of failed ingestions whose every call is a step."""

    inner: Any
    steps: Steps

    def receive(self, most: int) -> list[FailedIngestion]:
        found: list[FailedIngestion] = self.steps.take("receive", lambda: self.inner.receive(most))
        return found

    def delete(self, message: FailedIngestion) -> None:
        self.steps.take("delete message", lambda: self.inner.delete(message))


@dataclass
class FailingTable:
    """A table whose transactions fail by a script: `lost` lands and loses the reply, an error is raised before."""

    inner: Table
    script: list[str | Exception | None] = field(default_factory=list)
    reads_fail: list[Exception | None] = field(default_factory=list)

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        fault = self.script.pop(0) if self.script else None
        if isinstance(fault, Exception):
            raise fault
        etags = self.inner.transact(partition, operations)
        if fault == "lost":
            raise OutcomeUnknownError("ledger: the reply was lost")
        return etags

    def get(self, partition: str, key: str) -> Row | None:
        fault = self.reads_fail.pop(0) if self.reads_fail else None
        if fault is not None:
            raise fault
        return self.inner.get(partition, key)

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        return self.inner.rows(partition, prefix, before)
