"""Records and a route become bodies: what is uploaded as blobs, and what is refused. Pure: no I/O here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sinkcore.encode.bodies import Body, BodyWriter
from sinkcore.encode.jsoncheck import Decode, Fault, all_objects, decoder_of, object_fault
from sinkcore.encode.jsonseveral import objects_in
from sinkcore.encode.metadata import Splicer
from sinkcore.records import Refused, Slice, record_of
from sinkcore.routes import Route

if TYPE_CHECKING:
    import azure.functions as func

__all__ = ["LANES", "LARGE_RECORD_BYTES", "Body", "Encoded", "encode"]

LARGE_RECORD_BYTES = 1 << 20
"""From here on ADX truncates strings and drops `dynamic` values."""

_CHUNK_BYTES = 1 << 18  # enough to make the cost a chunk vanish, few enough to stay in the processor's cache
_CHUNK_RECORDS = 1024  # one bad record has its whole chunk looked at record by record


def _one(value: bytes, decode: Decode) -> list[bytes] | Fault:
    return object_fault(value, decode) or [value]


LANES: dict[str, Callable[[bytes, Decode], list[bytes] | Fault]] = {
    "json": _one,
    "multijson": objects_in,
    "singlejson": objects_in,
}
"""What a record of each format may hold: its rows, or why it is refused. A format that is missing here is a
settings error."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a batch: every record is in `bodies`, in `refused`, or counted in `tombstones`.

    `large_records` counts those in `bodies` of `LARGE_RECORD_BYTES` and more.
    """

    bodies: list[Body]
    refused: list[Refused]
    tombstones: int
    large_records: int


def encode(
    slices: Sequence[Slice], route: Route, *, segment_id: str, record_max_bytes: int, blob_max_bytes: int
) -> Encoded:
    """All records of `slices` as rows of as few bodies as `blob_max_bytes` (unpacked) allows, in their order."""
    decode = decoder_of(route.metadata)
    splicer = None if route.metadata is None else Splicer(route, segment_id)
    writer = BodyWriter(blob_max_bytes)
    refused: list[Refused] = []
    tombstones = large_records = 0
    all_short_bytes = min(record_max_bytes, LARGE_RECORD_BYTES)
    for chunk in _chunks(_rows_of(slices)):
        joined = b"".join(chunk.values)
        # No value is longer than all of them together, which spares most chunks another look.
        longest = len(joined) if len(joined) < all_short_bytes else max(map(len, chunk.values))
        one_line = b"\n" not in joined and b"\r" not in joined
        not_ascii = None if joined.isascii() else joined
        del joined
        if longest <= record_max_bytes and all_objects(chunk.values, not_ascii, longest, decode):
            if longest >= LARGE_RECORD_BYTES:
                large_records += sum(len(value) >= LARGE_RECORD_BYTES for value in chunk.values)
            _write(chunk, one_line, splicer, writer)
        else:
            sifted = _sift(chunk, route, decode, record_max_bytes)
            refused += sifted.refused
            tombstones += sifted.tombstones
            large_records += sifted.large_records
            # A record can hold very many objects, and each becomes a row here.
            for start in range(0, len(sifted.kept.values), _CHUNK_RECORDS):
                _write(sifted.kept.part(start, start + _CHUNK_RECORDS), False, splicer, writer)
    return Encoded(writer.finish(), refused, tombstones, large_records)


def _write(rows: _Rows, one_line: bool, splicer: Splicer | None, writer: BodyWriter) -> None:
    values = rows.values if one_line else list(map(_one_line, rows.values))
    if splicer is None:
        lines = b"\n".join([*values, b""])
    else:
        lines = splicer.lines(rows.partitions, rows.offsets, values, rows.events)
    writer.add(lines, len(values))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Columns of equal length, across partitions. A record that holds several objects is several rows."""

    partitions: list[int]
    offsets: list[int]
    values: list[bytes]
    events: list[func.KafkaEvent]

    def part(self, start: int, end: int) -> _Rows:
        """Rows `[start, end)`."""
        span = slice(start, end)
        return _Rows(self.partitions[span], self.offsets[span], self.values[span], self.events[span])


def _rows_of(slices: Sequence[Slice]) -> _Rows:
    rows = _Rows([], [], [], [])
    for part in slices:
        rows.partitions.extend([part.partition] * len(part.offsets))
        rows.offsets.extend(part.offsets)
        rows.values.extend(part.values)
        rows.events.extend(part.events)
    return rows


def _chunks(rows: _Rows) -> Iterator[_Rows]:
    """The rows in their order, some hundred at a time; no chunk is much above its share of bytes."""
    records, size_bytes = len(rows.values), sum(map(len, rows.values))
    step = min(_CHUNK_RECORDS, max(1, _CHUNK_BYTES * records // max(1, size_bytes)))
    if records <= step:
        return iter([rows])
    return (rows.part(start, start + step) for start in range(0, records, step))


@dataclass(frozen=True, slots=True)
class _Sifted:
    """What became of a chunk that was looked at record by record."""

    kept: _Rows
    refused: list[Refused]
    tombstones: int
    large_records: int


def _sift(chunk: _Rows, route: Route, decode: Decode, record_max_bytes: int) -> _Sifted:
    rows_of = LANES[route.format]
    kept = _Rows([], [], [], [])
    refused: list[Refused] = []
    tombstones = large_records = 0
    for number, value in enumerate(chunk.values):
        outcome: list[bytes] | Fault
        if not value:
            if route.tombstones == "skip":
                tombstones += 1
                continue
            outcome = Fault("tombstone", "a value of 0 bytes")
        elif len(value) > record_max_bytes:
            outcome = Fault("too_large", f"{len(value)} bytes; at most {record_max_bytes}")
        else:
            outcome = rows_of(value, decode)
        if isinstance(outcome, Fault):
            refused.append(Refused(record_of(chunk.events[number]), outcome.reason, outcome.detail))
            continue
        large_records += len(value) >= LARGE_RECORD_BYTES
        kept.partitions.extend([chunk.partitions[number]] * len(outcome))
        kept.offsets.extend([chunk.offsets[number]] * len(outcome))
        kept.values.extend(outcome)
        kept.events.extend([chunk.events[number]] * len(outcome))
    return _Sifted(kept, refused, tombstones, large_records)


def _one_line(value: bytes) -> bytes:
    """The same JSON on one line: strings cannot hold raw line breaks, so those here are white space."""
    return value.strip(b"\r\n").replace(b"\n", b" ").replace(b"\r", b" ")
