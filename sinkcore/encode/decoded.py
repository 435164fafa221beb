"""Values whose schema says what they are, Protobuf or JSON, as JSON lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sinkcore.encode.bodies import Body
from sinkcore.encode.framed import Framed
from sinkcore.encode.jsonlines import JsonLines
from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.schemas import Schema
from sinkcore.schemas.files import type_of

Read = Callable[[bytes], bytes | Fault]
"""A value without its frame as JSON text that has yet to be checked, or why it is refused."""


class Decoded:
    """An Encoder: one JSON object a line. What it makes is checked and written as JSON that came as such."""

    def __init__(self, batch: Batch) -> None:
        route = batch.route
        own_type = None if route.schema is None else type_of(route.schema)
        self._sieve = batch.sieve
        self._lines = JsonLines(batch)
        self._framed: Framed[Read] = Framed(
            batch, route.lane.kinds, lambda schema: reader_of(schema, route.validate, own_type)
        )

    def add(self, rows: Rows) -> None:
        """See Encoder."""
        for reader, part in self._framed.parts(rows):
            found: list[Any] = list(map(reader, part.values))
            faults = [each if isinstance(each, Fault) else None for each in found]
            kept = self._sieve.without(part.with_values(found), faults)
            if kept.values:
                self._lines.add(kept)

    def add_tombstones(self, rows: Rows) -> None:
        """See Encoder."""
        self._lines.add_tombstones(rows)

    def finish(self) -> list[Body]:
        """See Encoder."""
        return self._lines.finish()


def reader_of(schema: Schema, validate: bool, own_type: str | None) -> Read | Fault:
    """How values of a schema are read; `own_type` names the message type where no registry's frame does."""
    if schema.kind == "PROTOBUF":
        from sinkcore.encode.protobuf import own_writer, writer_of

        return writer_of(schema) if own_type is None else own_writer(schema.text, own_type)
    if not validate:
        return lambda value: value
    from sinkcore.encode.jsonschema import check_of

    check = check_of(schema)
    return check if isinstance(check, Fault) else lambda value: check(value) or value
