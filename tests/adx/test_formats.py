"""Which records a blob holds, and when the whole blob is refused."""

from __future__ import annotations

import gzip
import io
import uuid
import zipfile

import pytest
from azure.kusto.data.data_format import DataFormat

from tests.adx.support import Double

# Lines that RFC 8259 does not allow, or that are not one object.
MALFORMED = [
    b"nonsense",
    b'{"n": 1',
    b'{"n": 1}}',
    b'{"n": 1} {"n": 2}',
    b'{"n": 01}',
    b'{"n": NaN}',
    b'{"n": 1,}',
    b"{'n': 1}",
    b'{"n": 1} // comment',
    b"[1]",
    b"7",
    b'"text"',
    b"null",
    b'{"n": ' + b"[" * 100_000,
    b'{"s": "tab\there"}',
]


def test_malformed_lines_of_json_are_skipped_without_a_word(double: Double) -> None:
    """The loss that our app has to prevent by validating first must be real here."""
    table = double.table("n: long")
    lines = [b'{"n": 10}', *MALFORMED, b"", b"   ", b'{"n": 11}']

    assert double.ingest(table, lines) == "Succeeded"

    assert sorted(double.query(table)) == [[10], [11]]


def test_line_ends_byte_order_mark_and_invalid_utf_8_are_no_obstacle(double: Double) -> None:
    """Invalid UTF-8 becomes U+FFFD at ingestion (string.md); a line may end in CR LF, the last one in nothing."""
    table = double.table("n: long, s: string, d: dynamic")
    data = b'\xef\xbb\xbf{"n": 1, "s": "a"}\r\n{"n": 2, "s": "\xff"}\n{"n": 3, "d": {\r"k": 1}}'

    assert double.ingest(table, data) == "Succeeded"

    assert double.query(f"{table} | sort by n asc") == [[1, "a", None], [2, "\ufffd", None], [3, "", {"k": 1}]]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"nonsense\n", b"[1, 2]\n"], ids=["empty", "blank", "text", "array"]
)
def test_a_json_blob_without_a_record_fails(double: Double, data: bytes) -> None:
    """BadRequest_NoRecordsOrWrongFormat, as for `json` used instead of `multijson`."""
    assert double.ingest(double.table("n: long"), data) == "BadRequest_NoRecordsOrWrongFormat"


@pytest.mark.parametrize("data_format", [DataFormat.MULTIJSON, DataFormat.SINGLEJSON])
@pytest.mark.parametrize(
    "data",
    [
        b'[{"n": 1, "d": {"k":\r\n 2}}, {"n": 2}]',
        b'{"n": 1,\n "d": {"k":\n 2}}\r\n{"n": 2}',
        b'{"n":1,"d":{"k":2}}{"n":2}',
    ],
    ids=["array", "lines", "no space"],
)
def test_multijson_holds_an_array_or_objects_that_span_lines(
    double: Double, data: bytes, data_format: DataFormat
) -> None:
    """Each property bag is a record wherever the line breaks are."""
    table = double.table("n: long, d: dynamic")

    assert double.ingest(table, data, data_format) == "Succeeded"
    assert double.query(f"{table} | sort by n asc") == [[1, {"k": 2}], [2, None]]


def test_one_malformed_record_refuses_a_whole_multijson_blob(double: Double) -> None:
    """BadRequest_InvalidBlob, and none of the good records before it is kept."""
    table = double.table("n: long, s: string")
    properties = double.properties(table, DataFormat.MULTIJSON)
    # Two objects on a line are no fault here.
    malformed = [line for line in MALFORMED if line != b'{"n": 1} {"n": 2}']

    sources = [double.queue_blob(double.upload(b'{"n": 10}\n' + line), properties) for line in malformed]

    assert [double.outcome(source) for source in sources] == ["BadRequest_InvalidBlob"] * len(malformed)
    assert double.count(table) == 0


def test_compression_goes_by_the_name_alone(double: Double) -> None:
    """`.gz` and `.zip`, whatever the rest of the name is; a zip archive holds one file or several."""
    table = double.table("n: long")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.json", b'{"n": 1}')
        file.writestr("b.json", b'{"n": 2}')
    urls = [
        double.upload(archive.getvalue(), ".json.zip"),
        double.upload(gzip.compress(b'{"n": 3}'), ".GZ"),
        double.upload(b'{"n": 4}', ".gz.json"),
    ]

    outcomes = [double.outcome(double.queue_blob(url, double.properties(table))) for url in urls]

    assert outcomes == ["Succeeded"] * 3
    assert sorted(double.query(table)) == [[1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("suffix", "data", "code"),
    [
        (".json.gz", b'{"n": 1}', "BadRequest_InvalidBlob"),
        (".json.gz", gzip.compress(b'{"n": 1}\n' * 1000)[:-20], "BadRequest_InvalidBlob"),
        (".json.zip", b'{"n": 1}', "BadRequest_InvalidArchive"),
        (".json.zip", b"PK\x05\x06" + bytes(18), "BadRequest_EmptyArchive"),
    ],
    ids=["not gzip", "cut gzip", "not zip", "empty zip"],
)
def test_broken_compression_refuses_the_blob(double: Double, suffix: str, data: bytes, code: str) -> None:
    """None of the rows before the break is kept."""
    table = double.table("n: long")

    assert double.outcome(double.queue_blob(double.upload(data, suffix), double.properties(table))) == code
    assert double.count(table) == 0


def test_a_blob_that_breaks_off_leaves_no_rows_among_those_of_its_batch(double: Double) -> None:
    """The first mebibytes of it were good, and were read before the break was found."""
    table = double.table("n: long, s: string")
    double.command(f".alter table {table} policy ingestionbatching '{{\"MaximumNumberOfItems\": 3}}'")
    properties = double.properties(table, flush_immediately=False)
    line = b'{"n": 7, "s": "%b"}\n' % uuid.uuid4().hex.encode()
    cut = gzip.compress(line * 100_000)[:-100]
    urls = [double.upload(b'{"n": 1}'), double.upload(cut, ".json.gz"), double.upload(b'{"n": 2}')]

    sources = [double.queue_blob(url, properties) for url in urls]

    assert [double.outcome(source) for source in sources] == ["Succeeded", "BadRequest_InvalidBlob", "Succeeded"]
    assert sorted(double.query(f"{table} | project n")) == [[1], [2]]


def test_csv_refuses_lines_of_different_length_and_open_quotes(double: Double) -> None:
    """Stream_WrongNumberOfFields and Stream_ClosingQuoteMissing, of the documented list."""
    table = double.table("a: long, b: string")

    assert double.ingest(table, b"1,x\n2\n", DataFormat.CSV) == "Stream_WrongNumberOfFields"
    assert double.ingest(table, b'1,"x\n', DataFormat.CSV) == "Stream_ClosingQuoteMissing"
    assert double.count(table) == 0


def test_the_first_record_of_a_csv_blob_can_be_ignored(double: Double) -> None:
    """Files with a line of column names."""
    table = double.table("a: long, b: string")

    assert double.ingest(table, b"a,b\n1,x\n", DataFormat.CSV, ignore_first_record=True) == "Succeeded"
    assert double.query(table) == [[1, "x"]]


def test_a_table_of_one_column_keeps_rows_that_have_nothing_for_it(double: Double) -> None:
    """A row of one missing value is still a row."""
    table = double.table("n: long")

    assert double.ingest(table, [b'{"other": 1}', b'{"n": null}', b"{}", b'{"n": 1}']) == "Succeeded"
    assert double.count(table) == 4


def test_a_large_blob_is_ingested_whole(double: Double) -> None:
    """Chunks end in the middle of lines, and lines are longer than DuckDB's reader takes."""
    table = double.table("n: long, s: string, t: string, u: string")
    pad = b"p" * 900_000
    lines = [b'{"n": %d, "s": "%b"}' % (n, b"q" * n) for n in range(200)]
    lines += [b'{"n": %d, "s": "%b", "t": "%b", "u": "%b"}' % (1000 + n, pad, pad, pad) for n in range(3)]

    assert double.ingest(table, lines, suffix=".json.gz") == "Succeeded"

    assert double.query(f"{table} | summarize count(), sum(n), sum(strlen(s)), sum(strlen(u))") == [
        [203, sum(range(200)) + 3003, sum(range(200)) + 2_700_000, 2_700_000]
    ]
