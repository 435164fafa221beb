"""Avro by registry: each record that fits is in a file of its schema, byte for byte; the rest are dead letters."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.encode.avrowalk import Walker
from sinkcore.errors import TransientError
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.schemas import Reference, Schema
from sinkcore.schemas.avro import parse
from tests.support.avro import (
    decoded,
    record_schemas,
    rows_by_avro,
    rows_of_file,
    schema_of_file,
    values_of,
    written,
)
from tests.support.events import Sent, events_of
from tests.support.schemas import KnownSchemas, framed, schema_of
from tests.unit.test_encode_json import any_pace
from tests.unit.test_encode_metadata import expected, headers_lists, keys

SEGMENT = "01J0000000000000000000SEGM"  # as `expected` has it
FLIGHT = {
    "type": "record",
    "name": "Flight",
    "namespace": "air.port",
    "fields": [
        {"name": "number", "type": "int"},
        {"name": "tail", "type": ["null", "string"], "default": None},
        {"name": "delays", "type": {"type": "array", "items": "long"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
PLANE = {"type": "record", "name": "Plane", "fields": [{"name": "tail", "type": "string"}]}
KNOWN = KnownSchemas({7: schema_of(FLIGHT), 8: schema_of(PLANE)})


def flight(number: int) -> dict[str, Any]:
    return {"number": number, "tail": None if number % 2 else "Nü1", "delays": [number, -1], "at": 1357034400000}


def flight_bytes(number: int) -> bytes:
    return framed(7, written(FLIGHT, flight(number)))


def encoded(
    records: Sequence[Sent | bytes], schemas: KnownSchemas = KNOWN, blob_max_bytes: int = 1 << 28, **route: Any
) -> Encoded:
    sent = [r if isinstance(r, Sent) else Sent(r, offset) for offset, r in enumerate(records)]
    found = Route("flights", "db", "Flights", **{"format": "avro", "decode": "registry", **route})
    return encode(
        slices_of(events_of(sent)),
        found,
        segment_id=SEGMENT,
        record_max_bytes=1 << 24,
        blob_max_bytes=blob_max_bytes,
        schemas=schemas,
    )


def faults_of(result: Encoded) -> list[tuple[int, str]]:
    return [(r.record.offset, r.reason) for r in result.refused]


def test_two_other_readers_find_the_records_that_were_written() -> None:
    result = encoded([flight_bytes(number) for number in range(3000)])

    (body,) = result.bodies
    assert body.rows == 3000
    assert [row["number"] for row in rows_of_file(body.data)] == list(range(3000))
    assert rows_by_avro(body.data[:]) == rows_of_file(body.data)
    assert list(schema_of_file(body.data)) == ["name", "type", "fields"]


def test_a_file_is_as_long_unpacked_as_it_says() -> None:
    """ADX plans with the raw size, which has to be the header's and the records' own bytes."""
    values = [flight_bytes(number) for number in range(2000)]

    (body,) = encoded(values).bodies

    header = body.data.index(b"\x00", body.data.index(b"deflate")) + 1 + 16
    assert body.raw_size_bytes == header + sum(len(value) - 5 for value in values)


def test_a_new_schema_begins_a_new_file() -> None:
    """The incumbent dies of it."""
    planes = [framed(8, written(PLANE, {"tail": f"N{n}"})) for n in range(3)]

    result = encoded([flight_bytes(0), planes[0], planes[1], flight_bytes(1), planes[2]])

    assert [rows_of_file(body.data) for body in result.bodies] == [
        rows_of_file(encoded([flight_bytes(0), flight_bytes(1)]).bodies[0].data),
        [{"tail": "N0"}, {"tail": "N1"}, {"tail": "N2"}],
    ]


def test_a_file_keeps_to_its_limit() -> None:
    values = [framed(8, written(PLANE, {"tail": "N" * 200})) for _ in range(100)]

    result = encoded(values, blob_max_bytes=2048)

    assert sum(body.rows for body in result.bodies) == 100
    assert max(body.raw_size_bytes for body in result.bodies) <= 2048
    assert all(len(rows_of_file(body.data)) == body.rows for body in result.bodies)
    assert len({body.rows for body in result.bodies[:-1]}) == 1


def test_the_same_records_make_the_same_bytes() -> None:
    values = [flight_bytes(number) for number in range(10)]

    assert encoded(values).bodies == encoded(values).bodies


def test_what_a_schema_refers_to_is_in_the_file() -> None:
    """A reader of the file has no registry to ask."""
    trip = {"type": "record", "name": "Trip", "fields": [{"name": n, "type": "air.port.Flight"} for n in "ab"]}
    schema = Schema("AVRO", json.dumps(trip), (Reference("air.port.Flight", schema_of(FLIGHT)),))
    value = written(FLIGHT, flight(0)) + written(FLIGHT, flight(1))

    (body,) = encoded([framed(1, value)], KnownSchemas({1: schema})).bodies

    ((row),) = rows_of_file(body.data)
    assert (row["a"]["number"], row["b"]["number"]) == (0, 1)
    assert rows_by_avro(body.data) == [row]


REFUSED = {
    "no frame": (b"{}", "decode_failed"),
    "a frame cut short": (b"\x00\x00\x00\x07"[:4], "decode_failed"),
    "another magic": (b"\x01" + flight_bytes(0)[1:], "decode_failed"),
    "an unknown id": (framed(99, b"\x00"), "unknown_schema"),
    "nothing in the frame": (framed(7, b""), "validation_failed"),
    "a byte too many": (flight_bytes(0) + b"\x00", "validation_failed"),
    "two records": (flight_bytes(0) + flight_bytes(0)[5:], "validation_failed"),
    "a branch that is none": (framed(7, b"\x02\x04"), "validation_failed"),
    "a negative branch": (framed(7, b"\x02\x01"), "validation_failed"),
    "a negative length": (framed(7, b"\x02\x02\x01"), "validation_failed"),
    "a huge length": (framed(7, b"\x02\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01abc"), "validation_failed"),
    "a number without an end": (framed(7, b"\xff" * 100), "validation_failed"),
    "a number of more than 32 bits": (framed(7, b"\xff\xff\xff\xff\x1f\x00\x00\x00"), "validation_failed"),
    "items without end": (framed(7, b"\x02\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "validation_failed"),
    "a block of a wrong size": (framed(7, b"\x02\x00\x01\x08\x02\x00\x00"), "validation_failed"),
    "a string that is not UTF-8": (framed(7, b"\x02\x02\x02\xff\x00\x00"), "validation_failed"),
}


@pytest.mark.parametrize("metadata", [None, "_kafka"])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_bytes_are_a_dead_letter_and_their_neighbours_are_not(case: str, metadata: str | None) -> None:
    value, reason = REFUSED[case]

    result = encoded([flight_bytes(0), value, flight_bytes(1)], metadata=metadata)

    assert faults_of(result) == [(1, reason)]
    assert [row["number"] for row in rows_of_file(result.bodies[0].data)] == [0, 1]


@pytest.mark.parametrize("validate", [True, False])
def test_a_record_cut_anywhere_is_a_dead_letter(validate: bool) -> None:
    """Without validation that is its sender's own risk, but never an exception."""
    whole = flight_bytes(0)
    values = [whole[:end] for end in range(1, len(whole))]

    result = encoded([flight_bytes(1), *values, flight_bytes(2)], validate=validate)

    if validate:
        assert [offset for offset, _ in faults_of(result)] == list(range(1, len(whole)))
        assert [row["number"] for row in rows_of_file(result.bodies[0].data)] == [1, 2]
    else:
        assert {reason for _, reason in faults_of(result)} == {"decode_failed"}


UNUSABLE: dict[str, Schema] = {
    "no JSON": Schema("AVRO", "{"),
    "nothing": Schema("AVRO", ""),
    "an unknown type": schema_of({"type": "recrod", "name": "R", "fields": []}),
    "a type that is not there": schema_of({"type": "record", "name": "R", "fields": [{"name": "a", "type": "X"}]}),
    "no name": schema_of({"type": "record", "fields": []}),
    "no fields": schema_of({"type": "record", "name": "R"}),
    "a field twice": schema_of({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}] * 2}),
    "a union in a union": schema_of({"type": "record", "name": "R", "fields": [{"name": "a", "type": [["int"]]}]}),
    "a branch twice": schema_of({"type": "record", "name": "R", "fields": [{"name": "a", "type": ["int"] * 2}]}),
    "a negative size": schema_of(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": "a", "type": {"type": "fixed", "name": "F", "size": -1}}],
        }
    ),
    "symbols that are none": schema_of(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": "a", "type": {"type": "enum", "name": "E", "symbols": 1}}],
        }
    ),
    "too deep": Schema("AVRO", '{"type":"array","items":' * 5000 + '"int"' + "}" * 5000),
    "half a surrogate pair": Schema("AVRO", "\ud800"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_schema_that_cannot_be_used_makes_dead_letters_of_its_own_records(case: str) -> None:
    known = KnownSchemas({**KNOWN.known, 1: UNUSABLE[case]})

    result = encoded([flight_bytes(0), framed(1, b"\x02"), flight_bytes(1), framed(1, b"")], known)

    assert faults_of(result) == [(1, "decode_failed"), (3, "decode_failed")]
    assert [row["number"] for row in rows_of_file(result.bodies[0].data)] == [0, 1]


def test_a_schema_of_another_kind_or_of_no_record_is_a_dead_letter() -> None:
    known = KnownSchemas({1: Schema("JSON", "{}"), 2: schema_of("int"), 3: schema_of(["null", PLANE])})

    assert faults_of(encoded([framed(n, b"\x02") for n in (1, 2, 3)], known)) == [
        (0, "decode_failed"),
        (1, "not_an_object"),
        (2, "not_an_object"),
    ]


def test_a_registry_that_is_down_stops_the_batch_and_nothing_else() -> None:
    with pytest.raises(TransientError):
        encoded([flight_bytes(0)], KnownSchemas({}, down=True))


def test_each_schema_is_asked_for_once_a_batch() -> None:
    known = KnownSchemas(KNOWN.known)

    encoded([flight_bytes(n) for n in range(3000)] + [framed(99, b"")] * 3000, known)

    assert sorted(known.asked) == [7, 99]


def test_metadata_is_the_contracts_object_behind_the_records_fields() -> None:
    record = Sent(flight_bytes(0), 17, 3, b"EWR", headers=(("type", b"order"),))

    (body,) = encoded([record], metadata="_kafka").bodies

    ((row),) = rows_of_file(body.data)
    assert list(row) == ["number", "tail", "delays", "at", "_kafka"]
    assert json.dumps(row["_kafka"]) == (
        '{"topic": "flights", "partition": 3, "offset": 17, "timestamp": "2013-01-01T10:00:00.000Z",'
        f' "segment": "{SEGMENT}", "key": "EWR", "headers": {{"type": "order"}}}}'
    )


@settings(any_pace, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**62), keys, headers_lists), min_size=1, max_size=6))
def test_the_metadata_is_what_the_record_had(rows: list[Any]) -> None:
    records = {(p, o): Sent(flight_bytes(0), o, p, key, headers=headers) for p, o, key, headers in rows}

    (body,) = encoded(list(records.values()), metadata="_kafka").bodies

    time = datetime(2013, 1, 1, 10, tzinfo=UTC)
    assert [row["_kafka"] for row in rows_of_file(body.data)] == [
        expected(records[place], time) for place in sorted(records)
    ]


def test_a_schema_that_has_the_metadata_field_already_is_refused() -> None:
    assert faults_of(encoded([flight_bytes(0)], metadata="number")) == [(0, "metadata_conflict")]


def test_a_tombstone_can_be_a_row_of_its_metadata_alone() -> None:
    result = encoded([Sent(flight_bytes(0), 0), Sent(None, 1, key=b"k")], metadata="_kafka", tombstones="row")

    ((row),) = rows_of_file(result.bodies[1].data)
    assert list(row) == ["_kafka"]
    assert (row["_kafka"]["offset"], row["_kafka"]["key"]) == (1, "k")


@settings(any_pace, max_examples=150)
@given(st.data())
def test_every_record_of_any_schema_comes_through_unchanged(data: st.DataObject) -> None:
    """In whatever way it is walked; and what another reader makes of the file is what was written."""
    schema = data.draw(record_schemas())
    values = data.draw(st.lists(values_of(schema), min_size=1, max_size=4))
    records = [written(schema, value) for value in values]

    result = encoded([framed(1, record) for record in records], KnownSchemas({1: schema_of(schema)}))

    assert result.refused == []
    assert rows_of_file(result.bodies[0].data) == [decoded(schema, record)[0] for record in records]


@settings(any_pace, max_examples=300)
@given(st.data())
def test_bytes_are_taken_only_if_another_reader_reads_them_to_the_last(data: st.DataObject) -> None:
    """Broken in any way: cut, prolonged, or with other bytes in it. Whatever is taken fits exactly."""
    schema = data.draw(record_schemas())
    record = bytearray(written(schema, data.draw(values_of(schema))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(record)))
        cut = data.draw(st.integers(0, 2))
        record[at : at + cut] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\xff" * 9 + b"\x01", b"\x01"])
        )
    walker = Walker(parse(schema_of(schema)))

    fault = walker.fault(bytes(record))

    assert walker.fit([bytes(record)]) == (fault is None)
    if fault is None:
        _, size = decoded(schema, bytes(record))
        assert size == len(record)


def test_nesting_without_end_is_a_dead_letter() -> None:
    chain = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
    known = KnownSchemas({1: schema_of(chain)})

    result = encoded([framed(1, b"\x02" * depth + b"\x00") for depth in (1, 100, 100_000)], known)

    assert faults_of(result) == [(2, "too_deep")]
    assert result.bodies[0].rows == 2


def test_a_record_within_itself_without_an_end_is_a_dead_letter() -> None:
    endless = {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}

    assert faults_of(encoded([framed(1, b"\x00")], KnownSchemas({1: schema_of(endless)}))) == [(0, "too_deep")]


def test_items_that_take_no_bytes_cannot_be_without_number() -> None:
    """Six bytes could ask a reader for more objects than there is memory."""
    nulls = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}, {"name": "b", "type": "bytes"}],
    }
    values = [written(nulls, {"a": [None] * n, "b": b"x" * 20}) for n in (0, 3, 100)]
    started = time.process_time()

    result = encoded([framed(1, value) for value in values], KnownSchemas({1: schema_of(nulls)}))

    assert faults_of(result) == [(2, "validation_failed")]
    assert time.process_time() - started < 5


def test_ten_thousand_columns_are_checked_in_bearable_time() -> None:
    """Most of it once for each schema: a worker must not hang on one that somebody registers."""
    wide = {
        "type": "record",
        "name": "Wide",
        "fields": [{"name": f"c{n}", "type": ["null", "string"] if n % 2 else "double"} for n in range(10_000)],
    }
    value = written(wide, {f"c{n}": f"{n}" if n % 2 else float(n) for n in range(10_000)})
    started = time.process_time()

    result = encoded([framed(1, value), framed(1, value[:-1])], KnownSchemas({1: schema_of(wide)}))

    assert time.process_time() - started < 10
    assert faults_of(result) == [(1, "validation_failed")]
    assert len(rows_of_file(result.bodies[0].data)[0]) == 10_000


def test_no_detail_holds_anything_of_the_record() -> None:
    """Dead letters keep the value itself; details go into logs."""
    for value, _ in REFUSED.values():
        for refused in encoded([value]).refused:
            assert "abc" not in refused.detail
            assert "Nü1" not in refused.detail
