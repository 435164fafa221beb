"""`multijson` and `singlejson`: a record may hold several objects, and each becomes a row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.encode import jsonseveral
from sinkcore.routes import Route
from tests.support.strictjson import parse
from tests.unit.test_encode_json import any_pace, encoded, json_objects, lines_of

ROUTE = Route("flights", "db", "Flights", format="multijson")

SPLIT = {
    b'{"a":1}': [b'{"a":1}'],
    b'{"a":1}{"b":2}': [b'{"a":1}', b'{"b":2}'],
    b'{"a":1}\n{"b":2}\n': [b'{"a":1}', b'{"b":2}'],
    b' {"a" : 1.50}\r\n\t{"b":"}{"} ': [b'{"a" : 1.50}', b'{"b":"}{"}'],
    b"{}{}{ }": [b"{}", b"{}", b"{ }"],
    b'[{"a":1}]': [b'{"a":1}'],
    b'\n[ {"a":10.357019999999999} ,\n{"b":[{}], "b":2} ]\n': [
        b'{"a":10.357019999999999}',
        b'{"b":[{}], "b":2}',
    ],
    b'[{"a":\n1}]': [b'{"a": 1}'],
    b'{\n"a":1\n}\n{\n"b":2\n}': [b'{ "a":1 }', b'{ "b":2 }'],
}

REFUSED_WHOLE = {
    b"[]": "not_an_object",
    b" [ ] ": "not_an_object",
    b"[1]": "not_an_object",
    b'[{"a":1},2]': "not_an_object",
    b'[{"a":1},null]': "not_an_object",
    b'[[{"a":1}]]': "not_an_object",
    b'[{"a":1}][{"b":2}]': "not_an_object",
    b'{"a":1}[{"b":2}]': "not_an_object",
    b'[{"a":1}]{"b":2}': "not_an_object",
    b'{"a":1} 5': "not_an_object",
    b'5 {"a":1}': "not_an_object",
    b'"{}"': "not_an_object",
    b'{"a":1},{"b":2}': "invalid_json",
    b'{"a":1}{"b":2': "invalid_json",
    b'{"a":1}{"b":2}x': "invalid_json",
    b'{"a":1}\x0c{"b":2}': "invalid_json",
    b'{"a":1}{"b":"\xff"}': "invalid_json",
    b'[{"a":"\xff"}]': "invalid_json",
    b'[{"a":1},]': "invalid_json",
    b'[{"a":1}': "invalid_json",
    b'{"a":1}]': "invalid_json",
    b" \n": "invalid_json",
    b'{"a":1}' + b'{"a":' * 100_000: "too_deep",
    b"[" * 100_000 + b"]" * 100_000: "too_deep",
}


@pytest.mark.parametrize("name", ["multijson", "singlejson"])
@pytest.mark.parametrize(("value", "rows"), SPLIT.items())
def test_each_object_becomes_a_row_with_its_own_bytes(name: str, value: bytes, rows: list[bytes]) -> None:
    result = encoded([b'{"before":1}', value, b'{"after":1}'], Route("flights", "db", "Flights", format=name))

    assert not result.refused
    assert lines_of(result) == [b'{"before":1}', *rows, b'{"after":1}']
    assert result.bodies[0].rows == len(rows) + 2


@pytest.mark.parametrize(("value", "reason"), REFUSED_WHOLE.items(), ids=range(len(REFUSED_WHOLE)))
def test_anything_else_inside_refuses_the_whole_record(value: bytes, reason: str) -> None:
    """Half a record in the table and the whole of it in a dead letter would be twice. An array of nothing would
    leave no trace at all."""
    result = encoded([b'{"before":1}', value, b'{"after":1}'], ROUTE)

    assert [refused.reason for refused in result.refused] == [reason]
    assert lines_of(result) == [b'{"before":1}', b'{"after":1}']


def test_a_plain_json_route_takes_one_object_only() -> None:
    """ADX's `json` format is one object a line; a route says by its format that more is meant."""
    result = encoded([b'[{"a":1}]', b'{"a":1}{"b":2}'])

    assert [refused.reason for refused in result.refused] == ["not_an_object", "invalid_json"]


def test_the_number_of_objects_in_a_record_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows take many times the bytes of an empty object."""
    monkeypatch.setattr(jsonseveral, "ROWS_PER_RECORD_MAX", 3)

    assert len(lines_of(encoded([b"{}{}{}", b"[{},{},{}]"], ROUTE))) == 6
    assert [r.reason for r in encoded([b"{}{}{}{}", b"[{},{},{},{}]"], ROUTE).refused] == ["too_large"] * 2
    assert [r.reason for r in encoded([b"0 0 0 0", b"[0,0,0,0]"], ROUTE).refused] == ["not_an_object"] * 2


def test_thousands_of_objects_in_one_record_all_become_rows() -> None:
    """More than are written at a time."""
    rows = [b'{"a":%d}' % number for number in range(3000)]

    assert lines_of(encoded([b"[" + b",".join(rows) + b"]", b"\n".join(rows)], ROUTE)) == rows + rows


def test_objects_of_one_record_carry_the_same_coordinates() -> None:
    route = Route("flights", "db", "Flights", format="singlejson", metadata="_kafka")

    rows = [json.loads(line) for line in lines_of(encoded([b"{}", b'[{"a":1},{"a":2}]'], route))]

    assert [(row.get("a"), row["_kafka"]["offset"]) for row in rows] == [(None, 0), (1, 1), (2, 1)]


def test_the_metadata_field_in_any_object_refuses_the_record() -> None:
    route = Route("flights", "db", "Flights", format="multijson", metadata="_kafka")

    result = encoded([b'{"a":1}{"\\u005fkafka":2}', b'[{"a":1},{"_kafka":2}]', b"{}"], route)

    assert [refused.reason for refused in result.refused] == ["metadata_conflict"] * 2
    assert len(lines_of(result)) == 1


@settings(any_pace, max_examples=40)
@given(
    st.lists(st.lists(json_objects, min_size=1, max_size=4), min_size=1, max_size=5),
    st.sampled_from(["array", "concatenated"]),
    st.sampled_from(["", " ", "\n", "\r\n\r\n"]),
    st.sampled_from([None, 1]),
)
def test_objects_come_out_as_they_went_in(
    records: list[list[dict[str, object]]], shape: str, between: str, indent: int | None
) -> None:
    """In their order, with every digit."""
    texts = [[json.dumps(item, indent=indent) for item in items] for items in records]
    values = [
        f"[{','.join(between + text for text in items)}]" if shape == "array" else between.join(items)
        for items in texts
    ]

    result = encoded([value.encode() for value in values], ROUTE)

    assert not result.refused
    assert [parse(line) for line in lines_of(result)] == [parse(t.encode()) for items in texts for t in items]
