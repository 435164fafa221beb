"""Values that are Avro: their bytes are checked against their schema and put into files of that schema."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import add

import msgspec

from sinkcore.encode.avrofile import SYNC_BYTES, AvroFile
from sinkcore.encode.avrometadata import NAMES, SCHEMA, Appender
from sinkcore.encode.avrowalk import Walker
from sinkcore.encode.bodies import Body, BodyWriter
from sinkcore.encode.framed import Framed, remembered
from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.schemas import Schema
from sinkcore.schemas.avro import Node, parse
from sinkcore.schemas.avrotext import fingerprint, to_json

_SINGLE_OBJECT = b"\xc3\x01"


@dataclass(frozen=True, slots=True)
class Target:
    """What records of one schema become: `header` is the schema of the file that they go to."""

    root: Node
    walker: Walker
    header: bytes


@remembered
def target_of(schema: Schema, format_: str, metadata: str | None) -> Target | Fault:
    """The target of a schema, with metadata in a field of that name; or why its records are refused.

    Only the reader of `apacheavro` knows logical types: to the other one they are the numbers and bytes that they
    are, which can be any.
    """
    root = parse(schema, logical=format_ == "apacheavro")
    if root.type != "record":
        return Fault("not_an_object", f"the schema's top level is of type {root.type}")
    if metadata in [name for name, _ in root.fields]:
        return Fault("metadata_conflict", "the schema has the route's metadata field already")
    return Target(root, Walker(root), _header(root, metadata))


def _header(root: Node, metadata: str | None) -> bytes:
    text = to_json(root, () if metadata is None else NAMES)
    if metadata is not None:
        text["fields"].append({"name": metadata, "type": SCHEMA})
    return msgspec.json.encode(text)


class Avro:
    """An Encoder: records of Avro, one file for each schema."""

    def __init__(self, batch: Batch) -> None:
        route = batch.route
        self._batch = batch
        self._appender = None if route.metadata is None else Appender(route, batch.segment_id, batch.keys)
        self._writers: dict[bytes, BodyWriter] = {}
        self._framed: Framed[Target] = Framed(
            batch, route.lane.kinds, lambda schema: target_of(schema, route.format, route.metadata)
        )

    def add(self, rows: Rows) -> None:
        """See Encoder. What is good as a whole is not looked at record by record."""
        route = self._batch.route
        for target, part in self._framed.parts(rows):
            if route.schema is not None:
                mark = _SINGLE_OBJECT + fingerprint(target.root)
                part = part.with_values([v[len(mark) :] if v.startswith(mark) else v for v in part.values])
            if route.validate and not target.walker.fit(part.values):
                faults = [self._fault_of(target.walker, value) for value in part.values]
                part = self._batch.sieve.without(part, faults)
            if part.values:
                self._write(target.header, part)

    def add_tombstones(self, rows: Rows) -> None:
        """See Encoder. Their file has a schema of metadata alone."""
        assert self._batch.route.metadata is not None, "settings want metadata for such rows"
        self._write(_header(Node("record", "Tombstone"), self._batch.route.metadata), rows)

    def finish(self) -> list[Body]:
        """See Encoder."""
        return [body for writer in self._writers.values() for body in writer.finish()]

    def _fault_of(self, walker: Walker, value: bytes) -> Fault | None:
        fault = walker.fault(value)
        if fault is not None and self._batch.route.schema is not None and value.startswith(_SINGLE_OBJECT):
            return Fault("unknown_schema", "single-object encoding, by another schema than the route's")
        return fault

    def _write(self, header: bytes, rows: Rows) -> None:
        if header not in self._writers:
            # The same batch makes the same bytes; what ends a block is no secret, only unlikely.
            sync = hashlib.sha256(self._batch.segment_id.encode() + header).digest()[:SYNC_BYTES]
            self._writers[header] = BodyWriter(self._batch.blob_max_bytes, partial(AvroFile, header, sync))
        records: Sequence[bytes] = rows.values
        if self._appender is not None:
            records = list(map(add, records, self._appender.endings(rows)))
        self._writers[header].add_rows(records)
