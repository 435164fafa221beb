"""Kafka's coordinates as the last field of an Avro record: its schema, and its bytes behind the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sinkcore.encode.avrobytes import long, sized
from sinkcore.encode.metadata import Keys, metadata_of
from sinkcore.encode.rows import Rows
from sinkcore.routes import Route

_NAMESPACE = "kafka_adx_sink"
_BASE64 = {
    "type": "record",
    "name": "Base64",
    "namespace": _NAMESPACE,
    "fields": [{"name": "base64", "type": "string"}],
}
_TEXT = ["null", "string", f"{_NAMESPACE}.Base64"]
SCHEMA: Mapping[str, Any] = {
    "type": "record",
    "name": "Metadata",
    "namespace": _NAMESPACE,
    "fields": [
        {"name": "topic", "type": "string"},
        {"name": "partition", "type": "int"},
        {"name": "offset", "type": "long"},
        {"name": "timestamp", "type": ["null", "string"]},
        {"name": "segment", "type": "string"},
        {"name": "key", "type": ["null", "string", _BASE64]},
        {"name": "headers", "type": {"type": "map", "values": [*_TEXT, {"type": "array", "items": _TEXT}]}},
    ],
}
"""The contract's object. A key that was decoded is a string: text as it is, anything else as JSON."""

NAMES = (f"{_NAMESPACE}.Metadata", f"{_NAMESPACE}.Base64")
"""Of its types: no other type of the file can be called so."""


class Appender:
    """Writes the metadata of one route's and segment's records."""

    def __init__(self, route: Route, segment_id: str, keys: Keys) -> None:
        self._topic = sized(route.topic.encode())
        self._segment = sized(segment_id.encode())
        self._keys = keys

    def endings(self, rows: Rows) -> list[bytes]:
        """What follows the bytes of each row."""
        metadata = metadata_of(rows.events, self._keys)
        beginnings = {partition: self._topic + long(partition) for partition in set(rows.partitions)}
        columns = (rows.partitions, rows.offsets, metadata.times, metadata.keys, metadata.headers)
        return [
            b"%b%b%b%b%b%b"
            % (
                beginnings[partition],
                long(offset),
                _text(time),
                self._segment,
                _text(key),
                _headers(headers) if headers else b"\x00",
            )
            for partition, offset, time, key, headers in zip(*columns, strict=True)
        ]


def _text(value: object) -> bytes:
    """A branch of `_TEXT`, and its value."""
    if value is None:
        return b"\x00"
    if isinstance(value, str):
        return b"\x02" + sized(value.encode())
    if isinstance(value, dict) and value.keys() == {"base64"}:
        return b"\x04" + sized(value["base64"].encode())
    return b"\x02" + sized(msgspec.json.encode(value))


def _headers(headers: Mapping[str, Any]) -> bytes:
    parts = [long(len(headers))]
    for name, value in headers.items():
        parts.append(sized(name.encode()))
        if isinstance(value, list):
            parts += [b"\x06", long(len(value)), *map(_text, value), b"\x00"]
        else:
            parts.append(_text(value))
    return b"".join([*parts, b"\x00"])
