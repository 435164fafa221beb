"""Keys framed by a schema registry, decoded for the metadata."""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sinkcore.encode.framed import FRAME_BYTES, Framed
from sinkcore.encode.jsontext import depth_of
from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.records import columns_of
from sinkcore.schemas import KINDS, Schema

DEPTH_MAX = 100
"""Levels of a key. What the parser just takes, a writer with more calls above it does not."""
_decode = msgspec.json.Decoder().decode

Read = Callable[[bytes], Any]
"""A key without its frame as JSON's own types, or a Fault."""


class DecodedKeys:
    """The keys of a batch. `fitting` comes first: it takes out the records whose keys cannot be decoded."""

    def __init__(self, batch: Batch) -> None:
        self._sieve = batch.sieve
        self._framed: Framed[Read] = Framed(batch, KINDS, key_reader)
        self._known: dict[str | None, Any] = {None: None}

    def fitting(self, rows: Rows) -> Rows:
        """The rows whose keys can be decoded; the others are refused."""
        keys = list(map(columns_of(rows.events).key, rows.events))
        for key in keys:
            if key is not None and key not in self._known:
                self._known[key] = self._decoded(a2b_base64(key))
        found = map(self._known.__getitem__, keys)
        return self._sieve.without(rows, (each if isinstance(each, Fault) else None for each in found))

    def __call__(self, keys: Sequence[str | None]) -> list[Any]:
        """See Keys."""
        return [self._known[key] for key in keys]

    def _decoded(self, key: bytes) -> Any:
        read = self._framed.of(key[:FRAME_BYTES])
        found = read if isinstance(read, Fault) else read(key[FRAME_BYTES:])
        return Fault(found.reason, f"the key: {found.detail}") if isinstance(found, Fault) else found


def key_reader(schema: Schema) -> Read | Fault:
    """How keys of this schema are read."""
    if schema.kind == "AVRO":
        from sinkcore.encode.avroread import reader_of

        return reader_of(schema)
    from sinkcore.encode.decoded import reader_of as json_reader_of

    read = json_reader_of(schema, True, None)
    if isinstance(read, Fault):
        return read

    def decoded(key: bytes) -> Any:
        text = read(key)
        return text if isinstance(text, Fault) else _parsed(text)

    return decoded


def _parsed(text: bytes) -> Any:
    try:
        found = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Fault("decode_failed", "no JSON")
    except RecursionError:
        return Fault("too_deep", "more levels than the parser takes")
    levels = depth_of(text)
    return found if levels <= DEPTH_MAX else Fault("too_deep", f"{levels} levels; at most {DEPTH_MAX}")
