"""Every format, every kind of damage: a record is a row or a dead letter, its neighbours come through unchanged.

Read by other libraries than those that wrote: DuckDB, pyarrow for text, Python for JSON, fastavro and Avro's own.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.encode.textmetadata import COLUMNS
from sinkcore.encode.textsyntax import DELIMITERS
from sinkcore.lanes import LANES
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.schemas import Schema
from tests.support.avro import rows_by_avro, rows_of_file, written
from tests.support.events import Sent, events_of
from tests.support.protobuf import class_of, schema
from tests.support.protobuf import field as proto_field
from tests.support.schemas import KnownSchemas, framed, schema_of
from tests.unit.test_encode_json import any_pace

Row = tuple[str, ...]
AVRO, PROTOBUF, JSON, BROKEN, UNKNOWN = 1, 2, 3, 4, 99
RECORD = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "s", "type": "string"},
        {"name": "n", "type": ["null", "long"]},
        {"name": "a", "type": {"type": "array", "items": {"type": "map", "values": "double"}}},
    ],
}
FILE = FileDescriptorProto(name="flight.proto", package="air", syntax="proto3")
FILE.message_type.add(
    name="R",
    field=[
        *(proto_field("s", 1, "string"), proto_field("n", 2, "uint32"), proto_field("r", 3, ".air.R")),
        proto_field("xs", 4, "int32", repeated=True),
    ],
)
MESSAGE = class_of(FILE, "air.R")
JSON_SCHEMA = {"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]}
KNOWN = KnownSchemas(
    {
        AVRO: schema_of(RECORD),
        PROTOBUF: schema(FILE),
        JSON: schema_of(JSON_SCHEMA, "JSON"),
        BROKEN: Schema("AVRO", "{"),
    }
)


def as_json(number: int, text: str) -> bytes:
    return json.dumps({"s": text, "n": number, "a": [{"k": [1.5, None]}]}, ensure_ascii=False).encode()


def as_avro(number: int, text: str) -> bytes:
    return written(RECORD, {"s": text, "n": number, "a": [{"k": 1.5}, {}]})


def as_message(number: int, text: str) -> bytes:
    return MESSAGE(s=text, n=number, xs=[1, -1, 300], r=MESSAGE(s="x")).SerializeToString()


def as_line(format_: str) -> Callable[[int, str], bytes]:
    delimiter = DELIMITERS.get(format_, b" ")
    quote = b"" if format_ in ("tsve", "txt", "raw") else b'"'
    return lambda number, text: delimiter.join([quote + text.encode() + quote, b"%d" % number])


@dataclass(frozen=True)
class Case:
    """A format: its route, and what makes a value; `frame` is a registry's, with Protobuf's indexes in it."""

    name: str
    make: Callable[[int, str], bytes]
    route: dict[str, Any] = field(default_factory=dict)
    frame: bytes = b""

    def value(self, number: int, text: str) -> bytes:
        """A sound record."""
        return self.frame + self.make(number, text)

    @property
    def format(self) -> str:
        """What it says of itself."""
        return str(self.route.get("format", "json"))


BY_REGISTRY = {"decode": "registry"}
CASES = [
    *(Case(name, as_json, {"format": name}) for name in ("json", "multijson", "singlejson")),
    *(Case(name, as_line(name), {"format": name}) for name in (*DELIMITERS, "txt", "raw")),
    *(
        Case(f"{name} {how}", as_avro, {"format": name, **route}, frame)
        for name in ("avro", "apacheavro")
        for how, route, frame in (
            ("by registry", BY_REGISTRY, framed(AVRO, b"")),
            ("bare", {"schema": "r.avsc"}, b""),
        )
    ),
    Case("protobuf by registry", as_message, BY_REGISTRY, framed(PROTOBUF, b"\x00")),
    Case("protobuf bare", as_message, {"schema": "r.desc#air.R"}),
    Case("json schema by registry", as_json, BY_REGISTRY, framed(JSON, b"")),
    Case("json schema bare", as_json, {"schema": "r.json"}),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the schemas are that ship with the app."""
    found = tmp_path_factory.mktemp("schemas")
    (found / "r.avsc").write_text(json.dumps(RECORD))
    (found / "r.json").write_text(json.dumps(JSON_SCHEMA))
    (found / "r.desc").write_bytes(FileDescriptorSet(file=[FILE]).SerializeToString())
    return found


def encoded(case: Case, values: Sequence[bytes], metadata: str | None, place: Path) -> Encoded:
    route = dict(case.route)
    if "schema" in route:
        route["schema"] = f"{place}/{route['schema']}"
    return encode(
        slices_of(events_of(Sent(value, offset, key=b"k") for offset, value in enumerate(values))),
        Route("flights", "db", "T", metadata=metadata, **route),
        segment_id="S" * 26,
        record_max_bytes=1 << 22,
        blob_max_bytes=1 << 28,
        schemas=KNOWN,
    )


# What other libraries read: each row as (offset, its own columns), the offset empty without metadata.


def rows_of(case: Case, data: bytes, metadata: str | None, place: Path) -> Iterator[list[Row]]:
    """The rows of a body, by each of its readers."""
    if case.format in ("avro", "apacheavro"):
        for read in (rows_of_file, rows_by_avro):
            yield [(_offset(row), row["s"], str(row["n"]), str(row["a"])) for row in read(data)]
        return
    text = gzip.decompress(data)
    stored = Route("t", "d", "T", metadata=metadata, **{**case.route, "schema": None}).stored_format
    if stored == "json":
        yield from _rows_of_json(text, data, metadata, place)
    elif stored in ("txt", "tsve"):
        # Nobody else knows these; without escapes they are lines.
        lines = text.decode().removesuffix("\n").split("\n")
        yield [_split(tuple(line.split("\t" if stored == "tsve" else None)), metadata) for line in lines]
    else:
        yield from ([_split(row, metadata) for row in rows] for rows in _rows_of_csv(text, data, stored, place))


def _offset(row: Any) -> str:
    return str(row["_kafka"]["offset"]) if "_kafka" in row else ""


def _split(row: Row, metadata: str | None) -> Row:
    if metadata is None:
        return ("", *row)
    assert (row[0], row[4], row[6].replace('\\"', '"')) == ("flights", "S" * 26, "{}"), (
        "the metadata's columns moved"
    )
    return (row[2], *row[len(COLUMNS) :])


def _rows_of_json(text: bytes, data: bytes, metadata: str | None, place: Path) -> Iterator[list[Row]]:
    file = place / "rows.json.gz"
    file.write_bytes(data)
    columns = "s: 'VARCHAR', n: 'VARCHAR'" + (", _kafka: 'STRUCT(\"offset\" BIGINT)'" if metadata else "")
    found = duckdb.execute(
        f"SELECT * FROM read_json(?, format='newline_delimited', columns={{{columns}}})",  # noqa: S608 - columns of our own naming
        [str(file)],
    ).fetchall()
    yield [(str(row[2]["offset"]) if metadata else "", str(row[0]), str(row[1])) for row in found]
    # Numbers as they stand: one of 5,000 digits is no number to Python.
    parsed = [json.loads(line, parse_float=str, parse_int=str) for line in text.removesuffix(b"\n").split(b"\n")]
    yield [(_offset(row), str(row.get("s")), str(row.get("n"))) for row in parsed]


def _rows_of_csv(text: bytes, data: bytes, stored: str, place: Path) -> Iterator[list[Row]]:
    delimiter = DELIMITERS[stored].decode()
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False)
    options = pyarrow.csv.ReadOptions(autogenerate_column_names=True, block_size=1 << 24)
    # As pyarrow names columns; asked for them, it would look for types first, of 100,000 columns for seconds.
    csv.field_size_limit(len(text) + 1)
    first = next(csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter))
    names = [f"f{n}" for n in range(len(first))]
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    table = pyarrow.csv.read_csv(io.BytesIO(text), options, parse, convert)
    yield [tuple(row.values()) for row in table.to_pylist()]
    if len(names) < 1000:
        file = place / "rows.csv.gz"
        file.write_bytes(data)
        columns = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(len(names)))
        found = duckdb.execute(
            "SELECT * FROM read_csv(?, auto_detect=false, header=false, delim=?, quote='\"', escape='\"', "  # noqa: S608 - columns of our own naming
            f"columns={{{columns}}}, strict_mode=true, null_padding=false, new_line='\\n')",
            [str(file), delimiter],
        ).fetchall()
        yield [tuple("" if cell is None else cell for cell in row) for row in found]


def check(case: Case, damaged: Sequence[bytes], metadata: str | None, place: Path) -> Encoded:
    """Each damaged record stands between two sound ones; whatever it becomes, those are there as they were."""
    values = [case.value(0, "neighbour ü 0")]
    for number, value in enumerate(damaged, 1):
        values += [value, case.value(number, f"neighbour ü {number}")]

    result = encoded(case, values, metadata, place)

    refused = {r.record.offset for r in result.refused}
    assert all(offset % 2 for offset in refused), "a neighbour was refused"
    # Beside bad records all are looked at one by one, and a batch without any goes another way.
    by_itself = [bool(encoded(case, [values[0], value, values[2]], metadata, place).refused) for value in damaged]
    assert by_itself == [offset in refused for offset in range(1, len(values), 2)]
    readers: list[list[Row]] = [[], []]
    for body in result.bodies:
        for number, rows in enumerate(rows_of(case, body.data, metadata, place)):
            assert len(rows) == body.rows
            readers[number] += rows
    alone = [
        row
        for body in encoded(case, values[::2], metadata, place).bodies
        for row in next(rows_of(case, body.data, metadata, place))
    ]
    assert len(alone) == len(values[::2])
    for rows in filter(None, readers):
        assert [row[1:] for row in rows if row[1:2] and row[1].startswith("neighbour")] == [
            row[1:] for row in alone
        ]
    if metadata is not None:
        in_rows = {int(row[0]) for row in readers[0]}
        empty = {offset for offset, value in enumerate(values) if not value}
        assert in_rows | refused | empty == set(range(len(values)))
        assert in_rows & refused == set()
    return result


def truncated(value: bytes) -> list[bytes]:
    """At every byte; the first is empty, which is a tombstone."""
    return [value[:end] for end in range(len(value))]


def changed(value: bytes) -> list[bytes]:
    """Every byte in turn is another one."""
    return [value[:at] + bytes([byte]) + value[at + 1 :] for at in range(len(value)) for byte in (0, 34, 127, 255)]


def longer(value: bytes) -> list[bytes]:
    """What follows is the beginning of something, the end of something, or the record once more."""
    return [value + more for more in (b"\x00", b"x", b"\xff", b'"', b"}", b"]", b"\n\n", value[:-1], b"\x0b")]


HUGE, NEGATIVE = b"\xfe" + b"\xff" * 8 + b"\x01", b"\x01"


def lengths(value: bytes) -> list[bytes]:
    """A huge or a negative length in the place of each byte."""
    return [value[:at] + size + value[at + 1 :] for at in range(len(value)) for size in (HUGE, NEGATIVE)]


def bombs(value: bytes) -> list[bytes]:
    """Levels without end, behind the frame or without it."""
    units = (b"[", b'{"a":', b'"', b"\x0b", b"\x02", b"\x04", b"\x1a", b"\\", b"[{},")
    return [head + unit * 100_000 for head in (value[:5], value[:6], b"") for unit in units]


DAMAGE: dict[str, Callable[[bytes], list[bytes]]] = {
    "truncated at every byte": truncated,
    "every byte changed": changed,
    "trailing bytes": longer,
    "negative and huge lengths": lengths,
    "recursion bombs": bombs,
}


@pytest.mark.parametrize("metadata", [None, "_kafka"])
@pytest.mark.parametrize("damage", DAMAGE)
@every_case
def test_damage_stays_where_it_is(case: Case, damage: str, metadata: str | None, place: Path) -> None:
    damaged = DAMAGE[damage](case.value(7, "damaged, é"))

    check(case, damaged, metadata, place)


@pytest.mark.parametrize("metadata", [None, "_kafka"])
@pytest.mark.parametrize("case", [case for case in CASES if case.frame], ids=lambda case: case.name)
def test_a_frame_that_leads_nowhere_is_a_dead_letter(case: Case, metadata: str | None, place: Path) -> None:
    """Another magic byte, an id that nobody knows, a schema that does not parse, one of another kind."""
    value = case.value(7, "damaged")
    other = AVRO if case.format == "json" else JSON
    heads = [b"\x01" + value[1:5], *(framed(each, b"") for each in (UNKNOWN, BROKEN, other))]

    result = check(case, [*(head + value[5:] for head in heads), *heads], metadata, place)

    reasons = ["decode_failed", "unknown_schema", "decode_failed", "decode_failed"]
    assert [(r.record.offset, r.reason) for r in result.refused] == list(
        zip(range(1, 16, 2), reasons * 2, strict=True)
    )


@pytest.mark.parametrize("metadata", [None, "_kafka"])
@every_case
def test_an_empty_value_is_a_tombstone_in_every_format(case: Case, metadata: str | None, place: Path) -> None:
    result = check(case, [b"", b""], metadata, place)

    assert (result.tombstones, result.refused) == (2, [])


@pytest.mark.parametrize("metadata", [None, "_kafka"])
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.make not in (as_avro, as_message)], ids=lambda c: c.name
)
def test_ten_thousand_columns_beside_a_few(case: Case, metadata: str | None, place: Path) -> None:
    """Where the schema says what columns there are, it has tests of its own."""
    delimiter = DELIMITERS.get(case.format, b" ")
    wide = json.dumps({"s": "wide", **{f"c{n}": n for n in range(10_000)}}).encode()
    if case.make is not as_json:
        wide = delimiter.join([b"wide", *(b"%d" % n for n in range(10_000))])

    assert check(case, [case.frame + wide], metadata, place).refused == []


PIECES = [
    b"",
    b"\x00",
    b"\x01",
    b"\xff",
    b'"',
    b"\\",
    b"\n",
    b"\r",
    b"\r\n",
    b",",
    b"\t",
    b";",
    b"|",
    b"{",
    b"}",
    b"[",
    b"]",
]
PIECES += [
    HUGE,
    b"\x80",
    b"\x7f",
    b"\\ud800",
    b"\xed\xa0\x80",
    "\u2028".encode(),
    b"\x1f",
    b'""',
    b"e99",
    b"-",
    b"0" * 20,
]


@settings(any_pace, max_examples=12)
@given(chance=st.randoms(use_true_random=False), metadata=st.sampled_from([None, "_kafka"]))
@every_case
def test_any_damage_at_all(case: Case, chance: random.Random, metadata: str | None, place: Path) -> None:
    """Some bytes of a sound record are cut out and others put in, once or several times."""
    damaged = []
    for _ in range(20):
        value = bytearray(case.value(7, "damaged, é"))
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(value))
            value[at : at + chance.randint(0, 3)] = chance.choice(PIECES)
        damaged.append(bytes(value))

    check(case, damaged, metadata, place)


def test_every_lane_is_among_the_cases() -> None:
    framings = {(case.format, Route("t", "d", "T", **case.route).framing) for case in CASES}

    assert framings == set(LANES)
