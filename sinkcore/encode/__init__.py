"""Records and a route become bodies: what is uploaded as blobs, and what is refused. Pure: no I/O here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sinkcore.encode.bodies import Body, BodyWriter
from sinkcore.encode.jsoncheck import Decode, Fault, all_objects, decoder_of, object_fault, objects_in
from sinkcore.encode.metadata import Splicer
from sinkcore.records import Refused, Slice, record_of
from sinkcore.routes import Route

__all__ = ["LANES", "LARGE_RECORD_BYTES", "Body", "Encoded", "encode"]

LARGE_RECORD_BYTES = 1 << 20
"""From here on ADX truncates strings and drops `dynamic` values (docs/routes.md, "Large records")."""

_CHUNK_RECORDS = 256  # enough to make the cost a chunk vanish
_CHUNK_BYTES = 1 << 20  # few enough to stay in the processor's cache, and to bound the copies in memory


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
    for chunk in _chunks(slices):
        longest = max(map(len, chunk.values))
        joined = b"".join(chunk.values)
        if longest <= record_max_bytes and all_objects(chunk.values, joined, longest, decode):
            if longest >= LARGE_RECORD_BYTES:
                large_records += sum(len(value) >= LARGE_RECORD_BYTES for value in chunk.values)
            one_line = b"\n" not in joined and b"\r" not in joined
        else:
            sifted = _sift(chunk, route, decode, record_max_bytes)
            refused += sifted.refused
            tombstones += sifted.tombstones
            large_records += sifted.large_records
            chunk, one_line = sifted.rows, False
        del joined
        if not chunk.values:
            continue
        values = chunk.values if one_line else list(map(_one_line, chunk.values))
        if splicer is None:
            writer.add(b"\n".join([*values, b""]), len(values))
        else:
            writer.add(splicer.lines(chunk.partition, chunk.offsets, values, chunk.events), len(values))
    return Encoded(writer.finish(), refused, tombstones, large_records)


def _chunks(slices: Sequence[Slice]) -> Iterator[Slice]:
    """The records in their order, some hundred at a time."""
    for whole in slices:
        records = len(whole.values)
        size_bytes = sum(map(len, whole.values))
        step = min(_CHUNK_RECORDS, max(1, _CHUNK_BYTES * records // max(1, size_bytes)))
        for start in range(0, records, step):
            part = slice(start, start + step)
            yield Slice(whole.partition, whole.offsets[part], whole.values[part], whole.events[part])


@dataclass(frozen=True, slots=True)
class _Sifted:
    """A chunk looked at record by record. In `rows` an offset occurs once for each row that its record became."""

    rows: Slice
    refused: list[Refused]
    tombstones: int
    large_records: int


def _sift(chunk: Slice, route: Route, decode: Decode, record_max_bytes: int) -> _Sifted:
    rows_of = LANES[route.format]
    rows = Slice(chunk.partition, [], [], [])
    refused: list[Refused] = []
    tombstones = large_records = 0
    for offset, value, event in zip(chunk.offsets, chunk.values, chunk.events, strict=True):
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
            refused.append(Refused(record_of(event), outcome.reason, outcome.detail))
            continue
        large_records += len(value) >= LARGE_RECORD_BYTES
        rows.values.extend(outcome)
        rows.offsets.extend([offset] * len(outcome))
        rows.events.extend([event] * len(outcome))
    return _Sifted(rows, refused, tombstones, large_records)


def _one_line(value: bytes) -> bytes:
    """The same JSON on one line: strings cannot hold raw line breaks, so those here are white space."""
    return value.strip(b"\r\n").replace(b"\n", b" ").replace(b"\r", b" ")
