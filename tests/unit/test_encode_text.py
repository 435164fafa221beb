"""Text: what counts as rows by hand-written answers, and what other parsers make of the joined file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.encode.text import WIDTHS_PER_RECORD_MAX
from sinkcore.encode.textmetadata import COLUMNS
from sinkcore.encode.textsyntax import DELIMITERS
from sinkcore.records import slices_of
from sinkcore.routes import Route
from tests.support.events import Sent, events_of
from tests.unit.test_encode_json import any_pace

SEGMENT = "0196a5b0c000" + "0" * 20
QUOTED = [name for name in DELIMITERS if name != "tsve"]

ONE_ROW = [
    b"a",
    b"a,b,c",
    b",",
    b" a , b ",
    b'""',
    b'"a","b"',
    b'"a\nb",c',
    b'"a\r\nb",c',
    b'"a\rb"',
    b'"say ""hi""",2',
    b'""""',
    b'",",1',
    "Zürich,\u2028,\x85,\x0b,\x0c".encode(),
    b"a\x00b,c",
    b"'a,b'",
    b"a\\,b\\",
    "\ufeffa,b".encode(),
]
SEVERAL = {
    b"a,b\n": [b"a,b"],
    b"a,b\r\n": [b"a,b"],
    b"a,b\nc,d": [b"a,b", b"c,d"],
    b"a,b\r\nc,d\r\n": [b"a,b", b"c,d"],
    b'"a\n",b\nc': [b'"a\n",b', b"c"],
    b'"a"\n"b"\n': [b'"a"', b'"b"'],
}
REFUSED = {
    b'"a': "a quote that is never closed at byte 0",
    b'a,"b': "a quote that is never closed at byte 2",
    b'a,b\n"c,d\n': "a quote that is never closed at byte 4",
    b'"a""': "a quote that is never closed at byte 0",
    b'a"b': "a quote inside a field without quotes at byte 1",
    b'a, "b"': "a quote inside a field without quotes at byte 3",
    b'"a"b': "text behind a closing quote at byte 3",
    b'"a" ,b': "text behind a closing quote at byte 3",
    b"a\rb": "a carriage return outside quotes at byte 1",
    b"a\r": "a carriage return outside quotes at byte 1",
    b"a\r\r\n": "a carriage return outside quotes at byte 1",
    b"\n": "an empty line at byte 0",
    b"\r\n": "an empty line at byte 0",
    b"a\n\nb": "an empty line at byte 2",
    b"a\n\n": "an empty line at byte 2",
    b"a,\xff": "invalid UTF-8 at byte 2",
    b"\xed\xa0\x80": "invalid UTF-8 at byte 0",
    b"\xc3": "invalid UTF-8 at byte 0",
    "\ufeff".encode(): "nothing but a byte order mark at byte 0",
    "a\n\ufeff\r\n".encode(): "nothing but a byte order mark at byte 2",
}


def encoded(
    records: list[Sent], format_: str, metadata: str | None = None, blob_max_bytes: int = 1 << 28
) -> Encoded:
    """What becomes of these records."""
    route = Route("flights", "db", "Flights", format=format_, metadata=metadata, tombstones="row")
    return encode(
        slices_of(events_of(records)),
        route,
        segment_id=SEGMENT,
        record_max_bytes=1 << 20,
        blob_max_bytes=blob_max_bytes,
    )


def sent(values: list[bytes]) -> list[Sent]:
    return [Sent(value, offset) for offset, value in enumerate(values)]


def texts_of(result: Encoded) -> list[str]:
    """The bodies, unpacked; each is as long and ends as it says."""
    texts = [gzip.decompress(body.data) for body in result.bodies]
    assert [len(text) for text in texts] == [body.raw_size_bytes for body in result.bodies]
    assert all(text.endswith(b"\n") for text in texts)
    return [text.decode() for text in texts]


def parsed(text: str, delimiter: str) -> list[list[str]]:
    """The rows as the standard library's parser has them, which refuses what is not well formed."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


@pytest.mark.parametrize("format_", QUOTED)
@pytest.mark.parametrize("value", ONE_ROW)
def test_a_row_is_joined_as_it_is(format_: str, value: bytes) -> None:
    delimiter = DELIMITERS[format_]
    value = value.replace(b",", delimiter)
    neighbour = b"x" + delimiter * (len(parsed(value.decode(), delimiter.decode())[0]) - 1)

    result = encoded(sent([neighbour, value, neighbour]), format_)

    assert result.refused == []
    assert texts_of(result) == [b"\n".join([neighbour, value, neighbour, b""]).decode()]


@pytest.mark.parametrize("value", SEVERAL)
def test_a_record_of_several_lines_is_several_rows(value: bytes) -> None:
    result = encoded(sent([value]), "csv")

    rows = [row for text in texts_of(result) for row in parsed(text, ",")]
    assert sorted(rows) == sorted(parsed(row.decode(), ",")[0] for row in SEVERAL[value])
    assert sum(body.rows for body in result.bodies) == len(SEVERAL[value])


@pytest.mark.parametrize("value", REFUSED)
def test_what_could_reach_beyond_its_record_is_a_dead_letter(value: bytes) -> None:
    """The neighbours before and behind come through untouched."""
    result = encoded(sent([b"1,2", value, b"3,4"]), "csv")

    assert texts_of(result) == ["1,2\n3,4\n"]
    assert [(r.record.offset, r.reason, r.detail) for r in result.refused] == [
        (1, "validation_failed", REFUSED[value])
    ]


def test_two_bad_records_do_not_make_a_good_one() -> None:
    """The first would open a quote that the second closes."""
    assert len(encoded(sent([b'1,"a', b'b",2', b"3,4"]), "csv").refused) == 2
    assert len(encoded(sent([b"a\xc3", b"\xa9b"]), "csv").refused) == 2


def test_rows_of_different_widths_are_different_bodies() -> None:
    """ADX refuses a blob in which they differ, and the good rows with it."""
    result = encoded(sent([b"1,2", b"3", b"4,5", b"6,7,8", b'"9,9",10', b"11\n12,13"]), "csv")

    assert texts_of(result) == ['1,2\n4,5\n"9,9",10\n12,13\n', "3\n11\n", "6,7,8\n"]
    assert [body.rows for body in result.bodies] == [4, 2, 1]


def test_a_record_cannot_ask_for_very_many_bodies() -> None:
    """A segment with more blobs than a row of the ledger holds could never be committed."""
    value = b"\n".join(b"," * width for width in range(1, WIDTHS_PER_RECORD_MAX + 1))

    assert encoded(sent([value]), "csv").refused == []
    (refused,) = encoded(sent([value + b"\n" + b"," * 100]), "csv").refused
    assert (refused.reason, refused.detail) == ("validation_failed", "lines of 9 widths; at most 8 in a record")


def test_a_row_is_never_cut_where_a_body_ends() -> None:
    """A line break between quotes is none between rows."""
    rows = [b'"%d\n\r\n",x' % number for number in range(400)]

    result = encoded(sent(rows), "csv", blob_max_bytes=1024)

    texts = texts_of(result)
    assert len(texts) > 3
    assert [parsed(text, ",") for text in texts] == [
        [[f"{number}\n\r\n", "x"] for number in range(400)][first : first + body.rows]
        for first, body in zip(
            [sum(b.rows for b in result.bodies[:n]) for n in range(len(texts))], result.bodies, strict=True
        )
    ]


TSVE = {
    b"a\tb": [b"a\tb"],
    b"a\\\tb": [b"a\\\tb"],
    b"a\\nb\t\\\\": [b"a\\nb\t\\\\"],
    b"a\nb\r\n": [b"a", b"b"],
    b'\\"a': [b'\\"a'],
    b'a"b': [b'a"b'],
}
TSVE_REFUSED = {
    b"a\\": "a backslash with nothing behind it at byte 1",
    b"a\\\nb": "a backslash with nothing behind it at byte 1",
    b"a\\\\\\": "a backslash with nothing behind it at byte 3",
    b'"a"': 'a field that begins with a quote; write \\" at byte 0',
    b'a\t"b"': 'a field that begins with a quote; write \\" at byte 1',
    b"a\rb": "a carriage return at byte 1",
    b"\n": "an empty line at byte 0",
    b"\xff": "invalid UTF-8 at byte 0",
}


@pytest.mark.parametrize("value", TSVE)
def test_tsve_knows_a_backslash_and_no_quotes(value: bytes) -> None:
    assert sorted("".join(texts_of(encoded(sent([value]), "tsve"))).encode().splitlines()) == sorted(TSVE[value])


@pytest.mark.parametrize("value", TSVE_REFUSED)
def test_tsve_refuses_what_would_take_the_line_break_behind_it(value: bytes) -> None:
    (refused,) = encoded(sent([value]), "tsve").refused

    assert (refused.reason, refused.detail) == ("validation_failed", TSVE_REFUSED[value])


def test_an_escaped_tab_is_no_column() -> None:
    assert [body.rows for body in encoded(sent([b"a\\\tb\tc", b"a\tb", b"a"]), "tsve").bodies] == [2, 1]


def test_a_line_of_txt_is_a_row_whatever_is_in_it() -> None:
    """ADX skips empty lines, so they are no rows here either, lest a count of rows never agree."""
    values = [b'"a', b"b,c\td\n", b"e\n\n\nf", b"g\r\n", b"h\ri", b"\n\n", b"\xff", b"\\", "\ufeff".encode()]

    result = encoded(sent(values), "txt")

    assert [gzip.decompress(body.data) for body in result.bodies] == [b'"a\nb,c\td\ne\nf\ng\nh\ri\n\\\n']
    assert result.bodies[0].rows == 7
    assert [(r.record.offset, r.detail) for r in result.refused] == [
        (5, "nothing but line breaks"),
        (6, "invalid UTF-8 at byte 0"),
        (8, "a line of nothing but a byte order mark"),
    ]


def test_a_record_of_raw_is_one_value_whatever_is_in_it() -> None:
    """In ADX's own `raw` a whole blob is one value; so a record is stored as one field of CSV."""
    values = ["a\nb", '"', ",\t;", "ü\x00\r", " "]
    route = Route("t", "d", "T", format="raw")

    result = encoded(sent([*(value.encode() for value in values), b"\xff"]), "raw")

    assert route.stored_format == "csv"
    assert [row for text in texts_of(result) for row in parsed(text, ",")] == [[value] for value in values]
    assert [(r.record.offset, r.detail) for r in result.refused] == [(5, "invalid UTF-8 at byte 0")]


METADATA_ROW = ["flights", "3", "17", "2013-01-01T10:00:00.000Z", SEGMENT, 'E"W\nR', '{"type":"a,b"}']


@pytest.mark.parametrize("format_", QUOTED)
def test_metadata_comes_first_in_its_order(format_: str) -> None:
    """A short row then cannot move them, nor they it; mappings are written against these ordinals."""
    delimiter = DELIMITERS[format_]
    records = [Sent(b"a" + delimiter + b"b", 17, 3, b'E"W\nR', headers=(("type", b"a,b"),))]

    (text,) = texts_of(encoded(records, format_, "_kafka"))

    assert COLUMNS == ("topic", "partition", "offset", "timestamp", "segment", "key", "headers")
    assert parsed(text, delimiter.decode()) == [[*METADATA_ROW, "a", "b"]]


@pytest.mark.parametrize("format_", ["txt", "raw"])
def test_formats_without_columns_become_csv_with_metadata(format_: str) -> None:
    records = [Sent(b'say "hi", you', 17, 3, b'E"W\nR', headers=(("type", b"a,b"),))]

    (text,) = texts_of(encoded(records, format_, "_kafka"))

    assert Route("t", "d", "T", format=format_, metadata="_kafka").stored_format == "csv"
    assert parsed(text, ",") == [[*METADATA_ROW, 'say "hi", you']]


def test_what_kafka_has_not_got_is_empty_and_what_is_no_text_is_json() -> None:
    records = [
        Sent(b"a", 0, timestamp="1969-12-31T23:59:59.999Z"),
        Sent(b"b", 1, key=b"\xff", headers=(("h", b"\xfe"), ("h", None))),
        Sent(b"c", 2, key=b""),
    ]

    rows = parsed(texts_of(encoded(records, "csv", "_kafka"))[0], ",")

    assert [row[3:4] + row[5:] for row in rows] == [
        ["", "", "{}", "a"],
        ["2013-01-01T10:00:00.000Z", '{"base64":"/w=="}', '{"h":[{"base64":"/g=="},null]}', "b"],
        ["2013-01-01T10:00:00.000Z", "", "{}", "c"],
    ]


def test_every_line_of_a_record_has_its_metadata() -> None:
    rows = parsed(texts_of(encoded([Sent(b"a\nb\n", 5)], "csv", "_kafka"))[0], ",")

    assert [(row[2], row[-1]) for row in rows] == [("5", "a"), ("5", "b")]


@pytest.mark.parametrize("format_", [*DELIMITERS, "txt", "raw"])
def test_a_tombstone_can_be_a_row_of_its_metadata(format_: str) -> None:
    """Its width is its own, and so is its body."""
    result = encoded([Sent(b"a", 0), Sent(None, 1, key=b"k")], format_, "_kafka")

    assert [body.rows for body in result.bodies] == [1, 1]
    last = texts_of(result)[1]
    delimiter = DELIMITERS.get(format_, b",").decode()
    assert unescaped(last) == [["flights", "0", "1", "2013-01-01T10:00:00.000Z", SEGMENT, "k", "{}"]] or (
        parsed(last, delimiter) == [["flights", "0", "1", "2013-01-01T10:00:00.000Z", SEGMENT, "k", "{}"]]
    )


def unescaped(text: str) -> list[list[str]]:
    """Rows of `tsve` by a reader of our own; no other knows the format."""
    meanings = {"t": "\t", "n": "\n", "r": "\r"}
    rows = []
    for line in text.split("\n")[:-1]:
        fields = re.findall(r"(?:[^\\\t]|\\.)*(?:\t|$)", line, re.DOTALL)[
            : line.replace("\\\t", "").count("\t") + 1
        ]
        rows.append(
            [
                re.sub(r"\\(.)", lambda m: meanings.get(m[1], m[1]), f.removesuffix("\t"), flags=re.S)
                for f in fields
            ]
        )
    return rows


NASTY = st.text(st.sampled_from(list('"",;\t|\x01\\\n\r\nab é')), max_size=12).map(str.encode)
BYTES = st.binary(max_size=6)
WELL_FORMED = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5), min_size=1)


def written(fields: list[str], delimiter: str) -> bytes:
    """A row by the standard library's writer."""
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(fields)
    return file.getvalue().encode()


@settings(any_pace, max_examples=40)
@given(st.data())
@pytest.mark.parametrize("metadata", [None, "_kafka"])
@pytest.mark.parametrize("format_", QUOTED)
def test_the_joined_file_reads_as_its_records_read_alone(
    format_: str, metadata: str | None, data: st.DataObject
) -> None:
    """Whatever lies beside a record: no column moves, no row is swallowed, none appears."""
    delimiter = DELIMITERS[format_].decode()
    row = WELL_FORMED.map(lambda fields: written(fields, delimiter))
    values = data.draw(st.lists(NASTY | BYTES | row | st.tuples(row, row).map(b"".join), max_size=8))
    values = [value for value in values if value]

    result = encoded(sent(values), format_, metadata)

    refused = {r.record.offset for r in result.refused}
    alone = [
        (str(offset) if metadata else "", row)
        for offset, value in enumerate(values)
        if offset not in refused
        for row in parsed(value.decode(), delimiter)
    ]
    together: list[tuple[str, list[str]]] = []
    for body, text in zip(result.bodies, texts_of(result), strict=True):
        found = parsed(text, delimiter)
        assert len(found) == body.rows
        assert len({len(row) for row in found}) == 1
        assert all(json.loads(row[6]) == {} for row in found if metadata)
        together += [(row[2], row[7:]) if metadata else ("", row) for row in found]
    assert sorted(together) == sorted(alone)


@settings(any_pace, max_examples=20)
@given(st.lists(NASTY | WELL_FORMED.map(lambda fields: written(fields, ",")), min_size=1, max_size=8))
def test_duckdb_reads_the_same_rows(tmp_path_factory: pytest.TempPathFactory, values: list[bytes]) -> None:
    """Another parser, in another language, in its strict mode."""
    result = encoded(sent([value for value in values if value]), "csv", "_kafka")
    file: Path = tmp_path_factory.getbasetemp() / "rows.csv.gz"

    for body, text in zip(result.bodies, texts_of(result), strict=True):
        file.write_bytes(body.data)
        expected = parsed(text, ",")
        columns = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(len(expected[0])))
        found = duckdb.execute(
            f"SELECT * FROM read_csv(?, auto_detect=false, header=false, delim=',', quote='\"', escape='\"',"  # noqa: S608 - columns of our own naming
            f" strict_mode=true, new_line='\\n', compression='gzip', columns={{{columns}}})",
            [str(file)],
        ).fetchall()
        assert [[value or "" for value in row] for row in found] == expected


@settings(any_pace, max_examples=80)
@given(st.lists(st.text(st.sampled_from(list('"\\\t\n\ra')), max_size=8).map(str.encode), max_size=6))
def test_tsve_keeps_to_its_lines(values: list[bytes]) -> None:
    values = [value for value in values if value]

    result = encoded(sent(values), "tsve", "_kafka")

    refused = {r.record.offset for r in result.refused}
    rows = [row for text in texts_of(result) for row in unescaped(text)]
    assert len(rows) == sum(body.rows for body in result.bodies)
    assert {int(row[2]) for row in rows} == set(range(len(values))) - refused
    assert all(row[0] == "flights" and row[6] == "{}" for row in rows)


@pytest.mark.parametrize("format_", [*DELIMITERS, "txt", "raw"])
def test_a_large_batch_takes_the_quick_way_and_the_slow_one_alike(format_: str) -> None:
    """One odd record sends its chunk another way; what comes out is the same."""
    delimiter = DELIMITERS.get(format_, b",")
    values = [b"%d" % number + delimiter + b"x" for number in range(3000)]

    plain = encoded(sent(values), format_)
    odd = encoded(sent([*values, b"\xff"]), format_)

    assert len(odd.refused) == 1
    assert [body.rows for body in plain.bodies] == [body.rows for body in odd.bodies] == [3000]
    assert texts_of(plain) == texts_of(odd)
