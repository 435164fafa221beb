"""Records and a route become bodies: what is uploaded as blobs, and what is refused. Pure: no I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sinkcore.encode.bodies import Body
from sinkcore.encode.metadata import keys_as_base64, keys_as_text
from sinkcore.encode.rows import LARGE_RECORD_BYTES, Batch, Encoder, Sieve, rows_of
from sinkcore.records import Refused, Slice
from sinkcore.routes import Route
from sinkcore.schemas import Schemas

__all__ = ["LARGE_RECORD_BYTES", "Body", "Encoded", "encode"]


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
    slices: Sequence[Slice],
    route: Route,
    *,
    segment_id: str,
    record_max_bytes: int,
    blob_max_bytes: int,
    schemas: Schemas | None = None,
) -> Encoded:
    """All records of `slices` as rows of as few bodies as `blob_max_bytes` (unpacked) allows, in their order.

    `schemas` is needed where the route has values or keys framed by a registry.

    Raises:
        TransientError: a schema is not known yet, and who knows it did not answer.
    """
    sieve = Sieve(route, record_max_bytes)
    rows, tombstones = sieve.pass_on(rows_of(slices))
    keys = keys_as_text if route.key == "utf8" else keys_as_base64
    batch = Batch(route, segment_id, blob_max_bytes, keys, sieve, schemas)
    if route.key == "registry":
        from sinkcore.encode.keys import DecodedKeys

        decoded = DecodedKeys(batch)
        rows, tombstones = decoded.fitting(rows), decoded.fitting(tombstones)
        batch = replace(batch, keys=decoded)
    encoder = _encoder_of(batch)
    for chunk in rows.chunks(sieve.passed_bytes):
        encoder.add(chunk)
    for chunk in tombstones.chunks(0):
        encoder.add_tombstones(chunk)
    bodies = encoder.finish()
    sieve.refused.sort(key=_place)
    return Encoded(bodies, sieve.refused, sieve.tombstones, sieve.large_records)


def _encoder_of(batch: Batch) -> Encoder:
    """The route's encoder; each is imported when it is first needed, so that JSON alone pays for no other."""
    codec = batch.route.lane.codec
    if codec == "text":
        from sinkcore.encode.text import Text

        return Text(batch)
    if codec == "avro":
        from sinkcore.encode.avro import Avro

        return Avro(batch)
    if codec == "decoded":
        from sinkcore.encode.decoded import Decoded

        return Decoded(batch)
    assert codec == "jsonlines", codec
    from sinkcore.encode.jsonlines import JsonLines

    return JsonLines(batch)


def _place(refused: Refused) -> tuple[int, int]:
    return refused.record.partition, refused.record.offset
