"""Each format's encode function alone, beside gzip of the same bytes and decoding with the usual library."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fastavro
import jsonschema  # type: ignore[import-untyped]
import msgspec
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from isal import igzip_lib

from bench.cases import Options
from bench.data import records
from bench.measure import Result, cpu_us
from sinkcore.encode.avrowalk import Walker
from sinkcore.encode.jsoncheck import all_objects, decoder_of
from sinkcore.encode.jsonschema import check_of
from sinkcore.encode.protobuf import writer_of
from sinkcore.encode.textsyntax import SYNTAXES
from sinkcore.schemas import Schema
from sinkcore.schemas.avro import parse

_FIELDS = (
    *(
        ("carrier", "string"),
        ("tailnum", "string"),
        ("origin", "string"),
        ("dest", "string"),
        ("distance", "long"),
    ),
    *(("dep_delay", "long"), ("arr_delay", "long"), ("air_time", "long"), ("flight", "long"), ("hour", "long")),
    *(("minute", "long"), ("dep_time", "long"), ("arr_time", "long"), ("sched_dep_time", "long")),
)
_AVRO_MARKS = {"unseen": 1 / 20, "checked": 0.75}
_BURST_RECORDS = 5000

Work = dict[str, Callable[[], object]]


def run(options: Options) -> Iterator[Result]:
    """Flights of 14 fields, in each format: ours, the floor, the usual library."""
    batch = max(options.batches)
    rows = [_row(value) for value in records("256 B", batch)]
    for name, make in (("avro", _avro), ("protobuf", _protobuf), ("json schema", _json_schema), ("csv", _csv)):
        values, work, marks = make(rows)
        joined = b"".join(values)
        work["(a) gzip"] = lambda joined=joined: igzip_lib.compress(joined, 2, igzip_lib.COMP_GZIP)  # type: ignore[misc]
        burst = max(1, _BURST_RECORDS // batch)
        took = cpu_us(work, rounds=dict.fromkeys(work, options.rounds(len(joined))), burst=burst)
        for what, value in took.items():
            yield Result("formats", name, batch, what, value / batch, "us/record")
        for what, (ours, theirs, mark) in marks.items():
            yield Result("formats", name, batch, what, took[ours] / took[theirs], "", mark)


def _row(value: bytes) -> dict[str, Any]:
    row = msgspec.json.decode(value)
    return {name: (row[name] or "") if kind == "string" else int(row[name] or 0) for name, kind in _FIELDS}


Made = tuple[Sequence[bytes], Work, dict[str, tuple[str, str, float]]]


def _avro(rows: list[dict[str, Any]]) -> Made:
    text = {"type": "record", "name": "Flight", "fields": [{"name": n, "type": kind} for n, kind in _FIELDS]}
    schema = fastavro.parse_schema(text)
    values = []
    for row in rows:
        file = io.BytesIO()
        fastavro.schemaless_writer(file, schema, row)
        values.append(b"\x00\x00\x00\x00\x07" + file.getvalue())
    walker = Walker(parse(Schema("AVRO", json.dumps(text))))

    def unseen() -> bytes:
        return b"".join([value[5:] for value in values])

    def checked() -> bytes:
        bare = [value[5:] for value in values]
        assert walker.fit(bare)
        return b"".join(bare)

    def decode() -> list[Any]:
        return [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in values]

    def decode_and_encode() -> None:
        for row in decode():
            fastavro.schemaless_writer(io.BytesIO(), schema, row)

    work: Work = {
        "unseen": unseen,
        "checked": checked,
        "fastavro": decode,
        "fastavro and again": decode_and_encode,
    }
    marks = {
        "unseen / fastavro and again": ("unseen", "fastavro and again", _AVRO_MARKS["unseen"]),
        "checked / fastavro": ("checked", "fastavro", _AVRO_MARKS["checked"]),
    }
    return values, work, marks


def _protobuf(rows: list[dict[str, Any]]) -> Made:
    kinds = FieldDescriptorProto.Type
    file = FileDescriptorProto(name="flight.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="Flight")
    for number, (name, kind) in enumerate(_FIELDS, 1):
        # Half of the numbers are 64 bits wide, which JSON has as text.
        type_ = kinds.TYPE_STRING if kind == "string" else kinds.TYPE_INT64 if number % 2 else kinds.TYPE_INT32
        message.field.add(name=name, number=number, type=type_, label=FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    flight = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Flight"))
    values = [b"\x00" + flight(**row).SerializeToString() for row in rows]
    write = writer_of(Schema("PROTOBUF", _base64(file.SerializeToString())))

    assert callable(write)

    def library() -> list[str]:
        return [json_format.MessageToJson(flight.FromString(value[1:]), indent=None) for value in values]

    work: Work = {"ours": lambda: list(map(write, values)), "MessageToJson": library}
    return values, work, {"ours / MessageToJson": ("ours", "MessageToJson", 1.0)}


def _json_schema(rows: list[dict[str, Any]]) -> Made:
    properties = {name: {"type": "string" if kind == "string" else "integer"} for name, kind in _FIELDS}
    schema = {"type": "object", "properties": properties, "required": [name for name, _ in _FIELDS]}
    values = [msgspec.json.encode(row) for row in rows]
    check = check_of(Schema("JSON", json.dumps(schema)))
    assert callable(check)
    library = jsonschema.Draft202012Validator(schema)
    decode = decoder_of(None)

    def ours() -> None:
        assert not any(map(check, values))
        assert all_objects(values, None, 0, decode)

    work: Work = {"ours": ours, "jsonschema": lambda: [library.is_valid(json.loads(value)) for value in values]}
    return values, work, {"ours / jsonschema": ("ours", "jsonschema", 1.0)}


def _csv(rows: list[dict[str, Any]]) -> Made:
    values = [",".join(map(str, row.values())).encode() for row in rows]
    syntax = SYNTAXES["csv"]

    def ours() -> bytes:
        assert syntax.all_rows(values)
        assert len(set(map(syntax.columns, values))) == 1
        return b"".join([value + b"\n" for value in values])

    work: Work = {"ours": ours, "csv": lambda: [next(csv.reader([value.decode()])) for value in values]}
    return values, work, {"ours / csv": ("ours", "csv", 1.0)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
