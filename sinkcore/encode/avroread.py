"""An Avro value as JSON's own types: for keys, which are few and small. Values of records are never decoded."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from math import isfinite
from typing import Any

from sinkcore.encode.avrobytes import number_at, size_at
from sinkcore.encode.avrowalk import Walker
from sinkcore.encode.rows import Fault
from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.avro import Node, parse

Value = tuple[Any, int]
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def reader_of(schema: Schema) -> Callable[[bytes], Any] | Fault:
    """A function from bytes to a value, or to a Fault. Logical types stay the numbers that they are; bytes are
    `{"base64": ...}`, and what is no finite number is text."""
    try:
        root = parse(schema)
        walker = Walker(root)
    except SchemaError as error:
        return Fault("decode_failed", f"its schema cannot be used: {error}")
    except RecursionError:
        return Fault("decode_failed", "its schema cannot be used: it is nested too deep")

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


def _value(node: Node, data: bytes, at: int) -> Value:
    return _READERS[node.type](node, data, at)


def _record(node: Node, data: bytes, at: int) -> Value:
    found = {}
    for name, of_field in node.fields:
        found[name], at = _value(of_field, data, at)
    return found, at


def _union(node: Node, data: bytes, at: int) -> Value:
    branch, at = number_at(data, at)
    return _value(node.branches[branch], data, at)


def _enum(node: Node, data: bytes, at: int) -> Value:
    symbol, at = number_at(data, at)
    return node.symbols[symbol], at


def _blocks(data: bytes, at: int, take: Callable[[int], int]) -> int:
    """Where the items end; `take` reads one of them."""
    while True:
        count, at = number_at(data, at)
        if count == 0:
            return at
        if count < 0:
            _, at = number_at(data, at)
        for _ in range(abs(count)):
            at = take(at)


def _array(node: Node, data: bytes, at: int) -> Value:
    found: list[Any] = []

    def take(at: int) -> int:
        value, end = _value(node.content, data, at)
        found.append(value)
        return end

    return found, _blocks(data, at, take)


def _map(node: Node, data: bytes, at: int) -> Value:
    found: dict[str, Any] = {}

    def take(at: int) -> int:
        name, end = _string(node, data, at)
        found[name], end = _value(node.content, data, end)
        return end

    end = _blocks(data, at, take)
    return found, end


def _string(_: Node, data: bytes, at: int) -> Value:
    start, end = size_at(data, at)
    return data[start:end].decode(), end


def _bytes(_: Node, data: bytes, at: int) -> Value:
    start, end = size_at(data, at)
    return _base64(data[start:end]), end


def _fixed(node: Node, data: bytes, at: int) -> Value:
    return _base64(data[at : at + node.size]), at + node.size


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def _number(form: str) -> Callable[[Node, bytes, int], Value]:
    size = struct.calcsize(form)

    def read(_: Node, data: bytes, at: int) -> Value:
        (number,) = struct.unpack_from(form, data, at)
        return (number if isfinite(number) else _NOT_FINITE[str(number)]), at + size

    return read


_READERS: dict[str, Callable[[Node, bytes, int], Value]] = {
    "null": lambda _, __, at: (None, at),
    "boolean": lambda _, data, at: (data[at] == 1, at + 1),
    "int": lambda _, data, at: number_at(data, at),
    "long": lambda _, data, at: number_at(data, at),
    "float": _number("<f"),
    "double": _number("<d"),
    "bytes": _bytes,
    "string": _string,
    "fixed": _fixed,
    "enum": _enum,
    "array": _array,
    "map": _map,
    "record": _record,
    "union": _union,
}
