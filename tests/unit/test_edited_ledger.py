"""A ledger that somebody edited, emptied or dropped, or of a later version: refused by name, not guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from azure.data.tables import TableServiceClient

from sinkcore.errors import LedgerError, SinkError, TransientError
from sinkcore.ledger import TOPICS_PARTITION, Ledger
from sinkcore.ledger_rows import Gap
from sinkcore.table import AzureTable
from sinkcore.transaction import Operation, create, merge
from sinkcore.transaction import replace as replaced
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent

OTHER = "weather"
ROUTES = json.dumps([{"topic": name, "db": "db", "table": "T", "metadata": "_kafka"} for name in (TOPIC, OTHER)])
SECRET = "not for a log"
GONE = object()
# Row, property, what somebody made of it, and what is then said of where it is. GONE: the property was removed.
EDITS: dict[str, tuple[str, str, Any, str]] = {
    "topic: a text for a number": ("t", "pending", SECRET, "$.pending"),
    "topic: a property is missing": ("t", "topic_id", GONE, "without topic_id"),
    "topic: a later version": ("t", "version", 2, "ValueError"),
    "position: a text for a number": ("p-", "next_offset", SECRET, "$.next_offset"),
    "position: a property is missing": ("p-", "next_offset", GONE, "without next_offset"),
    "position: below zero": ("p-", "next_offset", -1, "ValueError"),
    "gap: a text for a number": ("g-", "end_offset", SECRET, "$.end_offset"),
    "gap: a property is missing": ("g-", "why", GONE, "without why"),
    "gap: its end is before it": ("g-", "end_offset", 0, "ValueError"),
    "segment: an unknown state": ("s-", "state", SECRET, "$.state"),
    "segment: a property is missing": ("s-", "blobs", GONE, "without blobs"),
    "segment: blobs are no JSON": ("s-", "blobs", "[{" + SECRET, "DecodeError"),
    "segment: a blob's state is unknown": ("s-", "blobs", f'[{{"state":"{SECRET}"}}]', "$.blobs[0]"),
    "segment: ranges are no JSON": ("s-", "ranges", SECRET, "DecodeError"),
    "segment: a range that ends before it begins": ("s-", "ranges", "[[0,9,3]]", "ValueError"),
}


def a_world() -> World:
    """Of each of two topics a segment that ADX has not taken and a gap."""
    world = World(settings_of(SINK_TOPICS_MAPPING=ROUTES))
    sink = world.sink()
    world.queue.fails_with = TransientError("ADX is down")
    for name in (TOPIC, OTHER):
        log = world.kafka.topics[name][0]
        for _ in range(10):
            log.append(b"{}", 0)
        for offset in (0, 5):
            sink.deliver(name, world.batch([Sent(b"{}", offset)], name))
    world.queue.fails_with = None
    return world


def edit(world: World, prefix: str, name: str, value: Any) -> str:
    """The first such row of `flights` is as somebody left it; its key."""
    group = "adx-sink-flights"
    row = next(row for row in world.table.rows(group, prefix) if row.key.startswith(prefix))
    values = {key: each for key, each in row.values.items() if key != name}
    world.table.transact(group, [replaced(row.key, values if value is GONE else values | {name: value}, row.etag)])
    return row.key


def rows_of(world: World, topic: str = TOPIC) -> dict[str, dict[str, Any]]:
    group = world.settings.kafka.group_of(topic)
    return {row.key: dict(row.values) for row in world.table.rows(group, "")}


@pytest.mark.parametrize("what", EDITS)
def test_a_row_that_somebody_edited_is_refused_by_name_and_other_topics_go_on(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    prefix, name, value, where = EDITS[what]
    world = a_world()
    key = edit(world, prefix, name, value)
    before = rows_of(world)

    for _ in range(3):
        world.sweep()

    told = [r.getMessage() for r in caplog.records if f"row {key} " in r.getMessage()]
    assert told
    assert all(f"({where})" in text or where in text for text in told), told
    assert all(SECRET not in record.getMessage() for record in caplog.records)
    assert rows_of(world)[key] == before[key], "the row itself stays as it is"
    other = Ledger(world.table, "adx-sink-weather")
    assert other.gaps() == []
    assert {segment.state for segment in other.segments()} == {"queued"}


@pytest.mark.parametrize("what", [what for what in EDITS if EDITS[what][0] in ("t", "p-")])
def test_of_a_topic_whose_row_or_position_cannot_be_read_nothing_is_taken(what: str) -> None:
    """Taken for missing, it would begin anew."""
    prefix, name, value, _ = EDITS[what]
    world = a_world()
    edit(world, prefix, name, value)
    before = rows_of(world)

    with pytest.raises(LedgerError, match="cannot be read"):
        world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 6)]))
    assert rows_of(world) == before

    world.sink().deliver(OTHER, world.batch([Sent(b"{}", 6)], OTHER))


@pytest.mark.parametrize("what", [what for what in EDITS if EDITS[what][0] == "t"])
def test_of_a_topic_whose_row_cannot_be_read_a_sweep_touches_nothing(what: str) -> None:
    prefix, name, value, _ = EDITS[what]
    world = a_world()
    edit(world, prefix, name, value)
    before = rows_of(world)

    world.sweep()

    assert rows_of(world) == before


def test_a_segment_that_cannot_be_read_keeps_no_other_waiting_and_no_blob_of_it_is_removed() -> None:
    world = a_world()
    key = edit(world, "s-", "state", "gone")
    staged = {path for path in world.blobs.in_container("sink-staging") if key[2:] in path}

    world.sweep()
    for _ in range(3):
        world.clock.advance(20 * 24 * 3600)
        world.sweep()

    assert staged
    assert staged <= set(world.blobs.in_container("sink-staging"))
    assert len(world.queue.queued) == 7, "of each topic two segments, a gap and what followed, but for that one"


def test_a_message_about_a_segment_that_cannot_be_read_waits_and_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = a_world()
    world.sweep()
    world.landed.refusal = lambda _: "BadRequest_TableNotExist"
    edit(world, "s-", "records", "many")

    world.clock.advance(world.landed.batching + 1)
    world.sweep()

    assert len(world.failures.messages) == 1
    other = Ledger(world.table, "adx-sink-weather")
    assert {segment.state for segment in other.segments()} == {"failed"}
    assert any("ledger_row_unreadable" in record.getMessage() for record in caplog.records)


def test_a_topic_in_the_list_that_cannot_be_read_keeps_no_other_from_being_swept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = a_world()
    (row,) = [r for r in world.table.rows(TOPICS_PARTITION, "") if r.key == "adx-sink-flights"]
    world.table.transact(TOPICS_PARTITION, [merge(row.key, {"consumer_group": "another"}, row.etag)])

    world.sweep()

    assert any("row adx-sink-flights of =topics" in record.getMessage() for record in caplog.records)
    assert Ledger(world.table, "adx-sink-weather").gaps() == []
    assert len(world.ledger.gaps()) == 1


def test_a_row_of_an_earlier_version_lacks_what_came_later_and_is_read() -> None:
    world = a_world()
    for name in ("version", "probes", "started_ms", "pending", "sparse"):
        edit(world, "t", name, GONE)
    for name in ("held", "tries"):
        edit(world, "g-", name, GONE)
    for name in ("waiting", "replay", "topic_id"):
        edit(world, "s-", name, GONE)

    world.sweep()

    assert world.ledger.gaps() == []
    assert {segment.state for segment in world.ledger.segments()} == {"queued"}


def test_a_ledger_that_was_emptied_under_a_running_app_is_no_new_topic() -> None:
    """Begun anew at the committed offset or the first in hand, it would skip what the lost gaps held."""
    world = a_world()
    sink = world.sink()
    sink.deliver(TOPIC, world.batch([Sent(b"{}", 6)]))
    world.table.partitions.clear()

    for seconds in (0, 11):
        world.clock.advance(seconds)
        with pytest.raises((LedgerError, TransientError)):
            sink.deliver(TOPIC, world.batch([Sent(b"{}", 7), Sent(b"{}", 7, partition=1)]))
    world.clock.advance(11)
    with pytest.raises(LedgerError, match="its row is gone from the ledger"):
        sink.deliver(TOPIC, world.batch([Sent(b"{}", 6)]))  # all of it was taken, as far as this worker remembers

    assert not any(world.table.partitions.values())


@pytest.mark.parametrize("when", ["before a batch", "in a batch"])
def test_a_table_that_was_dropped_under_a_running_app_is_no_new_topic(
    when: str, azurite: str, topic_name: str
) -> None:
    """A missing table and a missing row are told apart, by each call."""
    client = TableServiceClient.from_connection_string(azurite).get_table_client(topic_name.replace("-", ""))
    table = AzureTable(client)
    table.create_if_missing()
    world = World()
    sink = world.sink(table=table)
    sink.deliver(TOPIC, world.batch([Sent(b"{}", 0)]))

    class Dropped(AzureTable):
        def transact(self, partition: str, operations: Any) -> list[str]:
            client.delete_table()
            return super().transact(partition, operations)

    if when == "before a batch":
        client.delete_table()
    else:
        sink._topics[TOPIC].ledger._table = Dropped(client)
    for seconds in (0, 11):
        world.clock.advance(seconds)
        with pytest.raises(SinkError, match="if it was dropped, restore it"):
            sink.deliver(TOPIC, world.batch([Sent(b"{}", 1), Sent(b"{}", 1, partition=1)]))
    with pytest.raises(SinkError, match="if it was dropped, restore it"):
        world.sweep(world.sink(table=table))

    assert world.queued_offsets() == {(0, 0): 1}


def test_a_gap_is_read_as_it_was_written() -> None:
    world = World()
    made: Operation = create(
        "g-0000000007-0000000000000000003-x", {"next_offset": 3, "end_offset": 5, "why": "skipped"}
    )
    world.table.transact("adx-sink-flights", [made])

    (gap,) = world.ledger.gaps()

    assert gap == Gap(7, 3, 5, "skipped", key=made.key, etag=gap.etag)
