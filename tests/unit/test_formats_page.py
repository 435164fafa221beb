"""The worked examples of the page on formats are what the sink makes of those values."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from sinkcore.declared import Faults
from sinkcore.encode import Encoded, encode
from sinkcore.lanes import LANES, Framing
from sinkcore.records import slices_of
from sinkcore.routeset import read_routes
from sinkcore.schemas import Schema
from tests.support.avro import rows_of_file
from tests.support.events import Sent, events_of
from tests.support.protobuf import field, schema
from tests.support.schemas import KnownSchemas

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
PLANE = FileDescriptorProto(name="plane", syntax="proto3")
PLANE.message_type.add(name="Plane", field=[field("tail_number", 1, "string"), field("seats", 2, "int64")])
PICTURES = {"␉": "\t", "␊": "\n", "␁": "\x01"}
LABEL = re.compile(r"^(\w+)(?: \d)? {2,}(.*)$")


def example(heading: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The route and the labelled lines of a section's example; lines without a label go on."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    route, _, rest = section.split("```")[1].strip().partition("\n\n")
    found: dict[str, str] = {}
    for line in rest.splitlines():
        match = LABEL.match(line)
        if match is None or line.startswith(" "):
            found[list(found)[-1]] += line.strip()
        else:
            found[match[1]] = match[2]
    return json.loads(route), found


def value_of(text: str) -> bytes:
    """What stands there: bytes in hexadecimal, then perhaps JSON."""
    head, brace, rest = text.partition("{")
    return bytes.fromhex(head) + (brace + rest).encode()


def encoded(route: dict[str, Any], value: bytes, known: KnownSchemas | None = None) -> Encoded:
    (found,) = read_routes(json.dumps([route]), (), Faults())
    sent = Sent(value, 17, key=b"EWR", headers=(("type", b"order"),))
    return encode(
        slices_of(events_of([sent])),
        found,
        segment_id="0196a5...",
        record_max_bytes=1 << 20,
        blob_max_bytes=1 << 20,
        schemas=known,
    )


def line_of(result: Encoded) -> str:
    (body,) = result.bodies
    return gzip.decompress(body.data).decode().removesuffix("\n")


def without_time(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "...", text)


@pytest.mark.parametrize("heading", ["JSON", "Text"])
def test_what_has_no_schema(heading: str) -> None:
    route, lines = example(heading)

    assert without_time(line_of(encoded(route, lines["value"].encode()))) == without_time(lines["row"])


def test_avro() -> None:
    route, lines = example("Avro")
    known = KnownSchemas({7: Schema("AVRO", lines["schema"])})

    (row,) = rows_of_file(encoded(route, value_of(lines["value"]), known).bodies[0].data)

    assert row["_kafka"]["topic"] == "flights"
    shown = json.dumps({"number": row["number"], "tail": row["tail"]})[:-1]
    assert shown in lines["file"]


def test_protobuf() -> None:
    route, lines = example("Protobuf")

    result = encoded(route, value_of(lines["value"]), KnownSchemas({8: schema(PLANE)}))

    assert line_of(result) == lines["row"]


def test_json_with_a_schema() -> None:
    route, lines = example("JSON with a schema")
    known = KnownSchemas({9: Schema("JSON", lines["schema"])})

    assert line_of(encoded(route, value_of(lines["value"]), known)) == lines["row"]
    (refused,) = encoded(route, value_of(lines["refused"]), known).refused
    assert (refused.reason, refused.detail) == ("validation_failed", lines["detail"])


def one_of_each() -> dict[tuple[str, Framing], tuple[bytes, list[str]]]:
    """By lane, a record's value and its rows."""
    block = PAGE.split("\n## One record of each format\n")[1].split("```")[1]
    found: dict[tuple[str, Framing], tuple[bytes, list[str]]] = {}
    for part in block.strip().split("\n\n"):
        (lane, value), *rows = [re.split(" {2,}", line, maxsplit=1) for line in part.split("\n")]
        format_, _, framing = lane.partition(" ")
        value = "".join(PICTURES.get(letter, letter) for letter in value)
        data = bytes.fromhex(value) if framing else value.encode()
        key = (format_, next(each for _, each in LANES if each == (framing or "none")))
        found[key] = (data, ["".join(PICTURES.get(c, c) for c in row) for _, row in rows])
    return found


ONE_OF_EACH = one_of_each()


def test_the_page_has_a_record_of_each_format_and_framing() -> None:
    assert set(ONE_OF_EACH) == set(LANES)


@pytest.mark.parametrize("lane", ONE_OF_EACH, ids=" ".join)
def test_a_record_of_each_format_becomes_the_rows_that_the_page_shows(
    lane: tuple[str, Framing], tmp_path: Path
) -> None:
    (format_, framing), (value, rows) = lane, ONE_OF_EACH[lane]
    _, of_avro = example("Avro")
    (tmp_path / "flight.avsc").write_text(of_avro["schema"])
    (tmp_path / "plane.desc").write_bytes(FileDescriptorSet(file=[PLANE]).SerializeToString())
    own = "plane.desc#Plane" if format_ == "json" else "flight.avsc"
    extra = {"none": {}, "registry": {"decode": "registry"}, "schema": {"schema": f"{tmp_path}/{own}"}}
    known = KnownSchemas({7: Schema("AVRO", of_avro["schema"]), 8: schema(PLANE)})

    result = encoded({"topic": "t", "db": "d", "table": "T", "format": format_, **extra[framing]}, value, known)

    (body,) = result.bodies
    assert body.rows == len(rows)
    if "avro" in format_:
        assert [json.dumps(row) for row in rows_of_file(body.data)] == rows
    else:
        assert gzip.decompress(body.data).decode() == "".join(f"{row}\n" for row in rows)
