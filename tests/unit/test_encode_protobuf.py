"""Protobuf by registry or with the route's own schema: rows are what the usual library makes of each message."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.encode.protobuf import own_writer, writer_of
from sinkcore.encode.rows import Fault
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.schemas import Schema
from tests.support.events import Sent, events_of
from tests.support.protobuf import KNOWN_TYPES, F, class_of, everything, field, messages, schema
from tests.support.schemas import KnownSchemas, framed
from tests.unit.test_encode_json import any_pace

FILE = everything()
EVERYTHING = class_of(FILE, "demo.Everything")
PLANE = class_of(FILE, "demo.Plane")
IN_PLANE, IN_EVERYTHING, IN_INNER = b"\x00", b"\x02\x02", b"\x04\x02\x00"
KNOWN = KnownSchemas({7: schema(FILE), 8: Schema("PROTOBUF", "AAAA"), 9: Schema("AVRO", '"int"')})


def plane(tail: str) -> bytes:
    return framed(7, IN_PLANE + PLANE(tail_number=tail).SerializeToString())


def encoded(records: Sequence[Sent | bytes], known: KnownSchemas = KNOWN, **route: Any) -> Encoded:
    sent = [r if isinstance(r, Sent) else Sent(r, offset) for offset, r in enumerate(records)]
    found = Route("flights", "db", "Flights", **{"decode": "registry", **route})
    return encode(
        slices_of(events_of(sent)),
        found,
        segment_id="S" * 26,
        record_max_bytes=1 << 24,
        blob_max_bytes=1 << 28,
        schemas=known,
    )


def rows_of(result: Encoded) -> list[Any]:
    return [json.loads(line) for body in result.bodies for line in gzip.decompress(body.data).splitlines()]


def faults_of(result: Encoded) -> list[tuple[int, str]]:
    return [(r.record.offset, r.reason) for r in result.refused]


@any_pace
@given(st.data())
@pytest.mark.parametrize("syntax", ["proto3", "proto2"])
def test_a_row_is_what_the_usual_library_makes_of_the_message(syntax: str, data: st.DataObject) -> None:
    kind = EVERYTHING if syntax == "proto3" else class_of(everything("proto2"), "demo.Everything")
    known = KnownSchemas({7: schema(everything(syntax))})
    message = data.draw(messages(kind))
    try:
        # Read again, because a closed enum keeps what it does not know out of the way.
        expected = json_format.MessageToDict(
            kind.FromString(message.SerializeToString()), descriptor_pool=cast(Any, kind.DESCRIPTOR.file.pool)
        )
    except (ValueError, TypeError, json_format.Error):
        expected = None

    result = encoded([framed(7, IN_EVERYTHING + message.SerializeToString())], known)

    if expected is None:
        assert faults_of(result) == [(0, "validation_failed")]
    else:
        assert rows_of(result) == [json.loads(json.dumps(expected))]


def test_numbers_that_json_lacks_are_text_and_bytes_are_base64() -> None:
    message = EVERYTHING(
        f_double=math.inf, f_float=math.nan, f_int64=2**60, f_bytes=b"\xff\xfe", f_color=2, f_uint32=7
    )

    assert rows_of(encoded([framed(7, IN_EVERYTHING + message.SerializeToString())])) == [
        {
            "fDouble": "Infinity",
            "fFloat": "NaN",
            "fInt64": str(2**60),
            "fBytes": "//4=",
            "fColor": "GREEN",
            "fUint32": 7,
        }
    ]


def test_message_indexes_name_the_type() -> None:
    """The long form of `[0]` says the same as the short one; entries of maps are not counted."""
    inner = class_of(FILE, "demo.Everything.Inner")(x=5).SerializeToString()
    tail = PLANE(tail_number="N1").SerializeToString()

    result = encoded([framed(7, head) for head in (IN_PLANE + tail, b"\x02\x00" + tail, IN_INNER + inner)])

    assert rows_of(result) == [{"tailNumber": "N1"}, {"tailNumber": "N1"}, {"x": 5}]


@pytest.mark.parametrize("name", ["low.proto", "schema.proto", "default"])
def test_what_a_schema_imports_comes_from_its_references_whatever_they_are_called(name: str) -> None:
    lower = FileDescriptorProto(name="whatever", package="low", syntax="proto3")
    lower.message_type.add(name="Low", field=[field("n", 1, "int32")])
    upper = FileDescriptorProto(name="default", package="up", syntax="proto3")
    upper.dependency.extend([name, "confluent/meta.proto", "confluent/type/decimal.proto"])
    fields = [field("low", 1, ".low.Low"), field("price", 2, ".confluent.type.Decimal")]
    upper.message_type.add(name="Up", field=fields)
    value = bytes.fromhex("0a020805" + "1205" + "0a0101" + "1802")

    result = encoded([framed(1, b"\x00" + value)], KnownSchemas({1: schema(upper, **{name: lower})}))

    assert rows_of(result) == [{"low": {"n": 5}, "price": {"value": "AQ==", "scale": 2}}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x01\x00\x00\x00\x07\x00", "decode_failed"),
        (b"\x00\x00\x00", "decode_failed"),
        (framed(7, b""), "decode_failed"),  # no indexes
        (framed(7, b"\x02"), "decode_failed"),  # fewer than it says
        (framed(7, b"\x01"), "decode_failed"),  # -1 of them
        (framed(7, b"\xff\xff\xff\xff\x0f"), "decode_failed"),
        (framed(7, b"\x02\x03"), "decode_failed"),  # the index -2
        (framed(7, b"\x02\x63"), "decode_failed"),
        (framed(7, b"\x02\xc8\x01"), "decode_failed"),  # the index 100
        (framed(7, IN_PLANE + b"\x0a\xff\xff\xff\xff\x0f"), "decode_failed"),  # a length of 4 GiB
        (framed(7, IN_PLANE + b"\x0a\x01\xff"), "decode_failed"),  # not UTF-8
        (framed(7, IN_PLANE + b"\x0b" * 5000), "decode_failed"),  # groups in groups
        (framed(8, b"\x00"), "decode_failed"),
        (framed(9, b"\x00"), "decode_failed"),
        (framed(10, b"\x00"), "unknown_schema"),
    ],
)
def test_what_is_no_message_is_a_dead_letter_and_hurts_no_neighbour(value: bytes, reason: str) -> None:
    result = encoded([plane("N1"), value, plane("N2")])

    assert faults_of(result) == [(1, reason)]
    assert rows_of(result) == [{"tailNumber": "N1"}, {"tailNumber": "N2"}]


def test_types_within_themselves_end_as_a_dead_letter_where_they_are_too_deep() -> None:
    message = EVERYTHING()
    value = b""
    number = next(f.number for f in message.DESCRIPTOR.fields if f.name == "f_everything")
    key = bytes([(number << 3 | 2) & 127 | 128, (number << 3 | 2) >> 7])
    for _ in range(500):
        length = len(value)
        value = key + bytes([length & 127 | 128, length >> 7]) + value

    assert faults_of(encoded([framed(7, IN_EVERYTHING + value)])) == [(0, "decode_failed")]


@pytest.mark.parametrize("name", KNOWN_TYPES)
def test_a_well_known_type_that_a_schema_defines_otherwise_stops_no_batch(name: str) -> None:
    """Whoever may register a schema may call a type as he likes."""
    file = FileDescriptorProto(name="own", package="google.protobuf", syntax="proto3")
    file.message_type.add(name="Top", field=[field("one", 1, f".google.protobuf.{name}")])
    file.message_type.add(name=name, field=[field("other", 1, "int32")])
    known = KnownSchemas({**KNOWN.known, 1: schema(file)})
    of_top, of_itself = framed(1, b"\x00" + b"\x0a\x02\x08\x05"), framed(1, b"\x02\x02" + b"\x08\x05")

    result = encoded([plane("N1"), of_top, of_itself, plane("N2")], known)

    assert len(rows_of(result)) + len(result.refused) == 4
    assert {reason for _, reason in faults_of(result)} <= {"validation_failed", "not_an_object"}
    assert [row for row in rows_of(result) if "tailNumber" in row] == [{"tailNumber": "N1"}, {"tailNumber": "N2"}]


def test_groups_extensions_and_what_the_schema_lacks() -> None:
    """Of proto2, packed or not; a field that is required and missing is none of the wire's business."""
    file = FileDescriptorProto(name="old", package="p", syntax="proto2")
    message = file.message_type.add(name="T", field=[field("xs", 2, "int32", repeated=True)])
    message.field.add(name="must", number=1, type=F.TYPE_INT32, label=F.LABEL_REQUIRED)
    message.field.add(name="g", number=3, type=F.TYPE_GROUP, label=F.LABEL_OPTIONAL, type_name=".p.T.G")
    message.nested_type.add(name="G", field=[field("a", 1, "int32")])
    message.extension_range.add(start=100, end=200)
    file.extension.add(name="ext", number=100, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL, extendee=".p.T")
    values = [
        "1005",
        "0801 1005 1006",
        "0801 1202 0506",
        "0801 1b08021c",
        "0801 a00605",
        "0801 f87f05",
        "1b080224",
    ]

    result = encoded([framed(1, b"\x00" + bytes.fromhex(v)) for v in values], KnownSchemas({1: schema(file)}))

    assert rows_of(result) == [
        *({"xs": [5]}, {"must": 1, "xs": [5, 6]}, {"must": 1, "xs": [5, 6]}),
        *({"must": 1, "g": {"a": 2}}, {"must": 1, "[p.ext]": 5}, {"must": 1}),
    ]
    assert faults_of(result) == [(6, "decode_failed")]  # a group that another one ends


@any_pace
@given(st.data())
def test_cut_anywhere_or_made_up_a_value_is_a_row_or_a_dead_letter(data: st.DataObject) -> None:
    whole = framed(7, IN_EVERYTHING + data.draw(messages(EVERYTHING)).SerializeToString())
    pieces = [whole[:end] for end in range(1, len(whole))] + [framed(7, data.draw(st.binary())), whole + b"\x00"]

    result = encoded([plane("N1"), *pieces, plane("N2")])

    rows = rows_of(result)
    assert len(rows) + len(result.refused) == len(pieces) + 2
    assert {"tailNumber": "N1"} in rows
    assert {"tailNumber": "N2"} in rows


def test_ten_thousand_fields_are_a_row() -> None:
    file = FileDescriptorProto(name="wide", syntax="proto3")
    file.message_type.add(name="Wide", field=[field(f"f{n}", n, "int32") for n in range(1, 10_001)])
    message = class_of(file, "Wide")(**{f"f{n}": n for n in range(1, 10_001)})
    known = KnownSchemas({1: schema(file)})

    (row,) = rows_of(encoded([framed(1, b"\x00" + message.SerializeToString())], known))

    assert row == {f"f{n}": n for n in range(1, 10_001)}


@settings(deadline=None)
@given(st.binary().map(lambda data: base64.b64encode(data).decode()) | st.text())
def test_a_schema_that_is_none_makes_dead_letters(text: str) -> None:
    made = writer_of(Schema("PROTOBUF", text))

    assert isinstance(made if isinstance(made, Fault) else made(b"\x00"), Fault | bytes)


def test_metadata_and_tombstones() -> None:
    records: list[Sent | bytes] = [plane("N1"), Sent(b"", 1), framed(7, IN_PLANE)]

    rows = rows_of(encoded(records, metadata="_kafka", tombstones="row"))

    assert sorted((row["_kafka"]["offset"], row.get("tailNumber")) for row in rows) == [
        (0, "N1"),
        (1, None),
        (2, None),
    ]


def test_a_field_that_is_called_like_the_metadata_is_a_conflict() -> None:
    assert faults_of(encoded([plane("N1")], metadata="tailNumber")) == [(0, "metadata_conflict")]


def test_a_descriptor_set_ships_with_the_app(tmp_path: Path) -> None:
    """Files in any order; values are bare."""
    from google.protobuf import (
        any_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    known = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
    found = FileDescriptorSet(
        file=[FILE, *(FileDescriptorProto.FromString(m.DESCRIPTOR.serialized_pb) for m in known)]
    )
    path = tmp_path / "flights.desc"
    path.write_bytes(found.SerializeToString())

    value = PLANE(tail_number="N1").SerializeToString()
    result = encoded([value, b"\x0a\x05"], decode=None, schema=f"{path}#demo.Plane")

    assert rows_of(result) == [{"tailNumber": "N1"}]
    assert faults_of(result) == [(1, "decode_failed")]
    read = own_writer(base64.b64encode(path.read_bytes()).decode(), "demo.Everything.Inner")
    assert not isinstance(read, Fault)
    assert read(b"") == b"{}"
