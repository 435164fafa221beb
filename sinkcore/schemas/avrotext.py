"""Avro schemas written again: for a file's header, and in the canonical form that has a fingerprint."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import Any

import msgspec

from sinkcore.schemas.avro import Node

_EMPTY = 0xC15D213AA4D7A795
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.]|(?<![^.])(?=[0-9.]|\Z)")


def to_json(node: Node, taken: Collection[str] = ()) -> Any:
    """The schema with all that a reader needs to read by it, and nothing else, as JSON's own types.

    Types without a namespace get the root's: inside one that has a namespace, their names would not mean them.
    A type whose name is then another one's, or `taken`, gets underscores behind it; so do letters that names in
    Avro cannot have, for some readers give up there.
    """
    return _write(node, _Names(node.name.rpartition(".")[0], taken), canonical=False)


def fingerprint(node: Node) -> bytes:
    """The CRC-64-AVRO fingerprint of the schema's canonical form, as single-object encoding has it: 8 bytes.

    Source: the Avro specification, "Parsing Canonical Form for Schemas" and "Schema Fingerprints".
    """
    table = _table()
    found = _EMPTY
    for byte in msgspec.json.encode(_write(node, _Names("", None), canonical=True)):
        found = (found >> 8) ^ table[(found ^ byte) & 0xFF]
    return found.to_bytes(8, "little")


class _Names:
    """The names under which types are written: each has one of its own, or the schema's where none are `taken`."""

    def __init__(self, namespace: str, taken: Collection[str] | None) -> None:
        self._namespace = namespace
        self._taken = None if taken is None else set(taken)
        self.known: dict[int, str] = {}

    def add(self, node: Node) -> str:
        """The name of a type that was not written before."""
        self.known[id(node)] = node.name if self._taken is None else self._new(node.name, self._taken)
        return self.known[id(node)]

    def _new(self, name: str, taken: set[str]) -> str:
        full = name if "." in name or not self._namespace else f"{self._namespace}.{name}"
        full = _NOT_IN_A_NAME.sub("_", full)
        while full in taken:
            full += "_"
        taken.add(full)
        return full


def _write(node: Node, names: _Names, *, canonical: bool) -> Any:
    def inner(other: Node) -> Any:
        return _write(other, names, canonical=canonical)

    if node.type == "union":
        return [inner(branch) for branch in node.branches]
    if id(node) in names.known:
        return names.known[id(node)]
    full = names.add(node) if node.name else ""
    extra = {} if canonical else node.logical
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
