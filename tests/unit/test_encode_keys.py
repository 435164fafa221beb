"""Keys by registry: in every format's metadata, and a record whose key cannot be decoded is a dead letter."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.encode.avroread import reader_of
from sinkcore.encode.rows import Fault
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.schemas import Schema
from tests.support.avro import decoded, record_schemas, rows_of_file, values_of, written
from tests.support.events import Sent, events_of
from tests.support.protobuf import class_of, everything, schema
from tests.support.schemas import KnownSchemas, framed, schema_of
from tests.unit.test_encode_json import any_pace

FILE = everything()
PLANE = {"type": "record", "name": "P", "fields": [{"name": "n", "type": "int"}]}
KNOWN = KnownSchemas(
    {
        1: Schema("AVRO", '"string"'),
        2: schema_of(PLANE),
        3: schema(FILE),
        4: schema_of({"type": "object"}, "JSON"),
        5: Schema("AVRO", "{"),
        6: schema_of({"type": "array", "items": "null"}),
    }
)
PROTOBUF_KEY = b"\x00" + class_of(FILE, "demo.Plane")(tail_number="N1").SerializeToString()
KEYS: list[tuple[bytes | None, Any]] = [
    (framed(1, written("string", "EWR")), "EWR"),
    (framed(2, written(PLANE, {"n": 5})), {"n": 5}),
    (framed(3, PROTOBUF_KEY), {"tailNumber": "N1"}),
    (framed(4, b'{"a":\n1}'), {"a": 1}),
    (None, None),
]
VALUES = {"json": b"{}", "csv": b"1,2", "avro": b"\x02", "raw": b"x"}


def encoded(records: list[Sent], format_: str, **route: Any) -> Encoded:
    found = Route("flights", "db", "T", format=format_, metadata="_kafka", key="registry", **route)
    return encode(
        slices_of(events_of(records)),
        found,
        segment_id="S" * 26,
        record_max_bytes=1 << 24,
        blob_max_bytes=1 << 28,
        schemas=KNOWN,
    )


def keys_in(result: Encoded, format_: str) -> list[Any]:
    (body,) = result.bodies
    if format_ == "avro":
        return [row["_kafka"]["key"] for row in rows_of_file(body.data)]
    text = gzip.decompress(body.data).decode()
    if format_ == "json":
        return [json.loads(line)["_kafka"]["key"] for line in text.splitlines()]
    return [row[5] for row in csv.reader(io.StringIO(text))]


@pytest.mark.parametrize("format_", VALUES)
def test_a_key_is_in_the_metadata_as_what_it_is(format_: str) -> None:
    """Where a column is text, whatever is no text is JSON there."""
    route = {"decode": "registry"} if format_ == "avro" else {}
    value = framed(2, VALUES["avro"]) if format_ == "avro" else VALUES[format_]
    records = [Sent(value, offset, key=key) for offset, (key, _) in enumerate(KEYS)]

    found = keys_in(encoded(records, format_, **route), format_)

    as_text = [None if key is None else text_of(key) for _, key in KEYS]
    expected = {"json": [key for _, key in KEYS], "avro": as_text}.get(format_, [key or "" for key in as_text])
    assert found == expected


def text_of(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key, separators=(",", ":"))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"EWR", "decode_failed"),
        (b"\x00\x00", "decode_failed"),
        (framed(9, b"x"), "unknown_schema"),
        (framed(1, b"\x08EWR"), "validation_failed"),
        (framed(1, b"\x06EWRx"), "validation_failed"),
        (framed(2, b"\xff" * 20), "validation_failed"),
        (framed(3, b"\x63"), "decode_failed"),
        (framed(4, b"{"), "decode_failed"),
        (framed(4, b'{"a":"\\ud800"}'), "decode_failed"),
        (framed(4, b'{"a":' * 100 + b"{}" + b"}" * 100), "too_deep"),
        (framed(4, b"[]"), "validation_failed"),
        (framed(5, b""), "decode_failed"),
        (framed(6, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00"), "validation_failed"),
    ],
)
def test_a_key_that_cannot_be_decoded_takes_its_record_and_no_other(key: bytes, reason: str) -> None:
    good = framed(1, b"\x06EWR")

    result = encoded([Sent(b"{}", 0, key=good), Sent(b"{}", 1, key=key), Sent(b"{}", 2, key=good)], "json")

    assert [(r.record.offset, r.reason) for r in result.refused] == [(1, reason)]
    assert result.refused[0].detail.startswith(("the key", "a key"))
    assert keys_in(result, "json") == ["EWR", "EWR"]


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_a_key_that_the_parser_just_takes_does_not_stop_whoever_writes_it(format_: str) -> None:
    """Each has the interpreter's levels, less the calls above it: what one takes, the other may not."""
    keys = [framed(4, b'{"a":' * levels + b"{}" + b"}" * levels) for levels in (99, *range(900, 1010))]

    result = encoded([Sent(VALUES[format_], n, key=key) for n, key in enumerate(keys)], format_)

    assert [r.record.offset for r in result.refused] == list(range(1, len(keys)))
    assert len(keys_in(result, format_)) == 1


def test_a_tombstones_key_is_decoded_too() -> None:
    result = encoded([Sent(b"", 0, key=framed(1, b"\x06EWR")), Sent(b"", 1, key=b"x")], "json", tombstones="row")

    assert keys_in(result, "json") == ["EWR"]
    assert [r.record.offset for r in result.refused] == [1]


@any_pace
@given(st.data())
def test_an_avro_key_is_what_the_usual_library_reads(data: st.DataObject) -> None:
    shape = data.draw(record_schemas())
    value = written(shape, data.draw(values_of(shape)))
    read = reader_of(schema_of(shape))
    assert not isinstance(read, Fault)

    found = read(value)

    expected = json.dumps(decoded(shape, value)[0], default=lambda b: {"base64": base64_of(b)})
    assert found == json.loads(expected, parse_constant=str)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
