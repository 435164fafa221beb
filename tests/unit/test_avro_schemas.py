"""Schemas of Avro that are legal, or almost, and odd: whatever becomes of a record, its neighbours can be read."""

from __future__ import annotations

import json
import time
import warnings
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from sinkcore.encode import Encoded
from sinkcore.schemas import Reference, Schema
from tests.support.avro import rows_by_avro, rows_of_file, schema_of_file, written
from tests.support.schemas import KnownSchemas, framed, schema_of
from tests.unit.test_encode_avro import encoded, faults_of


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields.items()]}


def with_schema(schema: Any, *values: bytes, **route: Any) -> Encoded:
    known = KnownSchemas({1: schema if isinstance(schema, Schema) else schema_of(schema)})
    return encoded([framed(1, value) for value in values], known, **{"format": "apacheavro", **route})


def rows_of(result: Encoded) -> list[Any]:
    """The rows, as both readers have them."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Avro's own library says which logical types it does not know.
        for body in result.bodies:
            assert rows_by_avro(body.data) == rows_of_file(body.data)
            rows += rows_of_file(body.data)
    return rows


def doubling(levels: int, leaf: Any) -> Any:
    """A record that holds another one twice, which holds another one twice, and so on."""
    found = record("R0", a=leaf)
    for level in range(1, levels):
        found = record(f"R{level}", x=found, y=f"R{level - 1}")
    return found


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        (doubling(60, "int"), b"\x00" * 100, "validation_failed"),
        (doubling(60, ["null", "int"]), b"\x00" * 100, "validation_failed"),
        (doubling(60, "null"), b"", "decode_failed"),
        (record("R", a={"type": "array", "items": doubling(60, "null")}), b"\x02\x00", "decode_failed"),
    ],
)
def test_a_schema_that_doubles_at_each_level_is_compiled_in_bearable_time(
    schema: Any, value: bytes, reason: str
) -> None:
    """Sixty levels are a small schema, and more values than there are; a worker must not hang on it."""
    started = time.process_time()

    result = with_schema(schema, value)

    assert faults_of(result) == [(0, reason)]
    assert time.process_time() - started < 10


def test_a_schema_that_doubles_a_few_times_is_read() -> None:
    """It is walked where its pattern would be too large."""
    result = with_schema(doubling(12, "int"), b"\x02" * 2**11)

    assert result.refused == []
    ((row),) = rows_of(result)
    assert json.dumps(row).count("1") >= 2**11


def test_lists_of_nothing_cannot_grow_beyond_their_bytes() -> None:
    """Eighty thousand bytes asked a reader for eight hundred million values."""
    lists = record("R", a={"type": "array", "items": {"type": "array", "items": "null"}})
    values = [written(lists, {"a": [[None] * each] * 3}) for each in (0, 5, 64, 65)]

    result = with_schema(lists, *values)

    assert faults_of(result) == [(3, "validation_failed")]
    assert [len(row["a"][0]) for row in rows_of(result)] == [0, 5, 64]


def test_two_references_may_refer_to_the_same_third() -> None:
    base = schema_of(record("Base", n="int"))
    sides = [
        Reference(name, Schema("AVRO", json.dumps(record(name, base="Base")), (Reference("Base", base),)))
        for name in ("Left", "Right")
    ]
    both = Schema("AVRO", json.dumps(record("Both", left="Left", right="Right")), tuple(sides))

    assert rows_of(with_schema(both, b"\x02\x04")) == [{"left": {"base": {"n": 1}}, "right": {"base": {"n": 2}}}]


def test_a_type_that_is_called_like_one_of_the_metadata_gets_another_name() -> None:
    """Whoever sends on what the sink has landed has it in the schema."""
    inner = {**record("Metadata", q="int"), "namespace": "kafka_adx_sink"}

    ((row),) = rows_of(
        with_schema(record("R", old=inner, again="kafka_adx_sink.Metadata"), b"\x02\x04", metadata="m")
    )

    assert (row["old"], row["again"], row["m"]["offset"]) == ({"q": 1}, {"q": 2}, 0)


def test_types_that_only_their_namespace_tells_apart_stay_apart() -> None:
    bare, spaced = {**record("X", q="int"), "namespace": ""}, {**record("X", r="string"), "namespace": "ns"}

    assert rows_of(with_schema(record("ns.R", a=bare, b=spaced), b"\x02\x02z")) == [
        {"a": {"q": 1}, "b": {"r": "z"}}
    ]


@pytest.mark.parametrize("name", ["a-b", "1a", "a b", "ü", 'a"b', "a.1b", "a..b"])
def test_a_name_that_some_readers_refuse_is_written_as_one_that_they_take(name: str) -> None:
    assert rows_of(with_schema(record(name, n="int"), b"\x02")) == [{"n": 1}]


def test_a_symbol_that_readers_refuse_makes_dead_letters_of_its_own_records() -> None:
    """A symbol is content, so that it cannot be written otherwise."""
    enum = {"type": "enum", "name": "E", "symbols": ["a-b"]}

    assert faults_of(with_schema(record("R", e=enum), b"\x00")) == [(0, "decode_failed")]


@pytest.mark.parametrize(
    "about",
    [
        {"logicalType": "decimal"},
        {"logicalType": "decimal", "precision": 0},
        {"logicalType": "decimal", "precision": "4"},
        {"logicalType": "decimal", "precision": True},
        {"logicalType": "decimal", "precision": 2, "scale": 3},
        {"logicalType": "decimal", "precision": 2, "scale": -1},
        {"logicalType": "decimal", "precision": 10**30},
        {"logicalType": ["decimal"]},
        {"logicalType": 5},
        {"logicalType": "no such type"},
    ],
)
def test_a_logical_type_that_is_not_valid_is_ignored(about: dict[str, Any]) -> None:
    """As the specification wants it; some readers would give up the file."""
    assert rows_of(with_schema(record("R", a={"type": "bytes", **about}), b"\x022")) == [{"a": b"2"}]


def test_decimals_of_both_kinds_come_through() -> None:
    of_bytes = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    of_fixed = {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 1}
    too_small = {"type": "fixed", "name": "S", "size": 1, "logicalType": "decimal", "precision": 4}

    result = with_schema(record("R", a=of_bytes, b=of_fixed, c=too_small), b"\x04\x01\x00\x00\x15\x07")

    assert rows_of(result) == [{"a": Decimal("2.56"), "b": Decimal("2.1"), "c": b"\x07"}]


DATES: dict[str, tuple[str, int, int]] = {
    "date": ("int", -719_162, 2_932_896),
    "time-millis": ("int", 0, 86_399_999),
    "time-micros": ("long", 0, 86_399_999_999),
    "timestamp-millis": ("long", -62_135_596_800_000, 253_402_300_799_999),
    "timestamp-micros": ("long", -62_135_596_800_000_000, 253_402_300_799_999_999),
    "local-timestamp-millis": ("long", -62_135_596_800_000, 253_402_300_799_999),
}


@pytest.mark.parametrize("name", DATES)
def test_a_date_that_cannot_be_does_not_take_its_neighbours_with_it(name: str) -> None:
    """Readers that make dates give up the whole file at the first number that is none."""
    type_, least, most = DATES[name]
    largest = 2**31 - 1 if type_ == "int" else 2**63 - 1
    numbers = [least, least - 1, 1, most + 1, largest, -largest - 1, most]
    schema = record("R", before="string", at={"type": type_, "logicalType": name})
    values = [written(record("R", before="string", at=type_), {"before": "x", "at": n}) for n in numbers]

    result = with_schema(schema, *values)

    assert faults_of(result) == [(offset, "validation_failed") for offset in (1, 3, 4, 5)]
    assert result.refused[0].detail == "a date or time that cannot be at byte 2"
    assert len(rows_of_file(result.bodies[0].data)) == 3


def test_dates_are_dates_to_one_reader_and_numbers_to_the_other() -> None:
    """ADX's reader for `avro` knows no logical types: so to it any number is good."""
    schema = record(
        "R", d={"type": "int", "logicalType": "date"}, at={"type": "long", "logicalType": "timestamp-millis"}
    )
    value = written(schema, {"d": date(2013, 1, 1), "at": datetime(2013, 1, 1, tzinfo=UTC)})

    assert rows_of(with_schema(schema, value)) == [{"d": date(2013, 1, 1), "at": datetime(2013, 1, 1, tzinfo=UTC)}]
    plain = with_schema(schema, value, b"\x00" + b"\xff" * 9 + b"\x01", format="avro")
    assert rows_of(plain) == [{"d": 15706, "at": 1356998400000}, {"d": 0, "at": -(2**63)}]
    assert schema_of_file(plain.bodies[0].data)["fields"] == record("R", d="int", at="long")["fields"]


def test_text_that_is_no_uuid_is_text() -> None:
    schema = record("R", id={"type": "string", "logicalType": "uuid"})

    assert rows_of(with_schema(schema, b"\x02x", b"\x00")) == [{"id": "x"}, {"id": ""}]


def test_defaults_aliases_and_docs_mean_nothing_to_what_was_written() -> None:
    """They are for a reader of another schema, and the file has its own."""
    schema = {
        **record("R", n="int"),
        "aliases": ["Old"],
        "doc": "d",
        "fields": [{"name": "n", "type": "int", "default": "no number", "aliases": ["m"], "order": "ignore"}],
    }

    assert rows_of(with_schema(schema, b"\x02")) == [{"n": 1}]


def test_blocks_that_say_their_size_are_read_and_those_that_lie_are_not() -> None:
    """A negative count, then the block's bytes: what Java writes."""
    nested = record(
        "R", a={"type": "array", "items": {"type": "array", "items": "int"}}, m={"type": "map", "values": "int"}
    )
    good = bytes.fromhex("010a 0304 0204 00 00" + "0106 026b 0e 00")
    lying = [good.replace(b"\x01\x0a", b"\x01" + size) for size in (b"\x08", b"\x0c", b"\x01", b"\x00")]

    result = with_schema(nested, good, *lying, good)

    assert [offset for offset, _ in faults_of(result)] == [1, 2, 3, 4]
    assert rows_of(result) == [{"a": [[1, 2]], "m": {"k": 7}}] * 2
