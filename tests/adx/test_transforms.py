"""Mapping transformations, and mappings that cannot be."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import fastavro
import pytest
from azure.kusto.data.data_format import DataFormat

from localrunner.adx import mapping, multijson, records
from localrunner.adx.errors import IngestionError
from tests.adx.support import Double
from tests.adx.test_mappings import create


def element(column: str, transform: str = "", **properties: Any) -> dict[str, Any]:
    named = {name.capitalize(): value for name, value in properties.items()}
    return {"Column": column, "Properties": {**named, **({"Transform": transform} if transform else {})}}


def test_json_records_know_where_they_came_from(double: Double) -> None:
    """The blob without its signature, and the number of the record in it; skipped lines are no records."""
    table = double.table("n: long, location: string, line: long")
    create(
        double,
        table,
        "json",
        "M",
        element("n", path="$.n"),
        element("location", "SourceLocation"),
        element("line", "SourceLineNumber"),
    )
    urls = [double.upload(b'{"n": 1}\nnonsense\n{"n": 2}'), double.upload(b'{"n": 3}')]
    properties = double.properties(table, ingestion_mapping_reference="M")

    for url in urls:
        assert double.outcome(double.queue_blob(url, properties)) == "Succeeded"

    first, second = (url.partition("?")[0] for url in urls)
    assert double.query(f"{table} | sort by n asc") == [[1, first, 1], [2, first, 2], [3, second, 1]]


def test_numbers_since_1970_become_datetimes(double: Double) -> None:
    """In each of the four units, as number or text; what is no number is null."""
    units = ("Seconds", "Milliseconds", "Microseconds", "Nanoseconds")
    table = double.table("id: long, " + ", ".join(f"{unit}: datetime" for unit in units))
    elements = [element("id", path="$.id")]
    elements += [element(unit, f"DateTimeFromUnix{unit}", path=f"$.{unit}") for unit in units]
    create(double, table, "json", "M", *elements)
    seconds = 1_577_836_800
    good = {
        "id": 1,
        "Seconds": seconds,
        "Milliseconds": seconds * 1000 + 5,
        "Microseconds": str(seconds * 10**6 + 7),
    }
    good["Nanoseconds"] = seconds * 10**9 + 7999
    bad = {"id": 2, "Seconds": "x", "Milliseconds": 1e300, "Microseconds": None, "Nanoseconds": [1]}
    half = {"id": 3, "Seconds": 0.5, "Milliseconds": -1}

    lines = [json.dumps(record).encode() for record in (good, bad, half)]
    assert double.ingest(table, lines, ingestion_mapping_reference="M") == "Succeeded"

    day, epoch = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert double.query(f"{table} | sort by id asc") == [
        [1, day, day.replace(microsecond=5000), day.replace(microsecond=7), day.replace(microsecond=7)],
        [2, None, None, None, None],
        [3, epoch.replace(microsecond=500_000), epoch - dt.timedelta(milliseconds=1), None, None],
    ]


def test_fields_that_are_mapped_can_be_dropped_from_the_object_around_them(double: Double) -> None:
    """Nested ones too; the example of mappings.md, and a deeper one."""
    table = double.table("name: string, deep: long, props: dynamic, whole: dynamic")
    create(
        double,
        table,
        "json",
        "M",
        element("name", path="$.Props.EventName"),
        element("deep", path="$.Props.o.x"),
        element("props", "DropMappedFields", path="$.Props"),
        element("whole", "DropMappedFields", path="$"),
    )
    record = {"Time": "t", "Props": {"EventName": "E", "Revenue": 0.456, "o": {"x": 1, "y": 2}}}

    assert double.ingest(table, json.dumps(record).encode(), ingestion_mapping_reference="M") == "Succeeded"
    assert double.query(table) == [["E", 1, {"Revenue": 0.456, "o": {"y": 2}}, {"Time": "t"}]]


def test_an_array_of_property_bags_becomes_a_dictionary(double: Double) -> None:
    """The example of mappings.md; anything else is null."""
    table = double.table("id: long, d: dynamic")
    create(
        double,
        table,
        "json",
        "M",
        element("id", path="$.id"),
        element("d", "PropertyBagArrayToDictionary", path="$.events"),
    )
    lines = [b'{"id": 1, "events": [{"n1": "v1"}, {"n2": {"k": [1]}}]}', b'{"id": 2, "events": [1]}', b'{"id": 3}']

    assert double.ingest(table, lines, ingestion_mapping_reference="M") == "Succeeded"
    assert double.query(f"{table} | sort by id asc") == [[1, {"n1": "v1", "n2": {"k": [1]}}], [2, None], [3, None]]


def test_bytes_of_avro_become_base64(double: Double) -> None:
    """The example of mappings.md: the array as it is, and as text; no array of bytes is null."""
    table = double.table("id: dynamic, text: string, wrong: string")
    create(
        double,
        table,
        "avro",
        "M",
        element("id", path="$.id"),
        element("text", "BytesAsBase64", path="$.id"),
        element("wrong", "BytesAsBase64", field="n"),
    )
    octets = [227, 131, 34, 92, 28, 91, 65, 72, 134, 138, 9, 133, 51, 45, 104, 52]
    file = io.BytesIO()
    fields = [{"name": "id", "type": "bytes"}, {"name": "n", "type": {"type": "array", "items": "int"}}]
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": fields})
    fastavro.writer(file, schema, [{"id": bytes(octets), "n": [256]}])

    for data_format in (DataFormat.AVRO, DataFormat.APACHEAVRO):
        assert double.ingest(table, file.getvalue(), data_format, ingestion_mapping_reference="M") == "Succeeded"

    assert double.query(table) == [[octets, "44MiXBxbQUiGigmFMy1oNA==", ""]] * 2


def test_text_formats_know_where_they_came_from_too(double: Double) -> None:
    """csv-mapping.md; the number counts records, not line breaks inside quotes."""
    table = double.table("s: string, location: string, line: long, at: datetime")
    create(
        double,
        table,
        "csv",
        "M",
        element("s", ordinal="0"),
        element("at", "DateTimeFromUnixSeconds", ordinal=1),
        element("location", "SourceLocation"),
        element("line", "SourceLineNumber"),
    )
    url = double.upload(b'"a\nb",0\nc,1\n', ".csv")
    properties = double.properties(table, DataFormat.CSV, ingestion_mapping_reference="M")

    assert double.outcome(double.queue_blob(url, properties)) == "Succeeded"

    where, epoch = url.partition("?")[0], dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert double.query(f"{table} | sort by line asc") == [
        ["a\nb", where, 1, epoch],
        ["c", where, 2, epoch + dt.timedelta(seconds=1)],
    ]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("json", element("a", "GetPathElement", path="$.a")),
        ("json", element("a", "UnknownMethod", path="$.a")),
        ("json", element("a", "BytesAsBase64", path="$.a")),
        ("json", element("a", "DropMappedFields")),
        ("json", element("a", "SourceLocation", path="$.a")),
        ("json", element("a", "DropMappedFields", constvalue="x")),
        ("json", {"Column": "a", "Properties": {"Path": "$.a", "ConstValue": "x"}}),
        ("json", {"Column": "a", "Properties": {"Path": "$..a"}}),
        ("json", {"Column": "a", "Properties": {"Path": "$.a[*]"}}),
        ("json", {"Column": "a", "Properties": {"Path": "$.a[0:1]"}}),
        ("csv", element("a", "DropMappedFields", ordinal="0")),
        ("csv", element("a", "SourceLocation", ordinal="0")),
        ("csv", element("a")),
        ("avro", {"Column": "a", "Properties": {"Path": "$.a", "Field": "a"}}),
        ("parquet", element("a", "BytesAsBase64", path="$.a")),
    ],
    ids=json.dumps,
)
def test_a_mapping_that_cannot_be_carried_out_is_refused(kind: str, wrong: dict[str, Any]) -> None:
    """When it is created, and when it comes with a message."""
    with pytest.raises(IngestionError) as caught:
        mapping.parse(kind, json.dumps([wrong]))

    assert caught.value.code == "BadRequest_InvalidMapping"


class _Slow(io.BytesIO):
    """Gives three bytes at a time, so that every value is cut somewhere."""

    def read(self, size: int | None = -1) -> bytes:  # noqa: ARG002 - the caller's wish
        return super().read(3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'\xef\xbb\xbf{"n":1} {"n":2}', [b"1", b"2"]),
        (b'[{"n":"}"},\n{"n":"\\"]"}]  [] [{"n":[{"n":3}]}]', [b'"}"', b'"\\"]"', b'[{"n":3}]']),
        ('{"n":"é€😀"}{"n":"\\ud83d\\ude00"}'.encode(), ['"é€😀"'.encode(), b'"\\ud83d\\ude00"']),
        (b"  \n ", []),
    ],
)
def test_multijson_is_read_in_pieces_of_any_length(data: bytes, expected: list[bytes]) -> None:
    """Strings, escapes and characters may be cut anywhere."""
    extract = records.extractor([("n",)])

    for stream in (io.BytesIO(data), _Slow(data)):
        assert [bytes(row[0]) for chunk in multijson.rows(stream, extract) for row in chunk] == expected


@pytest.mark.parametrize(
    "data",
    [b'[{"n":1}', b'[{"n":1} {"n":2}]', b'[{"n":1},]', b"[[{}]]", b'{"n":"', b'{"n":1}}', b"[,]", b'{"n":"\\'],
)
def test_arrays_and_strings_that_are_not_closed_refuse_the_blob(data: bytes) -> None:
    """However the pieces fall."""
    extract = records.extractor([("n",)])

    for stream in (io.BytesIO(data), _Slow(data)):
        with pytest.raises(IngestionError):
            list(multijson.rows(stream, extract))
