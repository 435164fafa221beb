"""Avro schemas as trees: parsed with their names resolved, and written again, whole or in canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.avrological import logical_of

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
FIXED_MAX_BYTES = 1 << 30


@dataclass(slots=True, eq=False)
class Node:
    """One type. A named type that occurs several times, inside itself too, is one Node.

    `item` is an array's or map's; `logical` what the schema says of a logical type, as it says it.
    """

    type: str
    name: str = ""
    fields: list[tuple[str, Node]] = field(default_factory=list)
    branches: list[Node] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    item: Node | None = None
    size: int = 0
    logical: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> Node:
        """The item of an array or map."""
        assert self.item is not None
        return self.item


def parse(schema: Schema, *, logical: bool = False) -> Node:
    """The schema as a tree, with what it refers to, and with its logical types if they are wanted.

    Raises:
        SchemaError: it is no Avro schema, or one that only a broken reader could read.
    """
    try:
        return _Parser(logical).schema(schema)
    except RecursionError:
        raise SchemaError("it is nested too deep") from None


class _Parser:
    """Parses one schema and what it refers to; knows each named type by then."""

    def __init__(self, logical: bool) -> None:
        self._logical = logical
        self._names: dict[str, Node] = {}
        self._seen: set[Schema] = set()

    def schema(self, schema: Schema) -> Node:
        """The tree of a schema, behind those to which it refers."""
        for reference in schema.references:
            # Two that are referred to can refer to the same third.
            if reference.schema not in self._seen:
                self._seen.add(reference.schema)
                self.schema(reference.schema)
        try:
            text = msgspec.json.decode(schema.text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            # A schema of one name may stand there without the quotes that JSON wants.
            text = schema.text.strip()
        return self._node(text, "")

    def _node(self, text: Any, namespace: str) -> Node:
        if isinstance(text, str):
            if text in PRIMITIVES:
                return Node(text)
            known = self._names.get(_full_name(text, namespace)) or self._names.get(text)
            if known is None:
                raise SchemaError("it names a type that it does not define")
            return known
        if isinstance(text, list):
            return _union([self._node(each, namespace) for each in text])
        if not isinstance(text, Mapping):
            raise SchemaError("a type is neither a name, nor an object, nor a list")
        kind = text.get("type")
        if kind in ("array", "map"):
            item = text.get("items" if kind == "array" else "values")
            return Node(kind, item=self._node(item, namespace))
        if kind in ("record", "error", "enum", "fixed"):
            return self._named(text, namespace)
        found = self._node(kind, namespace)
        logical = self._logical_of(text, found)
        return Node(found.type, logical=logical) if logical and found.type in PRIMITIVES else found

    def _named(self, text: Mapping[str, Any], namespace: str) -> Node:
        name = text.get("name")
        own = text.get("namespace", namespace)
        if not isinstance(name, str) or not name or not isinstance(own, str | None):
            raise SchemaError("a type has no name")
        full = _full_name(name, own or "")
        if full in self._names or full in PRIMITIVES:
            raise SchemaError("two types have one name")
        kind = "record" if text["type"] == "error" else str(text["type"])
        node = self._names[full] = Node(kind, full)
        if kind == "enum":
            node.symbols = _strings(text.get("symbols"), "symbols")
            if not all(map(str.isidentifier, node.symbols)):
                raise SchemaError("a symbol is no name, and some readers give up there")
        elif kind == "fixed":
            node.size = _size(text.get("size"))
            node.logical = self._logical_of(text, node)
        else:
            fields = text.get("fields")
            if not isinstance(fields, list) or not all(isinstance(each, Mapping) for each in fields):
                raise SchemaError("a record's fields are no list of objects")
            names = _strings([each.get("name") for each in fields], "fields")
            types = [self._node(each.get("type"), full.rpartition(".")[0]) for each in fields]
            node.fields = list(zip(names, types, strict=True))
        return node

    def _logical_of(self, text: Mapping[str, Any], node: Node) -> dict[str, Any]:
        return logical_of(text, node.type, node.size) if self._logical else {}


def _union(branches: list[Node]) -> Node:
    if any(branch.type == "union" for branch in branches):
        raise SchemaError("a union holds another one")
    if len({branch.name or branch.type for branch in branches}) < len(branches):
        raise SchemaError("a union holds one type twice")
    return Node("union", branches=branches)


def _strings(found: Any, what: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise SchemaError(f"{what} are no list of names")
    if len(set(found)) < len(found):
        raise SchemaError(f"two {what} have one name")
    return found


def _size(found: Any) -> int:
    if not isinstance(found, int) or not 0 <= found <= FIXED_MAX_BYTES:
        raise SchemaError("a fixed type has no size that could be")
    return found


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
