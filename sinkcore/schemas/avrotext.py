"""Avro schemas written again: for a file's header, and in the canonical form that has a fingerprint."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from sinkcore.schemas.avro import Node

_EMPTY = 0xC15D213AA4D7A795


def to_json(node: Node) -> Any:
    """The schema with all that a reader needs to read by it, and nothing else, as JSON's own types.

    Types without a namespace get the root's: inside one that has a namespace, their names would not mean them.
    """
    return _write(node, node.name.rpartition(".")[0], set(), logical=True)


def fingerprint(node: Node) -> bytes:
    """The CRC-64-AVRO fingerprint of the schema's canonical form, as single-object encoding has it: 8 bytes.

    Source: the Avro specification, "Parsing Canonical Form for Schemas" and "Schema Fingerprints".
    """
    table = _table()
    found = _EMPTY
    for byte in msgspec.json.encode(_write(node, "", set(), logical=False)):
        found = (found >> 8) ^ table[(found ^ byte) & 0xFF]
    return found.to_bytes(8, "little")


def _write(node: Node, namespace: str, seen: set[int], *, logical: bool) -> Any:
    def inner(other: Node) -> Any:
        return _write(other, namespace, seen, logical=logical)

    if node.type == "union":
        return [inner(branch) for branch in node.branches]
    full = node.name if "." in node.name or not namespace else f"{namespace}.{node.name}"
    if node.name and id(node) in seen:
        return full
    seen.add(id(node))
    extra = node.logical if logical else {}
    # In the order that the canonical form wants: name, type, fields, symbols, items, values, size.
    if node.type == "record":
        fields = [{"name": name, "type": inner(of_field)} for name, of_field in node.fields]
        return {"name": full, "type": "record", "fields": fields, **extra}
    if node.type == "enum":
        return {"name": full, "type": "enum", "symbols": node.symbols, **extra}
    if node.type == "fixed":
        return {"name": full, "type": "fixed", "size": node.size, **extra}
    if node.type == "array":
        return {"type": "array", "items": inner(node.content), **extra}
    if node.type == "map":
        return {"type": "map", "values": inner(node.content), **extra}
    return {"type": node.type, **extra} if extra else node.type


@cache
def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY & -(value & 1))
        table.append(value)
    return table
