"""Avro, Parquet and ORC: what each type becomes, and that broken files are refused whole."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import uuid
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from azure.kusto.data.data_format import DataFormat
from pyarrow import orc, parquet

from tests.adx.support import Double

NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 123000, tzinfo=dt.UTC)
ID = uuid.UUID("11111111-2222-4333-8444-555555555555")


def avro(records: list[dict[str, Any]], *fields: dict[str, Any], codec: str = "deflate") -> bytes:
    file = io.BytesIO()
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": list(fields)})
    fastavro.writer(file, schema, records, codec=codec)
    return file.getvalue()


def as_parquet(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file, **options)
    return file.getvalue()


def as_orc(table: Any) -> bytes:
    file = io.BytesIO()
    orc.write_table(table, file)
    return file.getvalue()


@pytest.mark.parametrize("data_format", [DataFormat.AVRO, DataFormat.APACHEAVRO])
def test_avro_fields_go_by_name_and_keep_their_types(double: Double, data_format: DataFormat) -> None:
    """Unions, nested records, arrays, maps, logical types; a missing field is null."""
    table = double.table(
        "n: long, x: real, s: string, b: bool, t: datetime, m: decimal, d: dynamic, g: guid, none: string"
    )
    fields: list[dict[str, Any]] = [
        {"name": "n", "type": ["null", "long"]},
        {"name": "x", "type": "double"},
        {"name": "s", "type": "string"},
        {"name": "b", "type": "boolean"},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "m", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "g", "type": {"type": "string", "logicalType": "uuid"}},
        {
            "name": "d",
            "type": {
                "type": "record",
                "name": "D",
                "fields": [
                    {"name": "l", "type": {"type": "array", "items": "int"}},
                    {"name": "m", "type": {"type": "map", "values": "string"}},
                    {"name": "raw", "type": "bytes"},
                ],
            },
        },
    ]
    record = {"n": 7, "x": 1.5, "s": "é\n", "b": True, "t": NOON, "m": Decimal("12.34"), "g": ID}
    record["d"] = {"l": [1, 2], "m": {"k": "v"}, "raw": b"\x00\xff"}

    assert double.ingest(table, avro([record, {**record, "n": None}], *fields), data_format) == "Succeeded"

    rows = double.query(f"{table} | sort by n desc")
    bag = {"l": [1, 2], "m": {"k": "v"}, "raw": [0, 255]}
    assert rows[0] == [7, 1.5, "é\n", True, NOON, Decimal("12.34"), bag, str(ID), ""]
    assert rows[1][0] is None


def test_avro_mappings_take_fields_and_paths(double: Double) -> None:
    """`Field` and `Path` say the same; `$` is the whole record."""
    table = double.table("a: long, deep: string, whole: dynamic")
    mapping = [
        {"Column": "a", "Properties": {"Field": "n"}},
        {"Column": "deep", "Properties": {"Path": "$.o.s"}},
        {"Column": "whole", "Properties": {"Path": "$"}},
    ]
    for kind in ("avro", "parquet", "orc"):
        double.command(f".create table {table} ingestion {kind} mapping 'M' '{json.dumps(mapping)}'")
    inner = {"type": "record", "name": "O", "fields": [{"name": "s", "type": "string"}]}
    data = avro([{"n": 1, "o": {"s": "x"}}], {"name": "n", "type": "int"}, {"name": "o", "type": inner})
    rows = pa.table({"n": pa.array([2], pa.int32()), "o": pa.array([{"s": "y"}])})
    reference = {"ingestion_mapping_reference": "M"}

    assert double.ingest(table, data, DataFormat.AVRO, **reference) == "Succeeded"
    assert double.ingest(table, data, DataFormat.APACHEAVRO, **reference) == "Succeeded"
    assert double.ingest(table, as_parquet(rows), DataFormat.PARQUET, **reference) == "Succeeded"
    assert double.ingest(table, as_orc(rows), DataFormat.ORC, **reference) == "Succeeded"

    first, second = [1, "x", {"n": 1, "o": {"s": "x"}}], [2, "y", {"n": 2, "o": {"s": "y"}}]
    assert double.query(f"{table} | sort by a asc") == [first, first, second, second]


COLUMNS = pa.table(
    {
        "i": pa.array([3, None], pa.int64()),
        "u": pa.array([4, None], pa.uint64()),
        "f": pa.array([2.0, 1.5], pa.float64()),
        "yes": pa.array([True, None]),
        "m": pa.array([Decimal("5.00"), Decimal("5.50")], pa.decimal128(9, 2)),
        "t": pa.array([NOON, None], pa.timestamp("ns", tz="UTC")),
        "day": pa.array([NOON.date(), None], pa.date32()),
        "s": pa.array(["6", '{"k": 1}']),
        "l": pa.array([[1, 2], None]),
        "o": pa.array([{"x": 1}, None]),
        "bag": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
    }
)


def converted(
    double: Double, data: bytes, data_format: DataFormat, wanted: list[tuple[str, str]]
) -> list[list[Any]]:
    """The two rows of a table that takes each field of the file as the type given, in that order."""
    table = double.table(", ".join(f"c{i}: {kind}" for i, (_, kind) in enumerate(wanted)))
    mapping = [{"Column": f"c{i}", "Properties": {"Path": f"$.{name}"}} for i, (name, _) in enumerate(wanted)]
    kind = data_format.kusto_value
    double.command(f".create table {table} ingestion {kind} mapping 'M' '{json.dumps(mapping)}'")
    assert double.ingest(table, data, data_format, ingestion_mapping_reference="M") == "Succeeded"
    rows = double.query(f"{table} | extend at = ingestion_time(), n = iff(c0 == 3, 0, 1) | sort by n asc")
    return [row[: len(wanted)] for row in rows]


@pytest.mark.parametrize("data_format", [DataFormat.PARQUET, DataFormat.ORC])
def test_the_types_of_columns_are_converted_by_microsoft_s_table(double: Double, data_format: DataFormat) -> None:
    """parquet-mapping.md; what has a cross there is null. A fraction into an integer is null too."""
    wanted = [
        *(("i", kind) for kind in ("long", "bool", "int", "real", "string", "datetime", "dynamic")),
        *(("f", kind) for kind in ("long", "real", "bool", "dynamic")),
        *(("yes", kind) for kind in ("bool", "decimal", "long")),
        *(("m", kind) for kind in ("decimal", "long", "real", "dynamic")),
        *(("t", kind) for kind in ("datetime", "long")),
        *(("day", kind) for kind in ("datetime", "timespan")),
        *(("s", kind) for kind in ("string", "long", "dynamic", "bool", "datetime", "guid")),
        *(("l", kind) for kind in ("dynamic", "string")),
        *(("o", kind) for kind in ("dynamic", "string")),
        *(("bag", kind) for kind in ("dynamic", "string")),
    ]
    table = COLUMNS.drop_columns(["u"])
    data = as_orc(table) if data_format is DataFormat.ORC else as_parquet(table, store_decimal_as_integer=True)

    first, second = converted(double, data, data_format, wanted)

    midnight = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert first == [
        *(3, True, 3, 3.0, "3", None, None),
        *(2, 2.0, True, None),
        *(True, Decimal(1), None),
        *(Decimal(5), 5, 5.0, None),
        *(NOON, None),
        *(midnight, None),
        *("6", 6, 6, None, None, None),
        *([1, 2], ""),
        *({"x": 1}, ""),
        *({"k": 1}, ""),
    ]
    assert second[:7] == [None, None, None, None, "", None, None]
    assert second[7:11] == [None, 1.5, True, None]
    assert second[14:17] == [Decimal("5.5"), None, 5.5]
    assert second[22:25] == ['{"k": 1}', None, {"k": 1}]


def test_decimals_in_bytes_and_unsigned_numbers_have_rows_of_their_own(double: Double) -> None:
    """DECIMAL (FLBA) becomes no bool and no int, UINT64 no real."""
    table = COLUMNS.select(["i", "m", "u"])
    data = as_parquet(table, store_decimal_as_integer=False)
    wanted = [("i", "long"), ("m", "bool"), ("m", "int"), ("m", "long"), ("u", "real"), ("u", "long")]

    assert converted(double, data, DataFormat.PARQUET, wanted)[0] == [3, None, None, 5, None, 4]


def test_uuids_of_parquet_are_guids(double: Double) -> None:
    """And text in a string column."""
    table = pa.table({"i": pa.array([3, 4]), "g": pa.array([ID.bytes, None], pa.uuid())})
    wanted = [("i", "long"), ("g", "guid"), ("g", "string")]

    assert converted(double, as_parquet(table), DataFormat.PARQUET, wanted) == [
        [3, str(ID), str(ID)],
        [4, None, ""],
    ]


def test_files_of_many_rows_and_groups_are_read_whole_compressed_or_not(double: Double) -> None:
    """More rows than are read at once; a name that ends in .gz is decompressed first."""
    numbers = pa.table({"n": pa.array(range(7000)), "s": pa.array([f"x{n}" for n in range(7000)])})
    files = [
        (as_parquet(numbers, row_group_size=1000), DataFormat.PARQUET, ""),
        (gzip.compress(as_parquet(numbers)), DataFormat.PARQUET, ".parquet.gz"),
        (as_orc(numbers), DataFormat.ORC, ""),
        (
            avro(
                [{"n": n, "s": f"x{n}"} for n in range(7000)],
                {"name": "n", "type": "long"},
                {"name": "s", "type": "string"},
            ),
            DataFormat.AVRO,
            "",
        ),
    ]
    for data, data_format, suffix in files:
        table = double.table("n: long, s: string")
        url = double.upload(data, suffix or f".{data_format.kusto_value}")
        assert double.outcome(double.queue_blob(url, double.properties(table, data_format))) == "Succeeded"
        assert double.query(f"{table} | summarize count(), sum(n), dcount(s, 4)") == [[7000, 24_496_500, 7000]]


@pytest.mark.parametrize("data_format", [DataFormat.AVRO, DataFormat.PARQUET, DataFormat.ORC])
def test_a_file_that_is_cut_or_of_another_format_is_refused_whole(double: Double, data_format: DataFormat) -> None:
    """BadRequest_InvalidBlob, and none of its rows."""
    table = double.table("n: long")
    numbers = pa.table({"n": pa.array(range(100_000))})
    whole = {
        DataFormat.AVRO: avro([{"n": n} for n in range(100_000)], {"name": "n", "type": "long"}),
        DataFormat.PARQUET: as_parquet(numbers),
        DataFormat.ORC: as_orc(numbers),
    }[data_format]

    for data in (b"nonsense", whole[: len(whole) // 2], whole[:100] + b"\xff" * 1000 + whole[1100:]):
        assert double.ingest(table, data, data_format) == "BadRequest_InvalidBlob"
    assert double.count(table) == 0


def test_an_avro_file_of_something_else_than_records_is_refused(double: Double) -> None:
    """There are no fields to map; a codec that is not here is named."""
    table = double.table("n: long")
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema({"type": "long"}), [1, 2])

    assert double.ingest(table, file.getvalue(), DataFormat.AVRO) == "BadRequest_InvalidBlob"
    unknown = avro([{"n": 1}], {"name": "n", "type": "long"}, codec="null").replace(b"null", b"lzma", 1)
    assert double.ingest(table, unknown, DataFormat.AVRO) == "BadRequest_FormatNotSupported"


def test_an_empty_file_holds_no_records(double: Double) -> None:
    """BadRequest_NoRecordsOrWrongFormat, as for text."""
    table = double.table("n: long")
    nothing = pa.table({"n": pa.array([], pa.int64())})

    assert double.ingest(table, as_parquet(nothing), DataFormat.PARQUET) == "BadRequest_NoRecordsOrWrongFormat"
    assert double.ingest(table, as_orc(nothing), DataFormat.ORC) == "BadRequest_NoRecordsOrWrongFormat"
    empty = avro([], {"name": "n", "type": "long"})
    assert double.ingest(table, empty, DataFormat.AVRO) == "BadRequest_NoRecordsOrWrongFormat"
