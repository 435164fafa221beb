"""Records and a route become bodies: what is uploaded as blobs, and what is refused. Pure: no I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sinkcore.records import Refused, Slice
from sinkcore.routes import Route


@dataclass(frozen=True, slots=True)
class Body:
    """One blob to be: a single gzip member of `rows` JSON lines, `raw_size_bytes` long when unpacked."""

    data: bytes
    raw_size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a batch: every record is in `bodies`, in `refused`, or counted in `tombstones`.

    `large_records` counts accepted records of 1 MiB and more, where ADX truncates strings and drops `dynamic`
    values.
    """

    bodies: list[Body]
    refused: list[Refused]
    tombstones: int
    large_records: int


def encode(
    slices: Sequence[Slice], route: Route, *, segment_id: str, record_max_bytes: int, blob_max_bytes: int
) -> Encoded:
    """All records of `slices` as rows of as few bodies as `blob_max_bytes` (unpacked) allows."""
    raise NotImplementedError
