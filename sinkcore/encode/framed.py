"""Values behind a schema registry's frame: which schema each one names, and what lies in the frame.

Source: Confluent's wire format: a zero, the schema's id in four bytes, then the value.
"""

from __future__ import annotations

from collections.abc import Iterator

from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.schemas import Schema

FRAME_BYTES = 5


def frames_in(rows: Rows) -> Iterator[tuple[int | Fault, Rows]]:
    """The rows by schema id, without their frames; or as they are, and why no frame could be taken off.

    Each id comes once, in the order of its first row.
    """
    heads = [value[:FRAME_BYTES] for value in rows.values]
    if len(set(heads)) == 1:
        yield _unframed(heads[0], rows)
        return
    numbers: dict[bytes, list[int]] = {}
    for number, head in enumerate(heads):
        numbers.setdefault(head, []).append(number)
    for head, same in numbers.items():
        yield _unframed(head, rows.at(same))


def _unframed(head: bytes, rows: Rows) -> tuple[int | Fault, Rows]:
    if len(head) < FRAME_BYTES:
        return Fault("decode_failed", f"{len(head)} bytes; a registry's frame alone has {FRAME_BYTES}"), rows
    if head[0] != 0:
        return Fault("decode_failed", "the first byte is not the 0 of a registry's frame"), rows
    values = [value[FRAME_BYTES:] for value in rows.values]
    return int.from_bytes(head[1:], "big"), rows.with_values(values)


def schema_of(batch: Batch, schema_id: int, kinds: tuple[str, ...]) -> Schema | Fault:
    """The schema of that id, if it is of one of these kinds."""
    assert batch.schemas is not None, "settings want a registry for such routes"
    schema = batch.schemas.schema(schema_id)
    if schema is None:
        return Fault("unknown_schema", f"the registry has no schema {schema_id}")
    if schema.kind not in kinds:
        return Fault("decode_failed", f"schema {schema_id} is {schema.kind}; this format takes {', '.join(kinds)}")
    return schema
