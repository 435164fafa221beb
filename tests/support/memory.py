"""The ledger's table, the containers and ADX's queue in memory.

They pass the same contract tests as Azurite's (tests/unit/test_table.py, test_staging.py), so what is proved on
them holds there.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sinkcore.errors import ConflictError
from sinkcore.failures import HIDDEN_S, FailedIngestion, read_message
from sinkcore.segment import Blob
from sinkcore.table import PROPERTY_MAX_CHARS, Row
from sinkcore.transaction import OPERATIONS_MAX, Operation

T = TypeVar("T")


@dataclass
class ManualClock:
    """Time that moves when a test says so."""

    ms: int = 1_767_323_045_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    def rest(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class SameThread(Executor):
    """Runs what it is given at once, so that a test's order of steps is the same each time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@dataclass
class _Entity:
    values: dict[str, Any]
    etag: str
    written_ms: int


@dataclass
class MemoryTable:
    """Entities with ETags; a transaction happens whole or not at all."""

    clock: ManualClock = field(default_factory=ManualClock)
    partitions: dict[str, dict[str, _Entity]] = field(default_factory=dict)
    _etags: Iterator[int] = field(default_factory=itertools.count)

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        assert 0 < len(operations) <= OPERATIONS_MAX, len(operations)
        assert len({op.key for op in operations}) == len(operations), "an entity twice in a transaction"
        entities = dict(self.partitions.get(partition, {}))
        etags = [self._apply(entities, operation) for operation in operations]
        self.partitions[partition] = entities
        return etags

    def get(self, partition: str, key: str) -> Row | None:
        entity = self.partitions.get(partition, {}).get(key)
        return None if entity is None else self._row(key, entity)

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        entities = self.partitions.get(partition, {})
        keys = [key for key in sorted(entities) if key.startswith(prefix) and key < (before or "~")]
        return iter([self._row(key, entities[key]) for key in keys])

    def _apply(self, entities: dict[str, _Entity], operation: Operation) -> str:
        found = entities.get(operation.key)
        if operation.kind == "create":
            if found is not None:
                raise ConflictError("ledger: 409")
        elif found is None or found.etag != operation.etag:
            raise ConflictError("ledger: 412")
        if operation.kind == "delete":
            del entities[operation.key]
            return ""
        values = dict(operation.values)
        assert all(len(value) <= PROPERTY_MAX_CHARS for value in values.values() if isinstance(value, str))
        if operation.kind == "merge" and found is not None:
            values = found.values | values
        entity = _Entity(values, f'W/"{next(self._etags)}"', self.clock.ms)
        entities[operation.key] = entity
        return entity.etag

    def _row(self, key: str, entity: _Entity) -> Row:
        return Row(key, dict(entity.values), entity.etag, (self.clock.ms - entity.written_ms) / 1000)


@dataclass
class MemoryBlobs:
    """Containers of blobs; a blob that is there stays as it is."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    marked: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def put(self, container: str, path: str, data: bytes) -> None:
        self.blobs.setdefault((container, path), data)

    def get(self, container: str, path: str) -> bytes:
        return self.blobs[container, path]

    def exists(self, container: str, path: str) -> bool:
        return (container, path) in self.blobs

    def url_for_adx(self, container: str, path: str) -> str:
        return f"memory://{container}/{path}?secret"

    def names(self, container: str, prefix: str) -> Iterator[str]:
        return iter(sorted(p for name, p in self.blobs if name == container and p.startswith(prefix)))

    def delete(self, container: str, path: str) -> None:
        self.blobs.pop((container, path), None)

    def mark(self, container: str, path: str, marks: Mapping[str, str]) -> None:
        assert (container, path) in self.blobs
        self.marked[container, path] = dict(marks)

    def marks(self, container: str, path: str) -> dict[str, str]:
        return self.marked.get((container, path), {})

    def in_container(self, container: str) -> dict[str, bytes]:
        return {path: data for (name, path), data in self.blobs.items() if name == container}


@dataclass
class MemoryQueue:
    """What ADX was sent, in order and with the time; nothing is sent while `fails_with` is set."""

    clock: ManualClock = field(default_factory=ManualClock)
    queued: list[tuple[Blob, str]] = field(default_factory=list)
    queued_at_ms: list[int] = field(default_factory=list)
    fails_with: Exception | None = None

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.fails_with is not None:
            raise self.fails_with
        self.queued.append((blob, url))
        self.queued_at_ms.append(self.clock.ms)


@dataclass
class MemoryFailures:
    """The queue of failed ingestions: messages as ADX writes them, by id, with the time when they show."""

    clock: ManualClock = field(default_factory=ManualClock)
    messages: dict[int, tuple[str, int]] = field(default_factory=dict)
    fails_with: Exception | None = None
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def put(self, text: str) -> None:
        self.messages[next(self._ids)] = (text, self.clock.ms)

    def report(self, url: str, code: str, **more: Any) -> None:
        """ADX has refused the blob; `more` replaces fields of the message."""
        body = {
            "OperationId": "7a1c8f0e-0000-4000-8000-000000000000",
            "Database": "db",
            "Table": "Flights",
            "FailedOn": "2026-01-02T03:04:05Z",
            "IngestionSourcePath": url.partition("?")[0],
            "Details": "VERY-PRIVATE is no number",
            "ErrorCode": code,
            "FailureStatus": "Permanent",
            "ShouldRetry": False,
        }
        self.put(base64.b64encode(json.dumps(body | more).encode()).decode())

    def receive(self, most: int) -> list[FailedIngestion]:
        if self.fails_with is not None:
            raise self.fails_with
        found = [(n, text) for n, (text, at_ms) in self.messages.items() if at_ms <= self.clock.ms][:most]
        for number, text in found:
            self.messages[number] = (text, self.clock.ms + HIDDEN_S * 1000)
        return [read_message(text, number) for number, text in found]

    def delete(self, message: FailedIngestion) -> None:
        self.messages.pop(message.handle, None)


@dataclass
class MemoryRows:
    """Tables into which every queued blob falls once the batching time is over, unless `refusal` has a code.

    `lacking` are tables and mappings that ADX does not have.
    """

    queue: MemoryQueue
    batching: float = 300.0
    fails_with: Exception | None = None
    tells_segments_apart: bool = True
    failures: MemoryFailures = field(default_factory=MemoryFailures)
    refusal: Callable[[Blob], str | None] = lambda _: None
    refusal_more: dict[str, Any] = field(default_factory=dict)
    lacking: set[str | None] = field(default_factory=set)
    landed: list[Blob] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    _sealed: int = 0

    def batching_s(self, blob: Blob) -> float:  # noqa: ARG002 - one policy for all tables
        return self.batching

    def counts(self, blob: Blob, segment_ids: Sequence[str]) -> dict[str, int] | None:
        self.ingest()
        self.asked.append(len(segment_ids))
        if self.fails_with is not None:
            raise self.fails_with
        if not self.tells_segments_apart:
            return None
        found = Counter[str]()
        for each in self.landed:
            if (each.db, each.table) == (blob.db, blob.table) and each.metadata is not None:
                found[each.path.split("/")[-2]] += each.rows
        return {segment_id: found[segment_id] for segment_id in segment_ids if found[segment_id]}

    def takes(self, blob: Blob) -> bool:
        if self.fails_with is not None:
            raise self.fails_with
        return not self.lacking & {blob.table, blob.mapping}

    def ingest(self) -> None:
        """ADX has ingested, or refused, what it has had for its batching time."""
        due = [
            each
            for each, at_ms in zip(self.queue.queued, self.queue.queued_at_ms, strict=True)
            if at_ms + self.batching * 1000 <= self.queue.clock.ms
        ]
        for blob, url in due[self._sealed :]:
            code = self._code_for(blob)
            if code is None:
                self.landed.append(blob)
            else:
                self.failures.report(url, code, **self.refusal_more)
        self._sealed = len(due)

    def _code_for(self, blob: Blob) -> str | None:
        if blob.table in self.lacking:
            return "BadRequest_TableNotExist"
        if blob.mapping in self.lacking:
            return "BadRequest_MappingReferenceWasNotFound"
        return self.refusal(blob)
