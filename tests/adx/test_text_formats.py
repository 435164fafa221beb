"""csv's relatives, lines, whole texts, and validation policies."""

from __future__ import annotations

import io
import json
import random

import pytest
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest.ingestion_properties import ValidationImplications, ValidationOptions, ValidationPolicy
from hypothesis import given, settings
from hypothesis import strategies as st

from localrunner.adx import delimited
from localrunner.adx.errors import IngestionError
from localrunner.adx.mapping import Source
from tests.adx.support import Double


@pytest.mark.parametrize(
    ("data_format", "data"),
    [
        (DataFormat.TSV, b'1\ta b\t{"k":1}\n2\t"c\td"\t\n'),
        (DataFormat.SCSV, b'1;a b;{"k":1}\r\n2;"c\td";\r\n'),
        (DataFormat.PSV, b'1|a b|{"k":1}\n2|"c\td"|\n'),
        (DataFormat.SOHSV, b'1\x01a b\x01{"k":1}\n2\x01c\td\x01\n'),
        (DataFormat.TSVE, b'1\ta b\t{"k":1}\n2\tc\\td\t\n'),
    ],
    ids=lambda value: value.kusto_value if isinstance(value, DataFormat) else "",
)
def test_each_delimited_format_has_its_own_delimiter(double: Double, data_format: DataFormat, data: bytes) -> None:
    """The same two rows in each; quotes as in csv, but for tsve, which has the backslash."""
    table = double.table("n: long, s: string, d: dynamic")

    assert double.ingest(table, data, data_format) == "Succeeded"
    assert double.query(f"{table} | sort by n asc") == [[1, "a b", {"k": 1}], [2, "c\td", None]]


def test_txt_is_lines_and_raw_is_one_text(double: Double) -> None:
    """Empty lines of txt are skipped; raw keeps every character."""
    lines, whole = double.table("s: string"), double.table("s: string")
    data = b'a,"b\n\n{"k": 1}\r\nlast\t\\x'

    assert double.ingest(lines, data, DataFormat.TXT) == "Succeeded"
    assert double.ingest(whole, data, DataFormat.RAW) == "Succeeded"

    assert sorted(double.query(lines)) == [['a,"b'], ["last\t\\x"], ['{"k": 1}']]
    assert double.query(whole) == [[data.decode()]]


@pytest.mark.parametrize("data_format", [DataFormat.TXT, DataFormat.RAW])
def test_only_the_first_place_of_a_line_or_text_can_be_mapped(double: Double, data_format: DataFormat) -> None:
    """Text is a single column (csv-mapping.md); a second column stays empty."""
    table = double.table("s: string, t: string")

    assert double.ingest(table, b"x,y", data_format) == "Succeeded"
    assert double.query(table) == [["x,y", ""]]


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (ValidationOptions.DoNotValidate, "Succeeded"),
        (ValidationOptions.ValidateCsvInputColumnLevelOnly, "Succeeded"),
        (ValidationOptions.ValidateCsvInputConstantColumns, "Stream_WrongNumberOfFields"),
    ],
)
def test_only_one_validation_refuses_lines_of_different_length(
    double: Double, options: ValidationOptions, outcome: str
) -> None:
    """kusto-ingest-client-errors.md; without the policy it is that one too."""
    table = double.table("n: long, s: string")
    policy = ValidationPolicy(options, ValidationImplications.Fail)  # type: ignore[no-untyped-call]

    assert double.ingest(table, b"1,x\n2\n3,y,z\n", DataFormat.CSV, validation_policy=policy) == outcome
    expected = [[1, "x"], [2, ""], [3, "y"]] if outcome == "Succeeded" else []
    assert sorted(double.query(table)) == expected


_CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _escaped(cell: str) -> str:
    for character, name in (("\\", "\\"), ("\t", "t"), ("\n", "n"), ("\r", "r"), ("\0", "0")):
        cell = cell.replace(character, "\\" + name)
    return cell


@given(st.lists(_CELLS, min_size=2, max_size=4))
@settings(max_examples=200, deadline=None)
def test_escaped_fields_of_tsve_come_back_as_they_were(cells: list[str]) -> None:
    """Tabs and line breaks inside fields are what the format is for."""
    line = "\t".join(_escaped(cell) for cell in cells) + "\n"
    sources = [Source(f"c{place}", ordinal=place) for place in range(len(cells))]

    (rows,) = delimited.rows(io.BytesIO(line.encode()), delimited.Shape("tsve"), sources, [False] * len(cells))

    assert [[_text(token) for token in row] for row in rows] == ([cells] if line.strip("\n") else [])


def _text(token: bytes) -> str:
    return str(json.loads(token)) if token else ""


@given(st.binary(max_size=200), st.sampled_from(delimited.FORMATS))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_rows_or_a_documented_failure(data: bytes, name: str) -> None:
    """Whatever a blob holds, the worker meets no other exception."""
    sources = [Source("a", ordinal=0), Source("b", ordinal=3)]
    try:
        rows = [
            row
            for chunk in delimited.rows(io.BytesIO(data), delimited.Shape(name), sources, [False, True])
            for row in chunk
        ]
    except IngestionError as error:
        assert error.code in ("Stream_WrongNumberOfFields", "Stream_ClosingQuoteMissing", "BadRequest_InvalidBlob")  # noqa: PT017 - either outcome is right
    else:
        assert all(len(row) == 2 for row in rows)


def test_a_long_raw_text_is_cut_at_a_mebibyte(double: Double) -> None:
    """As any string."""
    table = double.table("s: string")
    data = bytes(random.Random(7).choices(b"abc \n", k=1_500_000))

    assert double.ingest(table, data, DataFormat.RAW) == "Succeeded"
    assert double.query(f"{table} | project strlen(s)") == [[1024 * 1024]]
