"""Avro schemas written again: for a file's header, and in the canonical form that has a fingerprint."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import msgspec

from sinkcore.schemas.avro import Node

_FINGERPRINTS_KEPT = 256
_EMPTY = 0xC15D213AA4D7A795
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.]|(?<![^.])(?=[0-9.]|\Z)")


def to_json(node: Node, taken: Collection[str] = ()) -> Any:
    """The schema with all that a reader needs to read by it, and nothing else, as JSON's own types.

    Types without a namespace get the root's: inside one that has a namespace, their names would not mean them.
    A type whose name is then another one's, or `taken`, gets underscores behind it; so do letters that names in
    Avro cannot have, for some readers give up there.
    """
    namespace = node.name.rpartition(".")[0]
    names = set(taken)

    def new_name(name: str) -> str:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        full = _NOT_IN_A_NAME.sub("_", full)
        while full in names:
            full += "_"
        names.add(full)
        return full

    return _write(node, new_name, {}, lambda node: node.logical)


@lru_cache(maxsize=_FINGERPRINTS_KEPT)
def fingerprint(node: Node) -> bytes:
    """The CRC-64-AVRO fingerprint of the schema's canonical form, as single-object encoding has it: 8 bytes.

    Source: the Avro specification, "Parsing Canonical Form for Schemas" and "Schema Fingerprints".
    """
    canonical = _write(node, str, {}, lambda _: {})
    found = _EMPTY
    for byte in msgspec.json.encode(canonical):
        found ^= byte
        for _ in range(8):
            found = (found >> 1) ^ (_EMPTY & -(found & 1))
    return found.to_bytes(8, "little")


def _write(
    node: Node, new_name: Callable[[str], str], known: dict[int, str], extra_of: Callable[[Node], dict[str, Any]]
) -> Any:
    """A type; those with a name in full where they come first, and by the name that they have in `known` then."""

    def inner(other: Node) -> Any:
        return _write(other, new_name, known, extra_of)

    if node.type == "union":
        return [inner(branch) for branch in node.branches]
    if id(node) in known:
        return known[id(node)]
    text: dict[str, Any] = {}
    if node.name:
        text["name"] = known[id(node)] = new_name(node.name)
    # In the order that the canonical form wants: name, type, fields, symbols, items, values, size.
    text["type"] = node.type
    if node.type == "record":
        text["fields"] = [{"name": name, "type": inner(of_field)} for name, of_field in node.fields]
    elif node.type == "enum":
        text["symbols"] = node.symbols
    elif node.type == "array":
        text["items"] = inner(node.content)
    elif node.type == "map":
        text["values"] = inner(node.content)
    elif node.type == "fixed":
        text["size"] = node.size
    text |= extra_of(node)
    return text if len(text) > 1 else node.type
