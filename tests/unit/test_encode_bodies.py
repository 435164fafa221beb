"""A batch becomes as few bodies as possible, each one gzip member, and every record is accounted for."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkcore.encode import encode
from sinkcore.encode.bodies import BodyWriter
from sinkcore.records import slices_of
from sinkcore.routes import Route
from tests.support.events import Sent, events_of
from tests.unit.test_encode_json import any_pace, encoded, lines_of

ROUTE = Route("flights", "db", "Flights")


@pytest.mark.parametrize("partitions", [1, 10, 45, 100])
def test_all_partitions_share_one_body_in_order(partitions: int) -> None:
    """A hundred quiet partitions must not make a hundred blobs of one row each."""
    records = [
        Sent(b'{"p":%d,"o":%d}' % (partition, offset), offset, partition)
        for offset in range(5)
        for partition in reversed(range(partitions))
    ]

    result = encode(
        slices_of(events_of(records)), ROUTE, segment_id="s", record_max_bytes=100, blob_max_bytes=1 << 20
    )

    assert len(result.bodies) == 1
    assert result.bodies[0].rows == 5 * partitions
    assert lines_of(result) == [b'{"p":%d,"o":%d}' % (p, o) for p in range(partitions) for o in range(5)]


def test_a_body_is_a_single_gzip_member_of_the_size_it_says() -> None:
    """ADX says nothing about files of several members, and wants the exact unpacked size in the message."""
    result = encoded([b'{"a":%d}' % number for number in range(30_000)])

    (body,) = result.bodies
    unpacking = zlib.decompressobj(wbits=31)
    text = unpacking.decompress(body.data)
    assert unpacking.eof
    assert unpacking.unused_data == b""
    assert body.raw_size_bytes == len(text)
    assert body.rows == text.count(b"\n") == 30_000


def test_the_same_records_make_the_same_bytes() -> None:
    """So that a blob that was written twice under one name changed nothing."""
    values = [b'{"a":%d}' % number for number in range(3000)]

    assert encoded(values).bodies == encoded(values).bodies


def test_no_rows_make_no_body() -> None:
    assert encoded([]).bodies == []
    assert encoded([b"", b"broken"]).bodies == []


lines = st.lists(st.binary(max_size=20).map(lambda data: data.hex().encode() + b"\n"), min_size=1, max_size=20)


@any_pace
@given(st.lists(lines, max_size=6), st.integers(1, 200))
def test_bodies_split_only_where_the_next_row_would_not_fit(added: list[list[bytes]], max_bytes: int) -> None:
    """The limit bounds memory in ADX; more bodies than needed would cost it its batching."""
    writer = BodyWriter(max_bytes)
    for rows in added:
        writer.add(b"".join(rows), len(rows))

    bodies = writer.finish()

    texts = [gzip.decompress(body.data) for body in bodies]
    assert b"".join(texts) == b"".join(row for rows in added for row in rows)
    assert [(len(text), text.count(b"\n")) for text in texts] == [(b.raw_size_bytes, b.rows) for b in bodies]
    assert all(len(text) <= max_bytes or text.count(b"\n") == 1 for text in texts)
    for text, following in pairwise(texts):
        first_row = following.splitlines(keepends=True)[0]
        assert len(text) + len(first_row) > max_bytes


def test_the_limit_counts_the_metadata_too() -> None:
    values = [b'{"a":%d}' % number for number in range(100)]
    records = events_of(Sent(value, offset) for offset, value in enumerate(values))

    result = encode(
        slices_of(records),
        Route("flights", "db", "Flights", metadata="_kafka"),
        segment_id="s",
        record_max_bytes=100,
        blob_max_bytes=1000,
    )

    assert max(body.raw_size_bytes for body in result.bodies) <= 1000
    assert len(lines_of(result)) == 100


def test_five_thousand_tombstones_are_counted_and_leave_nothing() -> None:
    """By the route's policy `skip`; their offsets are the ledger's business."""
    result = encoded([b""] * 5000)

    assert (result.bodies, result.refused, result.tombstones) == ([], [], 5000)


def test_tombstones_become_dead_letters_where_the_route_says_so() -> None:
    records = [Sent(b"{}", 0), Sent(None, 1, key=b"k"), Sent(b"", 2)]

    result = encode(
        slices_of(events_of(records)),
        Route("flights", "db", "Flights", tombstones="dead_letter"),
        segment_id="s",
        record_max_bytes=100,
        blob_max_bytes=1000,
    )

    assert [(r.record.offset, r.record.key, r.reason) for r in result.refused] == [
        (1, b"k", "tombstone"),
        (2, None, "tombstone"),
    ]
    assert (len(lines_of(result)), result.tombstones) == (1, 0)


def test_every_record_is_in_one_place() -> None:
    """A chunk with something odd in it takes another way than its neighbours; nothing may fall between."""
    values = [b'{"a":%d}' % number for number in range(5000)]
    for number in range(0, 5000, 700):
        values[number] = b"broken %d" % number
    for number in range(3, 5000, 900):
        values[number] = b""

    result = encoded(values)

    good = [value for value in values if value.startswith(b"{")]
    assert lines_of(result) == good
    assert [r.record.value for r in result.refused] == [value for value in values if value.startswith(b"b")]
    assert [r.record.offset for r in result.refused] == list(range(0, 5000, 700))
    assert result.tombstones == values.count(b"")
    assert result.tombstones > 0


@pytest.mark.parametrize("metadata", [None, "_kafka"])
def test_a_batch_takes_at_most_three_times_its_size_of_memory(metadata: str | None) -> None:
    """Above the records that it was given. Instances are small, and a batch that does not fit comes again."""
    chance = random.Random(7)
    values = [b'{"a":"%b"}' % chance.randbytes(500).hex().encode() for _ in range(5000)]
    slices = slices_of(events_of(Sent(value, offset) for offset, value in enumerate(values)))
    route = Route("flights", "db", "Flights", metadata=metadata)

    tracemalloc.start()
    try:
        result = encode(slices, route, segment_id="s", record_max_bytes=1 << 20, blob_max_bytes=1 << 28)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert result.bodies[0].rows == 5000
    assert peak <= 3 * sum(map(len, values))
