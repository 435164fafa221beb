"""Values that are Avro: their bytes are checked against their schema and put into files of that schema."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from sinkcore.encode.avrofile import SYNC_BYTES, AvroWriter
from sinkcore.encode.avrometadata import NAMES, SCHEMA, Appender
from sinkcore.encode.avrowalk import Walker
from sinkcore.encode.bodies import Body
from sinkcore.encode.framed import frames_in, schema_of
from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.avro import Node, parse
from sinkcore.schemas.avrotext import fingerprint, to_json
from sinkcore.schemas.files import read_own

_SCHEMAS_KEPT = 1024
_SINGLE_OBJECT = b"\xc3\x01"


@dataclass(frozen=True, slots=True)
class Target:
    """What records of one schema become: `header` is the schema of the file that they go to."""

    walker: Walker
    header: bytes
    single_object: bytes


@lru_cache(maxsize=_SCHEMAS_KEPT)
def target_of(schema: Schema, format_: str, metadata: str | None) -> Target | Fault:
    """The target of a schema, with metadata in a field of that name; or why its records are refused.

    Only the reader of `apacheavro` knows logical types: to the other one they are the numbers and bytes that they
    are, which can be any.
    """
    try:
        root = parse(schema, logical=format_ == "apacheavro")
        if root.type != "record":
            return Fault("not_an_object", f"the schema's top level is of type {root.type}")
        if metadata in [name for name, _ in root.fields]:
            return Fault("metadata_conflict", "the schema has the route's metadata field already")
        return Target(Walker(root), _header(root, metadata), _SINGLE_OBJECT + fingerprint(root))
    except SchemaError as error:
        return Fault("decode_failed", f"its schema cannot be used: {error}")
    except RecursionError:
        return Fault("decode_failed", "its schema cannot be used: it is nested too deep")


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
        self._validate = route.validate
        self._appender = None if route.metadata is None else Appender(route, batch.segment_id, batch.keys)
        self._writers: dict[bytes, AvroWriter] = {}
        self._targets: dict[int, Target | Fault] = {}

    def add(self, rows: Rows) -> None:
        """See Encoder. What is good as a whole is not looked at record by record."""
        for target, part in self._parts(rows):
            if isinstance(target, Fault):
                self._batch.sieve.refuse_all(part, target)
            else:
                self._take(target, part)

    def add_tombstones(self, rows: Rows) -> None:
        """See Encoder. Their file has a schema of metadata alone."""
        assert self._batch.route.metadata is not None, "settings want metadata for such rows"
        alone = _header(Node("record", "Tombstone"), self._batch.route.metadata)
        self._write(alone, rows.with_values([b""] * len(rows.values)))

    def finish(self) -> list[Body]:
        """See Encoder."""
        return [body for writer in self._writers.values() for body in writer.finish()]

    def _parts(self, rows: Rows) -> Iterator[tuple[Target | Fault, Rows]]:
        """The rows by target, their values without frames."""
        route = self._batch.route
        if route.schema is None:
            for schema_id, part in frames_in(rows):
                yield (schema_id if isinstance(schema_id, Fault) else self._target(schema_id)), part
            return
        target = target_of(read_own(route.schema), route.format, route.metadata)
        if isinstance(target, Target):
            marked = len(target.single_object)
            rows = rows.with_values([v[marked:] if v.startswith(target.single_object) else v for v in rows.values])
        yield target, rows

    def _target(self, schema_id: int) -> Target | Fault:
        if schema_id not in self._targets:
            route = self._batch.route
            schema = schema_of(self._batch, schema_id, route.lane.kinds)
            self._targets[schema_id] = (
                schema if isinstance(schema, Fault) else target_of(schema, route.format, route.metadata)
            )
        return self._targets[schema_id]

    def _take(self, target: Target, rows: Rows) -> None:
        if self._validate and not target.walker.fit(rows.values):
            rows = self._fitting(target.walker, rows)
        if rows.values:
            self._write(target.header, rows)

    def _fitting(self, walker: Walker, rows: Rows) -> Rows:
        kept = []
        for number, value in enumerate(rows.values):
            fault = walker.fault(value)
            if fault is None:
                kept.append(number)
                continue
            if self._batch.route.schema is not None and value.startswith(_SINGLE_OBJECT):
                fault = Fault("unknown_schema", "single-object encoding, by another schema than the route's")
            self._batch.sieve.refuse(rows, number, fault)
        return rows.at(kept)

    def _write(self, header: bytes, rows: Rows) -> None:
        writer = self._writers.get(header)
        if writer is None:
            # The same batch makes the same bytes; what ends a block is no secret, only unlikely.
            sync = hashlib.sha256(self._batch.segment_id.encode() + header).digest()[:SYNC_BYTES]
            writer = self._writers[header] = AvroWriter(header, sync, self._batch.blob_max_bytes)
        writer.add(rows.values if self._appender is None else _joined(rows.values, self._appender.endings(rows)))


def _joined(values: Sequence[bytes], endings: Sequence[bytes]) -> list[bytes]:
    return [value + ending for value, ending in zip(values, endings, strict=True)]
