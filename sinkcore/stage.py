"""Records become a segment whose bodies lie in the staging container; nothing refers to them yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Literal

from sinkcore.clock import Clock
from sinkcore.deadletters import NAME as DEAD_LETTERS_NAME
from sinkcore.deadletters import encode_dead_letters
from sinkcore.drift import Drift
from sinkcore.encode import Body, encode
from sinkcore.errors import RecordError
from sinkcore.lanes import SUFFIXES
from sinkcore.records import OffsetRange, Refused, Slice
from sinkcore.routes import Route
from sinkcore.routing import Part, router_of
from sinkcore.schemas import Schemas
from sinkcore.segment import ERROR_MAX_CHARS, Blob, Segment, blob_path, blobs_to_json, source_id_of
from sinkcore.settings import Settings
from sinkcore.staging import Blobs
from sinkcore.table import PROPERTY_MAX_CHARS
from sinkcore.telemetry import event


@dataclass(frozen=True, slots=True)
class Staged:
    """A segment whose bodies lie in the staging container, with their content by path."""

    segment: Segment
    bodies: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Stage:
    """What staging needs beside the records."""

    settings: Settings
    blobs: Blobs
    clock: Clock
    executor: Executor
    new_id: Callable[[int], str]
    schemas: Schemas | None = None
    drift: Drift = field(default_factory=Drift)
    token: str = ""

    def stage(self, topic: str, slices: Sequence[Slice], ranges: tuple[OffsetRange, ...]) -> Staged | None:
        """The records as a segment with these ranges, its bodies uploaded; None if it would have too many blobs.

        Each table that a route leads to gets a body, for all partitions together, and all dead letters get one.

        Raises:
            RecordError: a record was refused and SINK_ON_BAD_RECORD is `fail`.
            TransientError: storage did not take a body, or the schema registry did not answer.
        """
        segment_id = self.new_id(self.clock.now_ms())
        settings = self.settings
        routed = router_of(settings.routes_of(topic)).split(slices, settings.record_max_bytes)
        blobs: list[Blob] = []
        bodies: dict[str, bytes] = {}
        refused, large_records = routed.refused, 0
        for part in routed.parts:
            encoded = encode(
                part.slices,
                part.route,
                segment_id=segment_id,
                record_max_bytes=settings.record_max_bytes,
                blob_max_bytes=settings.blob_max_bytes,
                schemas=self.schemas,
            )
            self.drift.look(part.route, part.slices, self.schemas)
            refused += [(part.route, each) for each in encoded.refused]
            large_records += encoded.large_records
            for body in encoded.bodies:
                blobs.append(self._rows_blob(topic, segment_id, len(blobs), part, body))
                bodies[blobs[-1].path] = body.data
        self._check(topic, [each for _, each in refused], large_records)
        if refused:
            refused.sort(key=_place)
            letters = encode_dead_letters(refused, self.clock.now_ms())
            path = blob_path(topic, segment_id, f"/dead-letters{self.token}{DEAD_LETTERS_NAME}")
            blobs.append(self._blob("dead_letters", path, letters))
            bodies[path] = letters.data
        # ADX's codes may be added to each of them.
        if len(blobs_to_json(tuple(blobs))) + len(blobs) * ERROR_MAX_CHARS > PROPERTY_MAX_CHARS:
            return None
        self._upload(bodies)
        records = sum(len(piece.offsets) for piece in slices)
        segment = Segment(segment_id, topic, ranges, tuple(blobs), records, len(refused))
        return Staged(segment, bodies)

    def _check(self, topic: str, refused: Sequence[Refused], large_records: int) -> None:
        """The batch may go on: no record was refused, or the app is set to go on without those."""
        if large_records:
            event("large_records", logging.WARNING, topic=topic, records=large_records)
        if self.settings.on_bad_record != "fail":
            return
        bad = [each for each in refused if each.reason != "tombstone"]
        if bad:
            first = bad[0]
            partition, offset = first.record.partition, first.record.offset
            raise RecordError(
                f"{topic}: {len(bad)} records refused, the first at partition {partition} offset {offset}: "
                f"{first.reason}, {first.detail}; mend the producer and give the record up (sinkctl skip {topic} "
                f"--partition {partition} --offset {offset}), or set SINK_ON_BAD_RECORD=dead_letter"
            )

    def _upload(self, bodies: Mapping[str, bytes]) -> None:
        def put(path: str) -> None:
            self.blobs.put(self.settings.staging_container, path, bodies[path])

        # A hop through the executor costs more than it saves for a single body.
        for _ in map(put, bodies) if len(bodies) < 2 else self.executor.map(put, bodies):
            pass

    def _rows_blob(self, topic: str, segment_id: str, index: int, part: Part, body: Body) -> Blob:
        route = part.route
        return self._blob(
            "rows",
            blob_path(topic, segment_id, f"/{index}{self.token}{SUFFIXES[route.stored_format]}"),
            body,
            db=route.db,
            table=route.table,
            format=route.stored_format,
            mapping=route.mapping,
            metadata=route.metadata,
            route=part.digest,
            source_id=source_id_of(segment_id, index),
        )

    def _blob(self, kind: Literal["rows", "dead_letters"], path: str, body: Body, **aim: Any) -> Blob:
        container, stored_size_bytes = self.settings.staging_container, len(body.data)
        return Blob(kind, container, path, body.rows, body.raw_size_bytes, stored_size_bytes, **aim)


def _place(letter: tuple[Route | None, Refused]) -> tuple[int, int]:
    return letter[1].record.partition, letter[1].record.offset
