"""What a value in a blob becomes in a column. The answers are written by hand, from the documentation where it
speaks (docs/adx-double.md, "Conversions", says where it does not)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from azure.kusto.data.data_format import DataFormat

from tests.adx.support import Double

MIB = 1024 * 1024


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


# Type -> pairs of a JSON token and the value that a query gives back.
CASES: dict[str, list[tuple[str, Any]]] = {
    "long": [
        ("9007199254740993", 9007199254740993),
        ("-9223372036854775808", -9223372036854775808),
        ("9223372036854775808", None),
        ("1.7", None),
        ("1.0", None),
        ("1e3", None),
        ('"12"', 12),
        ('" 12 "', 12),
        ('"1.7"', None),
        ('"1_000"', None),
        ('"0x10"', None),
        ('"twelve"', None),
        ('""', None),
        ("true", None),
        ("null", None),
        ("[1]", None),
        ('{"a": 1}', None),
    ],
    "int": [("2147483647", 2147483647), ("2147483648", None), ("-1", -1), ("1.5", None), ('"7"', 7)],
    "real": [
        ("0.1", 0.1),
        ("0.12345678901234567", 0.12345678901234567),
        ("5", 5.0),
        ("-1.5e-3", -0.0015),
        ('"2.5"', 2.5),
        ('"NaN"', "NaN"),
        ('"two"', None),
        ('"1_0.5"', None),
        ("false", None),
        ("null", None),
    ],
    "decimal": [
        ("1.10", Decimal("1.1")),
        ("12345678901234567890.123456789012345678", Decimal("12345678901234567890.123456789012345678")),
        ('"3.25"', Decimal("3.25")),
        ('"x"', None),
        ("null", None),
    ],
    "bool": [
        ("true", True),
        ("false", False),
        ('"true"', True),
        ('"False"', False),
        ("1", True),
        ("0", False),
        ("2", None),
        ('"t"', None),
        ('"yes"', None),
        ("null", None),
    ],
    "string": [
        ('"plain"', "plain"),
        ('"a \\"quote\\", a \\\\, a \\n and \\u00e9"', 'a "quote", a \\, a \n and é'),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"lone \\ud83d surrogate"', "lone \ufffd surrogate"),
        ('"zero\\u0000byte"', "zero\0byte"),
        ("1.10", "1.10"),
        ("true", "true"),
        ('{"a": [1, 2.50]}', '{"a": [1, 2.50]}'),
        ("null", ""),
        ('""', ""),
        ('"null"', "null"),
        ('"a, b; c|d"', "a, b; c|d"),
    ],
    "datetime": [
        ('"2013-01-01T05:00:00Z"', utc(2013, 1, 1, 5)),
        ('"2013-01-01T05:00:00+02:00"', utc(2013, 1, 1, 3)),
        ('"2013-01-01T05:00:00.1234567-01:30"', utc(2013, 1, 1, 6, 30, 0, 123456)),
        ('"2013-01-01 05:00"', utc(2013, 1, 1, 5)),
        ('"2013-01-01"', utc(2013, 1, 1)),
        ('"2014-11-08 15:05:25 GMT"', utc(2014, 11, 8, 15, 5, 25)),
        ('"Sat, 8 Nov 14 15:05:02 GMT"', utc(2014, 11, 8, 15, 5, 2)),
        ('"Saturday, 08-Nov-14 15:05:02"', utc(2014, 11, 8, 15, 5, 2)),
        ('"0001-01-01T00:00:00Z"', utc(1, 1, 1)),
        ('"2013-13-01"', None),
        ('"epoch"', None),
        ('"yesterday"', None),
        ("1357016400000", None),
        ("null", None),
    ],
    "timespan": [
        ('"01:02:03"', timedelta(hours=1, minutes=2, seconds=3)),
        ('"1.02:03:04.5000000"', timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ('"-00:00:01"', timedelta(seconds=-1)),
        ('"soon"', None),
        ("null", None),
    ],
    "guid": [
        ('"74be27de-1e4e-49d9-b579-fe0b331d3642"', "74be27de-1e4e-49d9-b579-fe0b331d3642"),
        ('"74BE27DE1E4E49D9B579FE0B331D3642"', "74be27de-1e4e-49d9-b579-fe0b331d3642"),
        ('"{74be27de-1e4e-49d9-b579-fe0b331d3642}"', "74be27de-1e4e-49d9-b579-fe0b331d3642"),
        ('"74be27de"', None),
        ("5", None),
    ],
    "dynamic": [
        ('{"b": 1, "a": [true, null]}', {"b": 1, "a": [True, None]}),
        ("12345678901234567890123", 12345678901234567890123),
        ('"text"', "text"),
        ('"lone \\udfff"', "lone \ufffd"),
        ("[]", []),
        ("null", None),
    ],
}


@pytest.fixture(scope="module")
def converted(double: Double) -> dict[str, list[Any]]:
    """What became of every case: all types are queued first, so that they are ingested together."""
    tables = {kind: double.table(f"n: int, v: {kind}") for kind in CASES}
    queued = {}
    for kind, cases in CASES.items():
        lines = b"\n".join(b'{"n": %d, "v": %b}' % (n, token.encode()) for n, (token, _) in enumerate(cases))
        queued[kind] = double.queue_blob(double.upload(lines), double.properties(tables[kind]))
    assert {double.outcome(source_id) for source_id in queued.values()} == {"Succeeded"}
    return {kind: [row[1] for row in double.query(f"{tables[kind]} | sort by n asc")] for kind in CASES}


@pytest.mark.parametrize("kind", CASES)
def test_each_token_becomes_the_documented_value(converted: dict[str, list[Any]], kind: str) -> None:
    """A mismatch is null (the empty string in a string column), never an approximation."""
    assert dict(zip([token for token, _ in CASES[kind]], converted[kind], strict=True)) == dict(CASES[kind])


def test_a_dynamic_value_is_kept_byte_for_byte(double: Double) -> None:
    """Key order, repeated keys, big integers and all digits of a float survive, so that nothing hides a loss."""
    table = double.table("d: dynamic")
    text = '{"z":1,"a":12345678901234567890,"a":0.12345678901234567,"n":{"b":1.10,"k":[1e2]}}'

    assert double.ingest(table, b'{"d":%b}' % text.encode()) == "Succeeded"

    # The reply itself, since Python's parser would drop the repeated key.
    raw = double.kusto._session.post(f"{double.engine}/v2/rest/query", json={"db": "db", "csl": table}).text
    assert text in raw


def test_a_string_over_a_mebibyte_is_cut_and_a_dynamic_value_over_it_is_dropped(double: Double) -> None:
    """ADX does both without a word; a sink has to know before it uploads."""
    table = double.table("n: int, s: string, d: dynamic")
    # The limit falls into the middle of a two-byte character.
    long = "x" * (MIB - 1) + "é" + "tail"
    rows = [
        {"n": 1, "s": long, "d": 1},
        {"n": 2, "s": "short", "d": {"k": "y" * MIB}},
        {"n": 3, "s": "z" * (MIB - 10), "d": {"k": "y" * (MIB - 20)}},
    ]

    assert double.ingest(table, [json.dumps(row).encode() for row in rows]) == "Succeeded"

    assert double.query(f"{table} | sort by n asc | project strlen(s), isnull(d)") == [
        [MIB - 1, False],
        [5, True],
        [MIB - 10, False],
    ]


def test_csv_fields_follow_the_same_rules_and_dynamic_ones_are_parsed(double: Double) -> None:
    """A CSV field is text: `1.7` in a long column is null here too, and JSON in a dynamic column is JSON."""
    table = double.table("a: long, b: string, c: dynamic, d: datetime")
    lines = [
        b'12,"say ""hi"", twice",' + b'"{""k"": 1.10}",2020-01-02',
        b"1.7,,not json,",
        b" 5 ,  padded,,2020-01-02T03:04:05+01:00",
        b'6,"two\nlines",[],x',
    ]

    assert double.ingest(table, b"\r\n".join(lines), DataFormat.CSV) == "Succeeded"

    assert sorted(double.query(table), key=str) == sorted(
        [
            [12, 'say "hi", twice', {"k": 1.10}, utc(2020, 1, 2)],
            [None, "", "not json", None],
            [5, "  padded", None, utc(2020, 1, 2, 2, 4, 5)],
            [6, "two\nlines", [], None],
        ],
        key=str,
    )
