"""Mappings and transformations of every kind, inline and by reference: the same rows whatever the format."""

from __future__ import annotations

import datetime as dt
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from azure.kusto.data.data_format import DataFormat, IngestionMappingKind
from azure.kusto.ingest import ColumnMapping, TransformationMethod

from tests.adx.support import Double
from tests.adx.test_binary_formats import as_orc, as_parquet, avro
from tests.adx.test_mappings import create
from tests.adx.test_transforms import element

EPOCH_MS = 1_577_836_800_005
MOMENT = dt.datetime(2020, 1, 1, 0, 0, 0, 5000, tzinfo=dt.UTC)
RECORDS: list[dict[str, Any]] = [
    {"n": 1, "ms": EPOCH_MS, "o": {"s": "x", "rest": 7}, "bags": [{"a": "1"}, {"b": "2"}]},
    {"n": 2, "ms": EPOCH_MS, "o": {"s": "y", "rest": 8}, "bags": []},
]


def as_json(records: list[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(record).encode() for record in records)


def as_csv(records: list[dict[str, Any]]) -> bytes:
    return b"\n".join(b"%d,%d,%s" % (one["n"], one["ms"], one["o"]["s"].encode()) for one in records)


def as_avro(records: list[dict[str, Any]]) -> bytes:
    inner = [{"name": "s", "type": "string"}, {"name": "rest", "type": "long"}]
    return avro(
        records,
        {"name": "n", "type": "long"},
        {"name": "ms", "type": "long"},
        {"name": "o", "type": {"type": "record", "name": "O", "fields": inner}},
        {"name": "bags", "type": {"type": "array", "items": {"type": "map", "values": "string"}}},
    )


def _columns(records: list[dict[str, Any]]) -> Any:
    bags = pa.list_(pa.map_(pa.string(), pa.string()))
    as_pairs = [[list(bag.items()) for bag in record["bags"]] for record in records]
    columns = {name: [record[name] for record in records] for name in ("n", "ms", "o")}
    return pa.table({**columns, "bags": pa.array(as_pairs, bags)})


Encode = Callable[[list[dict[str, Any]]], bytes]
TREES: list[tuple[DataFormat, IngestionMappingKind, Encode]] = [
    (DataFormat.JSON, IngestionMappingKind.JSON, as_json),
    (DataFormat.MULTIJSON, IngestionMappingKind.JSON, as_json),
    (DataFormat.AVRO, IngestionMappingKind.AVRO, as_avro),
    (DataFormat.APACHEAVRO, IngestionMappingKind.APACHEAVRO, as_avro),
    (DataFormat.PARQUET, IngestionMappingKind.PARQUET, lambda records: as_parquet(_columns(records))),
    (DataFormat.ORC, IngestionMappingKind.ORC, lambda records: as_orc(_columns(records))),
]
CSV = (DataFormat.CSV, IngestionMappingKind.CSV, as_csv)


def names(value: Any) -> str:
    return value.name if isinstance(value, DataFormat | IngestionMappingKind) else ""


@pytest.mark.parametrize(("data_format", "kind", "encode"), [CSV, *TREES], ids=names)
def test_a_mapping_of_each_kind_can_come_with_the_message(
    double: Double, data_format: DataFormat, kind: IngestionMappingKind, encode: Encode
) -> None:
    """As Microsoft's client writes it, a constant and a column of another name in each."""
    table = double.table("number: long, text: string, fixed: string, other: long")
    by_place = {"number": {"ordinal": 0}, "text": {"ordinal": 2}}
    by_path = {"number": {"path": "$.n"}, "text": {"path": "$.o.s"}}
    places: dict[str, dict[str, Any]] = by_place if kind is IngestionMappingKind.CSV else by_path
    columns = [
        ColumnMapping("number", "long", **places["number"]),
        ColumnMapping("text", "string", **places["text"]),
        ColumnMapping("fixed", "string", const_value="a 'constant', \"quoted\""),
    ]

    outcome = double.ingest(
        table, encode(RECORDS), data_format, column_mappings=columns, ingestion_mapping_kind=kind
    )

    assert outcome == "Succeeded"
    constant = "a 'constant', \"quoted\""
    assert double.query(f"{table} | sort by number asc") == [[1, "x", constant, None], [2, "y", constant, None]]


@pytest.mark.parametrize(("data_format", "kind", "encode"), TREES, ids=names)
def test_transformations_are_the_same_in_every_format_of_named_fields(
    double: Double, data_format: DataFormat, kind: IngestionMappingKind, encode: Encode
) -> None:
    """mappings.md, "Mapping transformations": for JSON, Avro, Parquet and ORC alike."""
    table = double.table(
        "n: long, at: datetime, s: string, rest: dynamic, bag: dynamic, line: long, place: string"
    )
    create(
        double,
        table,
        "avro" if kind is IngestionMappingKind.APACHEAVRO else kind.value.lower(),
        "M",
        element("n", path="$.n"),
        element("at", "DateTimeFromUnixMilliseconds", path="$.ms"),
        element("s", path="$.o.s"),
        element("rest", "DropMappedFields", path="$.o"),
        element("bag", "PropertyBagArrayToDictionary", path="$.bags"),
        element("line", "SourceLineNumber"),
        element("place", "SourceLocation"),
    )
    url = double.upload(encode(RECORDS), f".{data_format.kusto_value}")
    properties = double.properties(table, data_format, ingestion_mapping_reference="M")

    assert double.outcome(double.queue_blob(url, properties)) == "Succeeded"

    place = url.partition("?")[0]
    assert double.query(f"{table} | sort by n asc") == [
        [1, MOMENT, "x", {"rest": 7}, {"a": "1", "b": "2"}, 1, place],
        [2, MOMENT, "y", {"rest": 8}, {}, 2, place],
    ]


@pytest.mark.parametrize("unit", ["Seconds", "Milliseconds", "Microseconds", "Nanoseconds"])
@pytest.mark.parametrize(("data_format", "kind", "encode"), [CSV, *TREES], ids=names)
def test_each_unit_since_1970_is_known_to_every_kind_of_mapping(
    double: Double, data_format: DataFormat, kind: IngestionMappingKind, encode: Encode, unit: str
) -> None:
    """By reference, where the other tests of this file have it inline."""
    table = double.table("at: datetime")
    by = {"Ordinal": "1"} if kind is IngestionMappingKind.CSV else {"Path": "$.ms"}
    word = "avro" if kind is IngestionMappingKind.APACHEAVRO else kind.value.lower()
    element = {"Column": "at", "Properties": {**by, "Transform": f"DateTimeFromUnix{unit}"}}
    create(double, table, word, "M", element)
    seconds = {"Seconds": 1, "Milliseconds": 1_000, "Microseconds": 10**6, "Nanoseconds": 10**9}

    records = [{**RECORDS[0], "ms": 1_577_836_800 * seconds[unit]}]
    outcome = double.ingest(table, encode(records), data_format, ingestion_mapping_reference="M")

    assert outcome == "Succeeded"
    assert double.query(table) == [[dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("$['a b']", "a b"),
        ('$["a.b"]', "a.b"),
        (r"$['it\'s']", "it's"),
        (r'$["say \"hi\""]', 'say "hi"'),
        (r"$['back\\slash']", "back\\slash"),
        ("$['[0]']", "[0]"),
        ("$['$']", "$"),
        ("$['ключ']", "ключ"),
        ("$.dash-ed", "dash-ed"),
        ("$['']", ""),
    ],
)
def test_a_path_in_brackets_holds_any_name(double: Double, path: str, name: str) -> None:
    """jsonpath.md: single or double quotes around names with special characters; a backslash escapes a quote."""
    table = double.table("v: string")
    columns = [ColumnMapping("v", "string", path=path)]

    outcome = double.ingest(
        table,
        json.dumps({name: "found", "other": "x"}).encode(),
        column_mappings=columns,
        ingestion_mapping_kind=IngestionMappingKind.JSON,
    )

    assert outcome == "Succeeded"
    assert double.query(table) == [["found"]]


def test_names_that_json_escapes_are_found_at_any_depth_beside_others(double: Double) -> None:
    """Quotes, backslashes and tabs, in objects inside arrays inside objects; what is not there is null."""
    table = double.table("a: long, b: long, c: string, whole: dynamic, none: string, n: long")
    columns = [
        ColumnMapping("a", "long", path=r"$['\"'].list[1]['\\']"),
        ColumnMapping("b", "long", path="$['tab\t']"),
        ColumnMapping("c", "string", path="$.plain"),
        ColumnMapping("whole", "dynamic", path="$"),
        ColumnMapping("none", "string", path=r"$.plain['\"']"),
        ColumnMapping("n", "long", const_value="7"),
    ]
    record = {'"': {"list": [0, {"\\": 5}]}, "tab\t": 6, "plain": "p"}
    lines = [json.dumps(record).encode(), b"[1]", b'{"plain": }', b"{}"]

    kind = IngestionMappingKind.JSON
    assert double.ingest(table, lines, column_mappings=columns, ingestion_mapping_kind=kind) == "Succeeded"

    assert double.query(f"{table} | sort by a desc") == [[5, 6, "p", record, "", 7], [None, None, "", {}, "", 7]]


def test_records_are_counted_across_the_files_of_an_archive(double: Double) -> None:
    """The number is one of the storage artifact, which is the archive (decided here)."""
    table = double.table("n: long, line: long")
    columns = [
        ColumnMapping("n", "long", path="$.n"),
        ColumnMapping("line", "long", transform=TransformationMethod.SOURCE_LINE_NUMBER),
    ]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.json", b'{"n": 10}\n{"n": 11}')
        file.writestr("b.json", b'{"n": 12}')
    kind = IngestionMappingKind.JSON
    properties = double.properties(table, column_mappings=columns, ingestion_mapping_kind=kind)

    url = double.upload(archive.getvalue(), ".json.zip")
    assert double.outcome(double.queue_blob(url, properties)) == "Succeeded"

    assert double.query(f"{table} | sort by n asc") == [[10, 1], [11, 2], [12, 3]]
