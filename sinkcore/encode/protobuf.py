"""Values that are Protobuf, as JSON text by the proto3 JSON mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from sinkcore.encode.avrobytes import INT_BYTES_MAX, Misfit, number_at
from sinkcore.encode.framed import remembered
from sinkcore.encode.protojson import Converters
from sinkcore.encode.rows import Fault
from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.protobuf import Messages

_INDEXES_MAX = 100
_to_json = msgspec.json.encode

Write = Callable[[bytes], bytes | Fault]
"""A value without its frame as JSON text, or why it has none."""


@remembered
def writer_of(schema: Schema) -> Write | Fault:
    """How values behind a registry's frame are read: they begin with the indexes of their type."""
    messages = Messages.of_schema(schema)
    converters = Converters(messages.pool)
    # Only those that exist are kept, so that broken records cannot fill the memory.
    by_indexes: dict[tuple[int, ...], Write] = {}

    def write(value: bytes) -> bytes | Fault:
        try:
            # Most values have the one index 0, in its short form.
            indexes, end = ((0,), 1) if value[:1] == b"\x00" else _indexes_at_start(value)
        except (IndexError, Misfit):
            return Fault("decode_failed", f"{len(value)} bytes behind the frame hold no message indexes")
        if indexes not in by_indexes:
            kind = messages.at(indexes)
            if kind is None:
                return Fault("decode_failed", "message indexes that its schema does not have")
            by_indexes[indexes] = _write_as(kind, converters)
        return by_indexes[indexes](value[end:])

    return write


@remembered
def own_writer(text: str, name: str) -> Write | Fault:
    """How bare values of the message type `name` are read, of a descriptor set in base64."""
    messages = Messages.of_set(text)
    kind = messages.named(name)
    if kind is None:
        raise SchemaError("it has no message type of the name behind #")
    return _write_as(kind, Converters(messages.pool))


def _write_as(kind: type[Message], converters: Converters) -> Write:
    parse, convert = kind.FromString, converters.of(cast(Descriptor, kind.DESCRIPTOR))

    def write(value: bytes) -> bytes | Fault:
        try:
            return _to_json(convert(parse(value)))
        except DecodeError:
            return Fault("decode_failed", f"{len(value)} bytes that are no message of its type, or one too deep")
        except (ValueError, TypeError, AttributeError, LookupError, json_format.Error):
            # The third and fourth where a schema's own well-known type lacks what that type has.
            return Fault("validation_failed", "a field holds what JSON cannot say")
        except RecursionError:
            return Fault("too_deep", "more levels than can be written")

    return write


def _indexes_at_start(value: bytes) -> tuple[tuple[int, ...], int]:
    """The message indexes, and where they end.

    Source: Confluent's wire format: their count, then each of them, in zigzag.
    """
    count, end = number_at(value, 0, INT_BYTES_MAX)
    if not 0 <= count <= _INDEXES_MAX:
        raise Misfit(f"{count} message indexes", 0)
    indexes = []
    for _ in range(count):
        index, end = number_at(value, end, INT_BYTES_MAX)
        indexes.append(index)
    return tuple(indexes) or (0,), end
