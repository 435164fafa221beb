"""An Avro value as JSON's own types: for keys, which are few and small. Values of records are never decoded."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from math import isfinite
from typing import Any

from sinkcore.encode.avrobytes import number_at, size_at
from sinkcore.encode.avrowalk import Walker
from sinkcore.encode.framed import remembered
from sinkcore.encode.rows import Fault
from sinkcore.schemas import Schema
from sinkcore.schemas.avro import Node, parse

_STRING = Node("string")
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@remembered
def reader_of(schema: Schema) -> Callable[[bytes], Any] | Fault:
    """A function from bytes to a value, or to a Fault. Logical types stay the numbers that they are; bytes are
    `{"base64": ...}`, and what is no finite number is text."""
    root = parse(schema)
    walker = Walker(root)

    def read(data: bytes) -> Any:
        # What has been walked can be read without a look at its lengths.
        fault = walker.fault(data)
        if fault is not None:
            return fault
        try:
            return _value(root, data, 0)[0]
        except RecursionError:
            return Fault("too_deep", "more levels than can be read")

    return read


def _value(node: Node, data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends."""
    match node.type:
        case "null":
            return None, at
        case "boolean":
            return data[at] == 1, at + 1
        case "int" | "long":
            return number_at(data, at)
        case "float":
            return _finite(*struct.unpack_from("<f", data, at)), at + 4
        case "double":
            return _finite(*struct.unpack_from("<d", data, at)), at + 8
        case "fixed":
            return _base64(data[at : at + node.size]), at + node.size
        case "bytes":
            start, end = size_at(data, at)
            return _base64(data[start:end]), end
        case "string":
            start, end = size_at(data, at)
            return data[start:end].decode(), end
        case "enum":
            symbol, end = number_at(data, at)
            return node.symbols[symbol], end
        case "union":
            branch, start = number_at(data, at)
            return _value(node.branches[branch], data, start)
        case "record":
            return _record(node, data, at)
        case "array":
            return _items(node.content, data, at)
        case _:
            entries, end = _items(Node("record", fields=[("key", _STRING), ("value", node.content)]), data, at)
            return {entry["key"]: entry["value"] for entry in entries}, end


def _record(node: Node, data: bytes, at: int) -> tuple[dict[str, Any], int]:
    found = {}
    for name, of_field in node.fields:
        found[name], at = _value(of_field, data, at)
    return found, at


def _items(node: Node, data: bytes, at: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while True:
        count, at = number_at(data, at)
        if count == 0:
            return found, at
        if count < 0:
            _, at = number_at(data, at)
        for _ in range(abs(count)):
            value, at = _value(node, data, at)
            found.append(value)


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def _finite(number: float) -> float | str:
    return number if isfinite(number) else _NOT_FINITE[str(number)]
