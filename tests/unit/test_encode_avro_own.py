"""Avro without a registry: bare, or in single-object encoding, by a schema that ships with the app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro.schema
import pytest
from hypothesis import given, settings

from sinkcore.encode import Encoded, encode
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.schemas import SCHEMA_MAX_BYTES, SchemaError
from sinkcore.schemas.avro import parse
from sinkcore.schemas.avrotext import fingerprint, to_json
from sinkcore.schemas.files import ROOT, read_own
from tests.support.avro import record_schemas, rows_of_file, written
from tests.support.events import Sent, events_of
from tests.support.schemas import schema_of
from tests.unit.test_encode_json import any_pace

FLIGHT = {
    "type": "record",
    "name": "Flight",
    "fields": [{"name": "number", "type": "int"}, {"name": "tail", "type": ["null", "string"]}],
}


@pytest.fixture
def schema(tmp_path: Path) -> str:
    file = tmp_path / "flight.avsc"
    file.write_text(json.dumps(FLIGHT))
    return str(file)


def flight(number: int, tail: str | None = "N1") -> bytes:
    return written(FLIGHT, {"number": number, "tail": tail})


def marked(value: bytes, schema: Any = FLIGHT) -> bytes:
    """The value in single-object encoding, with the fingerprint that fastavro finds."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")) + value


def encoded(values: list[bytes], schema: str, **route: Any) -> Encoded:
    found = Route("flights", "db", "Flights", format="apacheavro", schema=schema, **route)
    sent = [Sent(value, offset) for offset, value in enumerate(values)]
    return encode(
        slices_of(events_of(sent)), found, segment_id="s", record_max_bytes=1 << 20, blob_max_bytes=1 << 28
    )


def test_bare_and_marked_values_go_to_one_file(schema: str) -> None:
    result = encoded([flight(0), marked(flight(1)), flight(2, None)], schema)

    assert result.refused == []
    assert rows_of_file(result.bodies[0].data) == [
        {"number": 0, "tail": "N1"},
        {"number": 1, "tail": "N1"},
        {"number": 2, "tail": None},
    ]


def test_a_value_by_another_schema_is_a_dead_letter(schema: str) -> None:
    other = {"type": "record", "name": "Flight", "fields": [{"name": "number", "type": "long"}]}

    result = encoded([flight(0), marked(b"\x02", other), flight(1) + b"x", b"\x02"], schema)

    assert [(r.record.offset, r.reason) for r in result.refused] == [
        (1, "unknown_schema"),
        (2, "validation_failed"),
        (3, "validation_failed"),
    ]
    assert result.bodies[0].rows == 1


def test_a_bare_record_that_begins_like_a_mark_is_taken(tmp_path: Path) -> None:
    """Two bytes are not much of a mark, so that the fingerprint behind them decides."""
    file = tmp_path / "long.avsc"
    file.write_text('{"type": "record", "name": "L", "fields": [{"name": "n", "type": "long"}]}')

    assert rows_of_file(encoded([b"\xc3\x01"], str(file)).bodies[0].data) == [{"n": -98}]


def test_metadata_goes_in_here_too(schema: str) -> None:
    ((row),) = rows_of_file(encoded([marked(flight(0))], schema, metadata="_kafka").bodies[0].data)

    assert list(row) == ["number", "tail", "_kafka"]


@settings(any_pace, max_examples=100)
@given(record_schemas())
def test_fingerprints_are_those_of_another_library(schema: Any) -> None:
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    root = parse(schema_of(schema))

    assert fingerprint(root).hex() == fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    # What is written into files means the same.
    assert fastavro.schema.to_parsing_canonical_form(to_json(root)) == canonical


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "record",
            "name": "A",
            "namespace": "x",
            "fields": [
                {"name": "b", "type": {"type": "enum", "name": "B", "symbols": ["S"]}},
                {"name": "c", "type": {"type": "fixed", "name": "y.C", "size": 2}},
                {"name": "again", "type": ["null", "B", "y.C", "x.A"]},
                {
                    "name": "d",
                    "type": {
                        "type": "record",
                        "name": "D",
                        "namespace": "y",
                        "fields": [{"name": "c", "type": "C"}, {"name": "a", "type": ["null", "x.A"]}],
                    },
                },
            ],
        },
        {"type": "record", "name": "p.q.A", "namespace": "x", "fields": [{"name": "a", "type": ["null", "A"]}]},
        {"type": "error", "name": "E", "fields": [{"name": "a", "type": {"type": "int", "doc": "d"}}]},
    ],
)
def test_names_and_namespaces_are_resolved_as_another_library_does(schema: Any) -> None:
    if schema["type"] == "error":
        assert to_json(parse(schema_of(schema)))["type"] == "record"
        return
    canonical = fastavro.schema.to_parsing_canonical_form(schema)

    assert fastavro.schema.to_parsing_canonical_form(to_json(parse(schema_of(schema)))) == canonical


FILES = {
    "missing.avsc": (None, "cannot be read: No such file"),
    "schema.xml": (b"<x/>", "ends in none of .avsc"),
    "binary.avsc": (b"\xff", "not UTF-8"),
    "huge.avsc": (b" " * (SCHEMA_MAX_BYTES + 1), "more than"),
    "broken.avsc": (b"{", "does not define"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_says_why(name: str, tmp_path: Path) -> None:
    content, words = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(SchemaError) as raised:
        read_own(str(tmp_path / name))

    assert words in str(raised.value)


def test_a_relative_path_begins_at_the_apps_directory() -> None:
    """On Azure nobody says what the current directory is."""
    assert (ROOT / "function_app.py").exists()
