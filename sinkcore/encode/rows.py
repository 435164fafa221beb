"""A batch on its way to bodies: columns across partitions, and what is taken out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from sinkcore.encode.bodies import Body
from sinkcore.encode.metadata import Keys
from sinkcore.records import Refused, Slice, record_of
from sinkcore.routes import Route
from sinkcore.schemas import Schemas

if TYPE_CHECKING:
    import azure.functions as func

K = TypeVar("K")

LARGE_RECORD_BYTES = 1 << 20
"""From here on ADX truncates strings and drops `dynamic` values."""

CHUNK_BYTES = 1 << 18  # enough to make the cost a chunk vanish, few enough to stay in the processor's cache
CHUNK_RECORDS = 1024  # one bad record has its whole chunk looked at record by record


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a value is refused: a `reason` of the contract, and a `detail` of positions and sizes, never content."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of equal length, across partitions. A record that holds several rows is there several times."""

    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    events: list[func.KafkaEvent] = field(default_factory=list)

    def at(self, numbers: Sequence[int]) -> Rows:
        """The rows of these numbers, in their order."""
        columns = (self.partitions, self.offsets, self.values, self.events)
        return Rows(*([column[number] for number in numbers] for column in columns))  # type: ignore[arg-type]

    def by(self, keys: Sequence[K]) -> Iterator[tuple[K, Rows]]:
        """The rows that have one of `keys` in common, each key once, in the order of its first row."""
        if len(set(keys)) == 1:
            yield keys[0], self
            return
        numbers: dict[K, list[int]] = {}
        for number, key in enumerate(keys):
            numbers.setdefault(key, []).append(number)
        for key, same in numbers.items():
            yield key, self.at(same)

    def with_values(self, values: list[bytes]) -> Rows:
        """The same rows with other values, one each."""
        return Rows(self.partitions, self.offsets, values, self.events)

    def take(self, other: Rows, number: int, values: Sequence[bytes]) -> None:
        """Row `number` of `other` is here too, once for each of `values`."""
        self.partitions.extend([other.partitions[number]] * len(values))
        self.offsets.extend([other.offsets[number]] * len(values))
        self.values.extend(values)
        self.events.extend([other.events[number]] * len(values))

    def chunks(self, size_bytes: int) -> Iterator[Rows]:
        """The rows in their order, some hundred at a time; no chunk is much above its share of `size_bytes`."""
        records = len(self.values)
        step = min(CHUNK_RECORDS, max(1, CHUNK_BYTES * records // max(1, size_bytes)))
        if records <= step:
            return iter([self] if records else [])
        spans = (slice(start, start + step) for start in range(0, records, step))
        return (Rows(self.partitions[s], self.offsets[s], self.values[s], self.events[s]) for s in spans)


def rows_of(slices: Sequence[Slice]) -> Rows:
    """All records of the slices, one row each."""
    rows = Rows()
    for part in slices:
        rows.partitions.extend([part.partition] * len(part.offsets))
        rows.offsets.extend(part.offsets)
        rows.values.extend(part.values)
        rows.events.extend(part.events)
    return rows


class Encoder(Protocol):
    """Turns the rows of one batch and route into bodies; every format has one."""

    def add(self, rows: Rows) -> None:
        """Take a chunk. Values are not empty; what cannot become a row is refused."""

    def add_tombstones(self, rows: Rows) -> None:
        """Take records whose values are empty, as rows of their metadata alone."""

    def finish(self) -> list[Body]:
        """Everything taken, in order within a body; no body is empty."""


@dataclass(slots=True)
class Sieve:
    """Takes single records out of a batch, and keeps account of them."""

    route: Route
    record_max_bytes: int
    refused: list[Refused] = field(default_factory=list)
    tombstones: int = 0
    large_records: int = 0
    passed_bytes: int = 0

    def refuse(self, rows: Rows, number: int, fault: Fault) -> None:
        """Row `number`, which is a whole record, is a dead letter."""
        record = record_of(rows.events[number])
        self.large_records -= len(record.value) >= LARGE_RECORD_BYTES
        self.refused.append(Refused(record, fault.reason, fault.detail))

    def without(self, rows: Rows, faults: Iterable[Fault | None]) -> Rows:
        """The rows that have no fault; each other one, which is a whole record, is a dead letter."""
        kept = []
        for number, fault in enumerate(faults):
            if fault is None:
                kept.append(number)
            else:
                self.refuse(rows, number, fault)
        return rows if len(kept) == len(rows.values) else rows.at(kept)

    def rows_in(self, rows: Rows, read: Callable[[bytes], list[bytes] | Fault]) -> Iterator[Rows]:
        """What `read` finds in each value, which can be very many rows; values with a fault are dead letters."""
        found = Rows()
        for number, value in enumerate(rows.values):
            values = read(value)
            if isinstance(values, Fault):
                self.refuse(rows, number, values)
            else:
                found.take(rows, number, values)
        return found.chunks(0)

    def pass_on(self, rows: Rows) -> tuple[Rows, Rows]:
        """The rows that have a value of bearable size, and the tombstones that are to become rows."""
        sizes = list(map(len, rows.values))
        longest = max(sizes, default=0)
        if longest >= LARGE_RECORD_BYTES:
            self.large_records += sum(size_bytes >= LARGE_RECORD_BYTES for size_bytes in sizes)
        if all(sizes) and longest <= self.record_max_bytes:
            self.passed_bytes = sum(sizes)
            return rows, Rows()
        kept: list[int] = []
        tombstones: list[int] = []
        for number, size_bytes in enumerate(sizes):
            if size_bytes > self.record_max_bytes:
                fault = Fault("too_large", f"{size_bytes} bytes; at most {self.record_max_bytes}")
                self.refuse(rows, number, fault)
            elif size_bytes:
                kept.append(number)
            elif self.route.tombstones == "dead_letter":
                self.refuse(rows, number, Fault("tombstone", "a value of 0 bytes"))
            elif self.route.tombstones == "row":
                tombstones.append(number)
            else:
                self.tombstones += 1
        self.passed_bytes = sum(sizes[number] for number in kept)
        return rows.at(kept), rows.at(tombstones)


@dataclass(frozen=True, slots=True)
class Batch:
    """What every encoder of a batch is told."""

    route: Route
    segment_id: str
    blob_max_bytes: int
    keys: Keys
    sieve: Sieve
    schemas: Schemas | None = None
