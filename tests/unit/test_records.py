"""A batch as columns, and a record whole."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkcore.records import columns_of, record_of, slices_of, timestamp_ms_of
from tests.support.events import Sent, events_of
from tests.unit.test_encode_json import any_pace


@any_pace
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=60), st.randoms())
def test_slices_hold_each_record_once_by_partition_and_offset(
    coordinates: list[tuple[int, int]], chance: random.Random
) -> None:
    """The extension's list mixes partitions, runs backwards after a rebalance, and repeats records."""
    chance.shuffle(coordinates)
    events = events_of(Sent(b"%d/%d" % where, offset=where[1], partition=where[0]) for where in coordinates)

    slices = slices_of(events)

    assert [(part.partition, offset) for part in slices for offset in part.offsets] == sorted(set(coordinates))
    assert all(low < high for part in slices for low, high in pairwise(part.offsets))
    for part in slices:
        assert part.values == [b"%d/%d" % (part.partition, offset) for offset in part.offsets]
        assert [event.offset for event in part.events] == part.offsets


def test_offsets_of_runs_that_go_backwards_are_put_in_order() -> None:
    """What a rebalance leaves in one list: offsets 5 to 8, then 3 to 6 again."""
    offsets = [5, 6, 7, 8, 3, 4, 5, 6]

    (part,) = slices_of(events_of(Sent(b"v%d" % offset, offset) for offset in offsets))

    assert part.offsets == [3, 4, 5, 6, 7, 8]
    assert part.values == [b"v3", b"v4", b"v5", b"v6", b"v7", b"v8"]


class OtherEvent:
    """What another version of azure-functions might deliver: the same properties over other fields."""

    def __init__(self, event: func.KafkaEvent) -> None:
        self.event = event

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.event, name)


def test_private_fields_are_a_short_cut_and_no_condition() -> None:
    """Azure can bring its own azure-functions; with the pinned one the short cut must be in use."""
    events = events_of(
        Sent(b"v%d" % offset, offset, offset % 3, b"k", headers=(("h", b"1"),)) for offset in range(9)
    )
    others: list[Any] = [OtherEvent(event) for event in events]

    quick, plain = columns_of(events), columns_of(others)

    assert quick != plain
    for name in ("partition", "offset", "value", "timestamp", "key", "headers"):
        assert [getattr(quick, name)(e) for e in events] == [getattr(plain, name)(o) for o in others]
    assert [(s.partition, s.offsets, s.values) for s in slices_of(others)] == [
        (s.partition, s.offsets, s.values) for s in slices_of(events)
    ]


def test_an_empty_batch_has_no_slices() -> None:
    assert slices_of([]) == []


def test_a_record_is_what_kafka_held() -> None:
    """A dead letter must allow the record to be produced again, byte by byte."""
    headers = (("type", b"order"), ("type", b"\xff"), ("none", None))
    sent = Sent(b"\x00\xff", 7, 3, b"\xfe", "2013-01-01T10:00:00.5Z", headers)

    record = record_of(events_of([sent], topic="Flights.NYC")[0])

    assert (record.topic, record.partition, record.offset) == ("Flights.NYC", 3, 7)
    assert (record.key, record.value, record.headers) == (b"\xfe", b"\x00\xff", headers)
    assert record.timestamp_ms == 1_357_034_400_500


def test_a_missing_key_and_an_empty_one_are_two_things() -> None:
    missing, empty = map(record_of, events_of([Sent(b"", 0, key=None), Sent(b"", 1, key=b"")]))

    assert (missing.key, empty.key) == (None, b"")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2013-01-01T10:00:00.1Z", 1_357_034_400_100),
        ("2013-01-01T10:00:00.02Z", 1_357_034_400_020),
        ("2013-01-01T10:00:00.1239999Z", 1_357_034_400_123),
        ("2013-01-01T12:00:00+02:00", 1_357_034_400_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        (None, -1),
    ],
)
def test_a_timestamp_is_kafkas_in_milliseconds(text: str | None, ms: int) -> None:
    """Kafka's "none" is -1, which the extension prints as a moment of 1969."""
    assert timestamp_ms_of(text) == ms


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone")
def test_a_timestamp_without_a_zone_is_utc_wherever_the_worker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert timestamp_ms_of("2013-01-01T10:00:00") == 1_357_034_400_000
    finally:
        monkeypatch.undo()
        time.tzset()
