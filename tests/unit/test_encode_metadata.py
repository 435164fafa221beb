"""Kafka's coordinates in the row: exactly the contract's object, and the row otherwise untouched."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.records import slices_of
from sinkcore.routes import Route
from tests.support.events import Sent, events_of
from tests.support.strictjson import parse
from tests.unit.test_encode_json import any_pace, json_objects, lines_of

ROUTE = Route("flights", "db", "Flights", metadata="_kafka")


def encoded(records: Sequence[Sent], route: Route = ROUTE) -> Encoded:
    """What becomes of these records."""
    return encode(
        slices_of(events_of(records)),
        route,
        segment_id="01J0000000000000000000SEGM",
        record_max_bytes=1 << 20,
        blob_max_bytes=1 << 28,
    )


def metadata_of(record: Sent, route: Route = ROUTE) -> Any:
    """The metadata of the one row that `record` becomes."""
    (line,) = lines_of(encoded([record], route))
    return json.loads(line)[route.metadata]


def test_the_object_is_the_contracts_to_the_byte() -> None:
    """Mappings and queries are written against these names and this order."""
    record = Sent(
        b'{"a":1}',
        offset=17,
        partition=3,
        key=b"EWR",
        timestamp="2013-01-01T10:00:00Z",
        headers=(("type", b"order"),),
    )

    (line,) = lines_of(encoded([record]))

    assert line == (
        b'{"a":1,"_kafka":{"topic":"flights","partition":3,"offset":17,"timestamp":"2013-01-01T10:00:00.000Z",'
        b'"segment":"01J0000000000000000000SEGM","key":"EWR","headers":{"type":"order"}}}'
    )


@pytest.mark.parametrize("value", [b"{}", b"{ }", b" { \n } ", b"{\r}\n", b"{" + b" " * 50 + b"}"])
def test_an_object_without_members_gets_no_comma(value: bytes) -> None:
    records = [Sent(b'{"a":{}}', 0), Sent(value, 1), Sent(b'{"a":"{"}', 2)]

    rows = [parse(line) for line in lines_of(encoded(records))]

    assert [[name for name, _ in row] for row in rows] == [["a", "_kafka"], ["_kafka"], ["a", "_kafka"]]


@pytest.mark.parametrize(
    ("trigger", "row"),
    [
        ("2013-01-01T10:00:00Z", "2013-01-01T10:00:00.000Z"),
        ("2013-01-01T10:00:00.1Z", "2013-01-01T10:00:00.100Z"),
        ("2013-01-01T10:00:00.02Z", "2013-01-01T10:00:00.020Z"),
        ("2013-01-01T10:00:00.123Z", "2013-01-01T10:00:00.123Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("1969-12-31T23:59:59.999Z", None),
        ("2013-01-01T10:00:00.1234567Z", "2013-01-01T10:00:00.123Z"),
        ("2013-01-01T12:00:00.5+02:00", "2013-01-01T10:00:00.500Z"),
        ("2013-01-01T10:00:00.5", "2013-01-01T10:00:00.500Z"),
    ],
)
def test_a_timestamp_has_three_digits_of_fraction_or_is_null(trigger: str, row: str | None) -> None:
    """The trigger trims zeros, and prints Kafka's -1, which means none, as the last millisecond of 1969."""
    assert metadata_of(Sent(b"{}", 0, timestamp=trigger))["timestamp"] == row


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (None, None),
        (b"", ""),
        (b"EWR", "EWR"),
        ("Zürich, \U0001f600".encode(), "Zürich, \U0001f600"),
        (b'quote " backslash \\ line \n NUL \x00', 'quote " backslash \\ line \n NUL \x00'),
        (b"\xff\xfe", {"base64": "//4="}),
        (b"\xed\xa0\x80", {"base64": "7aCA"}),
        (b"\x00\x00\x00\x00\x07", "\x00\x00\x00\x00\x07"),
    ],
)
def test_a_key_is_text_where_it_is_utf8(key: bytes | None, text: Any) -> None:
    """A neighbour that is not UTF-8 must not change how this one reads."""
    records = [Sent(b"{}", 0, key=key), Sent(b"{}", 1, key=b"\xff"), Sent(b"{}", 2, key=key)]

    keys = [json.loads(line)["_kafka"]["key"] for line in lines_of(encoded(records))]

    assert metadata_of(records[0])["key"] == text
    assert keys == [text, {"base64": "/w=="}, text]


def test_a_route_can_want_keys_in_base64_always() -> None:
    """So that a column of binary keys does not change its shape with the chance of a key."""
    route = Route("flights", "db", "Flights", metadata="_kafka", key="base64")

    assert metadata_of(Sent(b"{}", 0, key=b"EWR"), route)["key"] == {"base64": "RVdS"}
    assert metadata_of(Sent(b"{}", 0, key=None), route)["key"] is None


def test_headers_keep_nulls_order_and_repetitions() -> None:
    headers = (("b", b"1"), ("a", None), ("b", b"\xff"), ("b", None), ('"', b"\n"), ("", b""), ("é", "ü".encode()))
    record = Sent(b"{}", 0, headers=headers)

    row = metadata_of(record)

    assert row["headers"] == {"b": ["1", {"base64": "/w=="}, None], "a": None, '"': "\n", "": "", "é": "ü"}
    assert list(row["headers"]) == ["b", "a", '"', "", "é"]


def test_records_without_headers_beside_records_with_some() -> None:
    records = [Sent(b"{}", 0), Sent(b"{}", 1, headers=(("a", b"1"),)), Sent(b"{}", 2)]

    assert [json.loads(line)["_kafka"]["headers"] for line in lines_of(encoded(records))] == [{}, {"a": "1"}, {}]


def test_half_a_surrogate_pair_in_a_header_name_does_not_stop_the_batch() -> None:
    """JSON can carry it from the host to here, UTF-8 cannot carry it on; an exception would repeat for ever."""
    row = metadata_of(Sent(b"{}", 0, headers=(("a\ud800", b"1"),)))

    assert row["headers"] == {"a?": "1"}


@pytest.mark.parametrize(
    "value",
    [
        b'{"_kafka":1}',
        b'{"a":1,"_kafka":null}',
        b'{"\\u005fkafka":{}}',
        b'{"_kaf\\u006Ba":"x"}',
        b'{"_kafka":1,"_kafka":2}',
        b'{"_kafka":1}\n',
        b'{"_kafka":18446744073709551616}',
        b'{"_kafka":0.5}',
        b'{"_kafka":[{}]}',
    ],
)
def test_a_record_that_has_the_field_already_is_refused(value: bytes) -> None:
    """Two fields of one name: which one ADX would keep is nobody's promise."""
    result = encoded([Sent(b"{}", 0), Sent(value, 1), Sent(b"{}", 2)])

    assert [(r.record.offset, r.reason) for r in result.refused] == [(1, "metadata_conflict")]
    assert len(lines_of(result)) == 2


def test_the_field_counts_only_at_the_top_and_only_if_the_route_asks_for_it() -> None:
    assert not encoded([Sent(b'{"a":{"_kafka":1},"_kafk":1,"_KAFKA":1,"_kafkaa":1}', 0)]).refused
    assert not encoded([Sent(b'{"_kafka":1}', 0)], Route("flights", "db", "Flights")).refused


def test_a_tombstone_can_be_a_row_of_its_metadata_alone() -> None:
    """Deletions are facts too: who was deleted is in the key."""
    route = Route("flights", "db", "Flights", metadata="_kafka", tombstones="row")
    records = [Sent(b'{"a":1}', 0), Sent(None, 1, key=b"gone"), Sent(b"", 2)]

    result = encoded(records, route)

    rows = [json.loads(line) for line in lines_of(result)]
    assert [(sorted(row), row["_kafka"]["offset"], row["_kafka"]["key"]) for row in rows] == [
        (["_kafka", "a"], 0, None),
        (["_kafka"], 1, "gone"),
        (["_kafka"], 2, None),
    ]
    assert (result.refused, result.tombstones) == ([], 0)


def test_malformed_json_with_the_field_is_malformed() -> None:
    """The parser meets the field first; the reason must still be the graver one."""
    assert [r.reason for r in encoded([Sent(b'{"_kafka":1,}', 0)]).refused] == ["invalid_json"]


def test_a_field_name_in_any_script_is_written_and_found() -> None:
    route = Route("flights", "db", "Flights", metadata="Käfkä 元")

    assert metadata_of(Sent(b"{}", 5), route)["offset"] == 5
    assert [r.reason for r in encoded([Sent('{"Käfkä 元":1}'.encode(), 0)], route).refused] == [
        "metadata_conflict"
    ]


def expected(record: Sent, time: datetime) -> dict[str, Any]:
    """The contract's object, said once more in other words."""

    def text(data: bytes | None) -> Any:
        if data is None:
            return None
        try:
            return data.decode("utf-8", "strict")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(data).decode()}

    headers: dict[str, Any] = {}
    for name in dict.fromkeys(name for name, _ in record.headers):
        values = [text(value) for other, value in record.headers if other == name]
        headers[name] = values if len(values) > 1 else values[0]
    return {
        "topic": "flights",
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "segment": "01J0000000000000000000SEGM",
        "key": text(record.key),
        "headers": headers,
    }


keys = st.none() | st.binary(max_size=8) | st.text(st.characters(codec="utf-8"), max_size=8).map(str.encode)
headers_lists = st.lists(
    st.tuples(st.sampled_from(["a", "b", "traceparent", "é,"]), st.none() | st.binary(max_size=5)), max_size=4
).map(tuple)
times = st.integers(0, 4_102_444_800_000)


@settings(any_pace, max_examples=60)
@given(
    st.lists(
        st.tuples(json_objects.filter(lambda o: "_kafka" not in o), st.integers(0, 3), keys, headers_lists, times),
        min_size=1,
        max_size=10,
    )
)
def test_the_metadata_is_what_the_record_had_and_the_row_what_the_value_was(rows: list[Any]) -> None:
    """Any mix of partitions, keys, headers and times, each in the spelling of the trigger."""
    records = []
    meant = {}
    for number, (value, partition, key, headers, ms) in enumerate(rows):
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
        spelled = f"{time:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}".rstrip("0").rstrip(".") + "Z"
        if ms % 1000 == 0:
            spelled = f"{time:%Y-%m-%dT%H:%M:%S}Z"
        data = json.dumps(value).encode()
        record = Sent(data, 100 + number, partition, key, spelled, headers)
        records.append(record)
        meant[partition, record.offset] = (data, expected(record, time))

    lines = lines_of(encoded(records))

    assert len(lines) == len(meant)
    for line, coordinates in zip(lines, sorted(meant), strict=True):
        value, metadata = meant[coordinates]
        assert parse(line)[:-1] == parse(value)
        assert parse(line)[-1][0] == "_kafka"
        assert json.loads(line)["_kafka"] == metadata
        assert list(json.loads(line)["_kafka"]) == list(metadata)
