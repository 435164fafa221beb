"""The worked examples of the page on formats are what the sink makes of those values."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from sinkcore.declared import Faults
from sinkcore.encode import Encoded, encode
from sinkcore.records import slices_of
from sinkcore.routeset import read_routes
from sinkcore.schemas import Schema
from tests.support.avro import rows_of_file
from tests.support.events import Sent, events_of
from tests.support.protobuf import field, schema
from tests.support.schemas import KnownSchemas

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
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
    file = FileDescriptorProto(name="plane", syntax="proto3")
    file.message_type.add(name="Plane", field=[field("tail_number", 1, "string"), field("seats", 2, "int64")])

    result = encoded(route, value_of(lines["value"]), KnownSchemas({8: schema(file)}))

    assert line_of(result) == lines["row"]


def test_json_with_a_schema() -> None:
    route, lines = example("JSON with a schema")
    known = KnownSchemas({9: Schema("JSON", lines["schema"])})

    assert line_of(encoded(route, value_of(lines["value"]), known)) == lines["row"]
    (refused,) = encoded(route, value_of(lines["refused"]), known).refused
    assert (refused.reason, refused.detail) == ("validation_failed", lines["detail"])
