"""Values that are Protobuf, as JSON text by the proto3 JSON mapping."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import msgspec
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from sinkcore.encode.avrobytes import Misfit, number_at
from sinkcore.encode.protojson import Converters
from sinkcore.encode.rows import Fault
from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.protobuf import Messages

_INDEXES_MAX = 100
_SCHEMAS_KEPT = 1024
_to_json = msgspec.json.encode

Write = Callable[[bytes], bytes | Fault]
"""A value without its frame as JSON text, or why it has none."""


@lru_cache(maxsize=_SCHEMAS_KEPT)
def writer_of(schema: Schema) -> Write | Fault:
    """How values behind a registry's frame are read: they begin with the indexes of their type."""
    try:
        messages = Messages(schema)
    except SchemaError as error:
        return Fault("decode_failed", f"its schema cannot be used: {error}")
    except RecursionError:
        return Fault("decode_failed", "its schema cannot be used: it is nested too deep")
    converters = Converters(messages.pool)
    by_head: dict[bytes, Write | Fault] = {}

    def write(value: bytes) -> bytes | Fault:
        # Most values have the one index 0, in its short form.
        head = b"\x00" if value[:1] == b"\x00" else _head_of(value)
        if isinstance(head, Fault):
            return head
        found = by_head.get(head)
        if found is None:
            kind = messages.at(_indexes_in(head))
            found = Fault("decode_failed", "message indexes that its schema does not have")
            if kind is not None:
                # Only those that exist are kept, so that broken records cannot fill the memory.
                found = by_head[head] = _write_as(kind, converters)
        return found if isinstance(found, Fault) else found(value[len(head) :])

    return write


@lru_cache(maxsize=_SCHEMAS_KEPT)
def own_writer(text: str, name: str) -> Write:
    """How bare values of the message type `name` are read, of a descriptor set in base64.

    Raises:
        SchemaError: the set cannot be used, or has no such type.
    """
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


def _head_of(value: bytes) -> bytes | Fault:
    """The bytes of the message indexes. Source: Confluent's wire format: their count, then each, in zigzag."""
    try:
        count, end = number_at(value, 0, 5)
        if not 0 <= count <= _INDEXES_MAX:
            return Fault("decode_failed", f"{count} message indexes; at most {_INDEXES_MAX}")
        for _ in range(count):
            _, end = number_at(value, end, 5)
    except (IndexError, Misfit):
        return Fault("decode_failed", f"{len(value)} bytes behind the frame hold no message indexes")
    return value[:end]


def _indexes_in(head: bytes) -> list[int]:
    count, at = number_at(head, 0)
    indexes = []
    for _ in range(count):
        index, at = number_at(head, at)
        indexes.append(index)
    return indexes or [0]
