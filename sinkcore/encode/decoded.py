"""Values whose schema says what they are, Protobuf or JSON, as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sinkcore.encode.bodies import Body
from sinkcore.encode.framed import frames_in, schema_of
from sinkcore.encode.jsonlines import JsonLines
from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.schemas import Schema
from sinkcore.schemas.files import read_own, type_of

Read = Callable[[bytes], bytes | Fault]
"""A value without its frame as JSON text that has yet to be checked, or why it is refused."""


class Decoded:
    """An Encoder: one JSON object a line. What it makes is checked and written as JSON that came as such."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._lines = JsonLines(batch)
        self._readers: dict[int, Read | Fault] = {}

    def add(self, rows: Rows) -> None:
        """See Encoder."""
        for reader, part in self._parts(rows):
            if isinstance(reader, Fault):
                self._batch.sieve.refuse_all(part, reader)
            else:
                self._take(reader, part)

    def add_tombstones(self, rows: Rows) -> None:
        """See Encoder."""
        self._lines.add_tombstones(rows)

    def finish(self) -> list[Body]:
        """See Encoder."""
        return self._lines.finish()

    def _parts(self, rows: Rows) -> Iterator[tuple[Read | Fault, Rows]]:
        """The rows by schema, their values without frames."""
        route = self._batch.route
        if route.schema is not None:
            yield reader_of(read_own(route.schema), route.validate, type_of(route.schema)), rows
            return
        for schema_id, part in frames_in(rows):
            yield (schema_id if isinstance(schema_id, Fault) else self._reader(schema_id)), part

    def _reader(self, schema_id: int) -> Read | Fault:
        if schema_id not in self._readers:
            schema = schema_of(self._batch, schema_id, self._batch.route.lane.kinds)
            self._readers[schema_id] = (
                schema if isinstance(schema, Fault) else reader_of(schema, self._batch.route.validate, None)
            )
        return self._readers[schema_id]

    def _take(self, reader: Read, rows: Rows) -> None:
        values, kept = [], []
        for number, found in enumerate(map(reader, rows.values)):
            if isinstance(found, Fault):
                self._batch.sieve.refuse(rows, number, found)
            else:
                kept.append(number)
                values.append(found)
        if values:
            self._lines.add((rows if len(kept) == len(rows.values) else rows.at(kept)).with_values(values))


def reader_of(schema: Schema, validate: bool, own_type: str | None) -> Read | Fault:
    """How values of a schema are read; `own_type` names the message type where no registry's frame does."""
    if schema.kind == "PROTOBUF":
        from sinkcore.encode.protobuf import own_writer, writer_of

        return writer_of(schema) if own_type is None else own_writer(schema.text, own_type)
    if not validate:
        return _as_it_is
    from sinkcore.encode.jsonschema import check_of

    check = check_of(schema)
    return check if isinstance(check, Fault) else lambda value: check(value) or value


def _as_it_is(value: bytes) -> bytes:
    return value
