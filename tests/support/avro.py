"""Avro schemas of any shape, values of them, and what other readers make of a file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import avro.datafile
import avro.io
import fastavro
from hypothesis import strategies as st

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1) | st.integers(-70, 70),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bytes": st.binary(max_size=50),
    "string": st.text(st.characters(codec="utf-8"), max_size=50) | st.text("abc", max_size=90),
}


@st.composite
def record_schemas(draw: st.DrawFn) -> Any:
    """A record of one to five fields of any types, named types among them, used twice and inside themselves."""
    return _Drawing(draw).record(2)


class _Drawing:
    """One schema in the making: `names` are types that may be used again."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.names: list[str] = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"T{self.count}"

    def record(self, depth: int) -> Any:
        name = self.name()
        fields = []
        for number in range(self.draw(st.integers(1, 5))):
            recursive = self.draw(st.integers(0, 9)) == 0
            of_field = ["null", name] if recursive else self.type(depth)
            fields.append({"name": f"f{number}", "type": of_field})
        self.names.append(name)
        return {"type": "record", "name": name, "fields": fields}

    def type(self, depth: int) -> Any:
        kinds = ["primitive"] * 4 + ["enum", "fixed", "known"] + ["union", "array", "map", "record"] * (depth > 0)
        kind = self.draw(st.sampled_from(kinds))
        if kind == "known" and self.names:
            return self.draw(st.sampled_from(self.names))
        if kind == "enum":
            name = self.name()
            self.names.append(name)
            return {"type": "enum", "name": name, "symbols": ["A", "B", "C"][: self.draw(st.integers(1, 3))]}
        if kind == "fixed":
            name = self.name()
            self.names.append(name)
            return {"type": "fixed", "name": name, "size": self.draw(st.integers(0, 5))}
        if kind == "union":
            branches = self.draw(st.lists(st.sampled_from(PRIMITIVES), min_size=1, max_size=4, unique=True))
            return [*branches, self.record(depth - 1)] if self.draw(st.booleans()) else branches
        if kind == "array":
            return {"type": "array", "items": self.type(depth - 1)}
        if kind == "map":
            return {"type": "map", "values": self.type(depth - 1)}
        if kind == "record":
            return self.record(depth - 1)
        return self.draw(st.sampled_from(PRIMITIVES))


@st.composite
def values_of(draw: st.DrawFn, schema: Any) -> Any:
    """A value of a schema, as fastavro takes it."""
    return _value(draw, schema, dict(_named_in(schema)), 4)


def _named_in(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _named_in(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield schema["name"], schema
        for field in schema.get("fields", []):
            yield from _named_in(field["type"])
        yield from _named_in(schema.get("items", schema.get("values")))


def _value(draw: st.DrawFn, schema: Any, named: dict[str, Any], depth: int) -> Any:
    """Of a type within itself at most `depth` levels."""
    if isinstance(schema, list):
        # A branch is chosen by name, for fastavro would take the first one that the value fits.
        branch = draw(st.sampled_from(schema)) if depth > 0 else schema[0]
        return (branch if isinstance(branch, str) else branch["name"], _value(draw, branch, named, depth - 1))
    if isinstance(schema, str):
        return draw(VALUES[schema]) if schema in VALUES else _value(draw, named[schema], named, depth - 1)
    kind = schema["type"]
    if kind == "record":
        return {field["name"]: _value(draw, field["type"], named, depth) for field in schema["fields"]}
    if kind == "enum":
        return draw(st.sampled_from(schema["symbols"]))
    if kind == "fixed":
        return draw(st.binary(min_size=schema["size"], max_size=schema["size"]))
    count = draw(st.integers(0, 3))
    if kind == "array":
        return [_value(draw, schema["items"], named, depth) for _ in range(count)]
    if kind == "map":
        return {f"k{number}": _value(draw, schema["values"], named, depth) for number in range(count)}
    return draw(VALUES[kind])


def written(schema: Any, value: Any) -> bytes:
    """The value as bytes, without anything around it."""
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), value)
    return file.getvalue()


def decoded(schema: Any, data: bytes) -> tuple[Any, int]:
    """What the bytes are, and how many of them were read."""
    file = io.BytesIO(data)
    return fastavro.schemaless_reader(file, fastavro.parse_schema(schema), None), file.tell()


def rows_of_file(data: bytes) -> list[Any]:
    """The rows that fastavro finds, logical types unread."""
    return list(fastavro.reader(io.BytesIO(data)))


def rows_by_avro(data: bytes) -> list[Any]:
    """The rows that Avro's own library finds."""
    with avro.datafile.DataFileReader(io.BytesIO(data), avro.io.DatumReader()) as reader:
        return list(reader)


def schema_of_file(data: bytes) -> Any:
    """The schema in the file's header."""
    return json.loads(fastavro.reader(io.BytesIO(data)).metadata["avro.schema"])
