"""Each format's whole encode function, beside gzip of what it makes and decoding with the usual library."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import jsonschema  # type: ignore[import-untyped]
import msgspec
from azure.functions import KafkaEvent
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from isal import igzip_lib, isal_zlib

from bench.cases import Options
from bench.data import TOPIC, records
from bench.measure import Result, cpu_us
from sinkcore.encode import Encoded, encode
from sinkcore.encode.bodies import LEVEL
from sinkcore.records import Slice, slices_of
from sinkcore.routes import Route
from sinkcore.schemas import Schema

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
_SEVERAL = {"multijson": b"%b\n%b", "singlejson": b"[%b,%b]"}
_DELIMITERS = {"csv": ",", "tsv": "\t", "scsv": ";", "sohsv": "\x01", "psv": "|"}
_SCHEMA_ID = 7
_FRAME = b"\x00" + _SCHEMA_ID.to_bytes(4, "big")
_BURST_RECORDS = 5000

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Made:
    """Values of one format, the routes that take them, and what the usual libraries do with them.

    `marks` has for each route and library the most that encoding without gzip may take of the library's time.
    """

    values: Sequence[bytes]
    routes: dict[str, Route]
    libraries: dict[str, Work]
    marks: dict[tuple[str, str], float]
    schema: Schema | None = None
    rows_each: int = 1


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A registry that knows one schema."""

    known: Schema | None

    def schema(self, schema_id: int) -> Schema | None:
        return self.known if schema_id == _SCHEMA_ID else None


def run(options: Options) -> Iterator[Result]:
    """Flights of 14 fields, in each format: our encode function without its gzip, and the usual library."""
    batch = max(options.batches)
    rows = [_row(value) for value in records("256 B", batch)]
    makers: dict[str, Callable[[list[dict[str, Any]]], Made]] = {
        **{name: lambda rows, name=name: _several(rows, name) for name in _SEVERAL},  # type: ignore[misc]
        "avro": lambda rows: _avro(rows, "avro"),
        "apacheavro": lambda rows: _avro(rows, "apacheavro"),
        "protobuf": _protobuf,
        "json schema": _json_schema,
        **{name: lambda rows, name=name: _delimited(rows, name) for name in _DELIMITERS},  # type: ignore[misc]
        **{name: lambda rows, name=name: _lines(rows, name) for name in ("tsve", "txt", "raw")},  # type: ignore[misc]
    }
    for name, make in makers.items():
        yield from _measure(options, name, make(rows))


def _measure(options: Options, name: str, made: Made) -> Iterator[Result]:
    slices, schemas = _slices(made.values), _Fixed(made.schema)
    work: dict[str, Work] = dict(made.libraries)
    for what, route in made.routes.items():
        encoded = _encode(slices, route, schemas)
        assert sum(body.rows for body in encoded.bodies) == len(made.values) * made.rows_each, encoded.refused[:1]
        work[what] = lambda route=route: _encode(slices, route, schemas)  # type: ignore[misc]
        work[f"(a) gzip of {what}"] = _gzip_of(encoded)
    batch = len(made.values)
    rounds = dict.fromkeys(work, options.rounds(sum(map(len, made.values))))
    took = cpu_us(work, rounds=rounds, burst=max(1, _BURST_RECORDS // batch))
    alone = {what: took[what] - took[f"(a) gzip of {what}"] for what in made.routes}
    for what, value in took.items():
        yield Result("formats", name, batch, what, value / batch, "us/record")
    for what, value in alone.items():
        yield Result("formats", name, batch, f"{what} without gzip", value / batch, "us/record")
    for (what, library), mark in made.marks.items():
        ratio = alone[what] / took[library]
        yield Result("formats", name, batch, f"{what} without gzip / {library}", ratio, "", mark)


def _slices(values: Sequence[bytes]) -> list[Slice]:
    return slices_of([KafkaEvent(body=v, topic=TOPIC, partition=0, offset=n) for n, v in enumerate(values)])


def _encode(slices: Sequence[Slice], route: Route, schemas: _Fixed) -> Encoded:
    limits = {"record_max_bytes": 1 << 25, "blob_max_bytes": 1 << 28}
    return encode(slices, route, segment_id="0" * 32, schemas=schemas, **limits)


def _gzip_of(encoded: Encoded) -> Work:
    """What compressing the same bytes costs: one gzip member, or the blocks of an Avro file."""
    (body,) = encoded.bodies
    if body.data.startswith(b"Obj"):
        blocks = [b"".join(_stored_blocks(body.data))]
        return lambda: [isal_zlib.compress(block, LEVEL, -15) for block in blocks]
    text = gzip.decompress(body.data)
    return lambda: igzip_lib.compress(text, LEVEL, igzip_lib.COMP_GZIP)


def _stored_blocks(file: bytes) -> Iterator[bytes]:
    for block in fastavro.block_reader(io.BytesIO(file)):
        yield block.bytes_.getvalue()  # type: ignore[attr-defined]


def _row(value: bytes) -> dict[str, Any]:
    row = msgspec.json.decode(value)
    return {name: (row[name] or "") if kind == "string" else int(row[name] or 0) for name, kind in _FIELDS}


def _several(rows: list[dict[str, Any]], name: str) -> Made:
    """Two rows in each record: one text behind the other, or an array."""
    parts = [msgspec.json.encode(row) for row in rows]
    form = _SEVERAL[name]
    values = [form % pair for pair in zip(parts[::2], parts[1::2], strict=True)]
    parse = json.JSONDecoder().raw_decode

    def library() -> list[Any]:
        if name == "singlejson":
            return [json.loads(value) for value in values]
        found = []
        for value in values:
            first, end = parse(text := value.decode())
            found += [first, parse(text, end + 1)[0]]
        return found

    return Made(
        values,
        {"encode": Route(TOPIC, "db", "T", format=name)},
        {"json": library},
        {("encode", "json"): 1.0},
        rows_each=2,
    )


def _avro(rows: list[dict[str, Any]], name: str) -> Made:
    text = {"type": "record", "name": "Flight", "fields": [{"name": n, "type": kind} for n, kind in _FIELDS]}
    schema = fastavro.parse_schema(text)
    values = []
    for row in rows:
        file = io.BytesIO()
        fastavro.schemaless_writer(file, schema, row)
        values.append(_FRAME + file.getvalue())
    checked = Route(TOPIC, "db", "T", format=name, decode="registry")
    unseen = Route(TOPIC, "db", "T", format=name, decode="registry", validate=False)

    def decode() -> list[Any]:
        return [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in values]

    def decode_and_encode() -> None:
        for row in decode():
            fastavro.schemaless_writer(io.BytesIO(), schema, row)

    return Made(
        values,
        {"unseen": unseen, "checked": checked},
        {"fastavro": decode, "fastavro and again": decode_and_encode},
        {("unseen", "fastavro and again"): 1 / 20, ("checked", "fastavro"): 0.75},
        Schema("AVRO", json.dumps(text)),
    )


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
    values = [_FRAME + b"\x00" + flight(**row).SerializeToString() for row in rows]

    def library() -> list[str]:
        return [json_format.MessageToJson(flight.FromString(value[6:]), indent=None) for value in values]

    return Made(
        values,
        {"encode": Route(TOPIC, "db", "T", decode="registry")},
        {"MessageToJson": library},
        {("encode", "MessageToJson"): 1.0},
        Schema("PROTOBUF", base64.b64encode(file.SerializeToString()).decode()),
    )


def _json_schema(rows: list[dict[str, Any]]) -> Made:
    properties = {name: {"type": "string" if kind == "string" else "integer"} for name, kind in _FIELDS}
    schema = {"type": "object", "properties": properties, "required": [name for name, _ in _FIELDS]}
    values = [_FRAME + msgspec.json.encode(row) for row in rows]
    library = jsonschema.Draft202012Validator(schema)
    return Made(
        values,
        {"encode": Route(TOPIC, "db", "T", decode="registry")},
        {"jsonschema": lambda: [library.is_valid(json.loads(value[5:])) for value in values]},
        {("encode", "jsonschema"): 1.0},
        Schema("JSON", json.dumps(schema)),
    )


def _delimited(rows: list[dict[str, Any]], name: str) -> Made:
    delimiter = _DELIMITERS[name]
    values = [delimiter.join(map(str, row.values())).encode() for row in rows]
    return Made(
        values,
        {"encode": Route(TOPIC, "db", "T", format=name)},
        {"csv": lambda: [next(csv.reader([value.decode()], delimiter=delimiter)) for value in values]},
        {("encode", "csv"): 1.0},
    )


def _lines(rows: list[dict[str, Any]], name: str) -> Made:
    """Formats without a usual library: the floor alone stands beside them."""
    values = ["\t".join(map(str, row.values())).encode() for row in rows]
    return Made(values, {"encode": Route(TOPIC, "db", "T", format=name)}, {}, {})
