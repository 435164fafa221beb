"""A batch that is split over routes: one segment, whatever becomes of each of its tables, and of the settings."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sinkcore.errors import RecordError, TransientError
from sinkcore.operate import NotPossibleError
from sinkcore.records import slices_of
from sinkcore.resend import replay_dead_letters
from sinkcore.routing import router_of
from sinkcore.segment import Blob, Segment, blobs_to_json
from sinkcore.settings import Settings
from sinkcore.table import PROPERTY_MAX_CHARS
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent, events_of
from tests.support.faults import Steps, Stopped
from tests.support.schemas import KnownSchemas, framed, schema_of

A = {"table": "A", "when": {"field": "k", "equals": "a"}}
B = {"db": "other", "table": "B", "when": {"header": "h", "equals": "b"}}
REST = {"table": "Rest"}


def a(offset: int, partition: int = 0, **more: Any) -> Sent:
    return Sent(json.dumps({"k": "a", "n": offset, **more}).encode(), offset, partition)


def b(offset: int, partition: int = 0) -> Sent:
    return Sent(json.dumps({"n": offset}).encode(), offset, partition, headers=(("h", b"b"),))


def rest(offset: int, partition: int = 0) -> Sent:
    return Sent(json.dumps({"n": offset}).encode(), offset, partition)


def several(*routes: dict[str, Any], **values: str) -> Settings:
    first, *others = routes
    return settings_of(first, *others, **values)


def a_world(*routes: dict[str, Any], **values: str) -> World:
    return World(several(*routes, **values))


def the_segment(world: World) -> Segment:
    (segment,) = world.ledger.segments()
    return segment


def tables(segment: Segment) -> list[tuple[str, str, int, str]]:
    return [(blob.db, blob.table, blob.rows, blob.state) for blob in segment.blobs if blob.kind == "rows"]


def numbers(world: World) -> dict[str, list[int]]:
    return {table: sorted(row["n"] for row in rows) for table, rows in world.landed_rows().items()}


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == name]


def lines_of(world: World, blob: Blob) -> list[bytes]:
    return gzip.decompress(world.blobs.get(blob.container, blob.path)).splitlines()


def refuse(world: World, table: str, code: str, times: int = 10**6, **more: Any) -> None:
    """ADX refuses what is sent for one table."""
    left = [times]

    def refusal(blob: Blob) -> str | None:
        left[0] -= blob.table == table
        return code if blob.table == table and left[0] >= 0 else None

    world.landed.refusal, world.landed.refusal_more = refusal, more


def sweep_late(world: World, times: int) -> None:
    for _ in range(times):
        world.sweep_late()


MIXED = [rest(1), a(2), b(3), Sent(b"[]", 0, 3), a(1, 3), b(4), Sent(b"{", 5), Sent(b'{"k":"a"', 6)]
ALL = {"db.A": [1, 2], "other.B": [3, 4], "db.Rest": [1]}


def test_a_batch_is_one_segment_with_a_blob_for_each_route_and_one_for_all_dead_letters() -> None:
    """Not one for each partition, and not several segments, of which some could be there without the others."""
    world = a_world(A, B, REST)

    world.sink().deliver(TOPIC, world.batch(MIXED))

    segment = the_segment(world)
    assert tables(segment) == [("db", "A", 2, "queued"), ("other", "B", 2, "queued"), ("db", "Rest", 1, "queued")]
    assert [blob.kind for blob in segment.blobs] == ["rows"] * 3 + ["dead_letters"]
    assert (segment.records, segment.dead_letters) == (8, 3)
    letters = world.dead_letters()
    assert [(x["partition"], x["offset"], x["reason"], x["table"]) for x in letters] == [
        (0, 5, "invalid_json", "Rest"),
        (0, 6, "invalid_json", "Rest"),
        (3, 0, "not_an_object", "Rest"),
    ]
    assert world.queued_offsets() + world.dead_offsets() == Counter((r.partition, r.offset) for r in MIXED)
    sweep_late(world, 1)
    assert numbers(world) == ALL
    assert the_segment(world).state == "landed"


def test_what_no_route_takes_is_a_dead_letter_without_a_table_or_stops_the_topic() -> None:
    world = a_world(A, B)
    world.sink().deliver(TOPIC, world.batch([a(0), rest(1)]))

    ((letter),) = world.dead_letters()
    assert (letter["offset"], letter["reason"], letter["db"], letter["table"]) == (1, "no_route", None, None)

    world.sink().deliver(TOPIC, world.batch([Sent(b"{", 2, headers=(("h", b"b"),)), rest(3), Sent(b"{", 4)]))
    assert [(x["offset"], x["table"]) for x in world.dead_letters()] == [(1, None), (2, "B"), (3, None), (4, None)]

    strict = a_world(A, B, SINK_ON_BAD_RECORD="fail")
    with pytest.raises(RecordError, match="offset 1: no_route"):
        strict.sink().deliver(TOPIC, strict.batch([a(0), rest(1)]))
    assert strict.ledger.segments() == []


def test_bodies_are_split_by_size_route_by_route_one_gzip_member_each() -> None:
    """ADX says nothing about files of several members, and partitions do not count."""
    world = a_world(A, REST, SINK_BLOB_MAX_BYTES="1024", SINK_RECORD_MAX_BYTES="1024")
    records = [a(n, p, x="y" * 300) if n % 2 else rest(n, p) for p in range(3) for n in range(6)]

    world.sink().deliver(TOPIC, world.batch(records))

    by_table = Counter((blob.table, blob.rows) for blob in the_segment(world).blobs)
    assert by_table == {("A", 2): 4, ("A", 1): 1, ("Rest", 5): 1, ("Rest", 4): 1}
    for blob in the_segment(world).blobs:
        unpacker = zlib.decompressobj(31)
        text = unpacker.decompress(world.blobs.get(blob.container, blob.path))
        assert (len(text), unpacker.eof, unpacker.unused_data) == (blob.raw_size_bytes, True, b"")
        assert len(text) <= 1024
    assert world.queued_offsets() == dict.fromkeys([(p, n) for p in range(3) for n in range(6)], 1)


def test_a_batch_with_too_many_blobs_for_a_segment_is_cut_and_each_record_taken_once() -> None:
    """Long names make long lists; the tables are as many as the settings allow."""
    names = [f"Table{n:02}" + "x" * 400 for n in range(64)]
    world = a_world({"table": "Table{field:n}" + "x" * 400, "tables": names})
    world.kafka.create(TOPIC, 100)
    records = [
        Sent(json.dumps({"n": f"{(n * 7 + p) % 64:02}"}).encode(), n, p) for p in range(100) for n in range(3)
    ]

    world.sink().deliver(TOPIC, world.batch(records))

    segments = world.ledger.segments()
    assert 2 < len(segments) < 20
    expected = Counter((r.partition, r.offset) for r in records)
    assert world.ledger_offsets() == world.queued_offsets() == expected
    assert max(len(blobs_to_json(segment.blobs)) for segment in segments) <= PROPERTY_MAX_CHARS


def test_a_topic_of_as_many_tables_as_may_be_is_one_segment_with_names_of_usual_length() -> None:
    """Halves would have all the tables again, and the cost of a batch would grow with every cut."""
    names = [f"orders_of_region_{n:03}" for n in range(64)]
    world = a_world({"table": "orders_of_region_{field:n}", "tables": names})

    world.sink().deliver(TOPIC, world.batch(Sent(b'{"n":"%03d"}' % n, n) for n in range(65)))

    assert len(the_segment(world).blobs) == 65


def test_a_segment_lands_when_the_rows_of_all_its_tables_are_there(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world(A, B, REST)
    world.sink().deliver(TOPIC, world.batch(MIXED))
    world.landed.lacking = {"B"}
    sweep_late(world, 2)

    assert the_segment(world).state == "failed"
    assert [state for *_, state in tables(the_segment(world))] == ["queued", "set_up", "queued"]
    world.landed.lacking = set()
    sweep_late(world, 3)

    assert the_segment(world).state == "landed"
    assert numbers(world) == ALL
    assert said(caplog, "segment_in_doubt") == []


def test_tables_of_one_name_in_two_databases_are_asked_apart() -> None:
    """One has no rows of the segment yet; those of the other must not count for it."""
    world = a_world({**A, "db": "one", "table": "T"}, {**REST, "db": "two", "table": "T"})
    refuse(world, "T", "General_InternalServerError", times=1, ShouldRetry=True)
    world.sink().deliver(TOPIC, world.batch([a(0), rest(1), rest(2)]))
    world.clock.advance(601)
    world.sweep()
    assert the_segment(world).state != "landed"
    sweep_late(world, 3)

    assert numbers(world) == {"one.T": [0], "two.T": [1, 2]}
    assert the_segment(world).state == "landed"


def test_two_mappings_of_one_table_are_asked_apart_and_both_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer about one says nothing of the other, whose question ADX may not have answered."""
    world = dying_world({**A, "table": "T", "mapping": "one"}, {**REST, "table": "T", "mapping": "two"})
    counts = world.landed.counts

    def silent_about_two(blob: Blob, segment_ids: Sequence[str]) -> dict[str, int] | None:
        if blob.mapping == "two":
            raise TransientError("no answer")
        return counts(blob, segment_ids)

    monkeypatch.setattr(world.landed, "counts", silent_about_two)
    world.sweep_to_the_end()
    assert world.queue.queued == []
    monkeypatch.undo()
    sweep_late(world, 2)

    assert numbers(world) == {"db.T": [1, 1, 2, 3, 4]}


@pytest.mark.parametrize("table", ["A", "B", "Rest"])
@pytest.mark.parametrize("times", [1, 2])
def test_of_a_table_whose_data_adx_refuses_only_its_own_records_are_read_again(table: str, times: int) -> None:
    """The other tables of the segment have theirs, and get none of them twice."""
    world = a_world(A, B, REST)
    world.sink().deliver(TOPIC, world.batch(MIXED))
    refuse(world, table, "BadRequest_InvalidBlob", times)
    sweep_late(world, 5)

    key = next(key for key in ALL if key.endswith(table))
    expected = {k: v for k, v in ALL.items() if k != key or times == 1}
    assert numbers(world) == expected
    refused = [json.loads(x["value"])["n"] for x in world.dead_letters() if x["reason"] == "refused_by_adx"]
    assert sorted(refused) == ([] if times == 1 else ALL[key])
    assert world.landed_offsets() + world.dead_offsets() == Counter((r.partition, r.offset) for r in MIXED)
    assert list(world.ledger.open_segments()) == []


def test_two_routes_into_one_table_are_mended_apart() -> None:
    """Which records are in which blob is known: those that each route takes."""
    world = a_world({**A, "table": "T"}, {**REST, "table": "T"})
    world.sink().deliver(TOPIC, world.batch([a(0), rest(1), a(2)]))
    refuse(world, "T", "BadRequest_InvalidBlob", times=1)
    sweep_late(world, 4)

    assert numbers(world) == {"db.T": [0, 1, 2]}
    assert [blob.state for blob in the_segment(world).blobs] == ["mended", "queued", "queued"]
    assert the_segment(world).state == "landed"


def test_a_templates_tables_are_mended_apart() -> None:
    world = a_world({"table": "T_{field:k}", "tables": ["T_a", "T_b"]})
    records = [Sent(json.dumps({"k": "ab"[n % 2], "n": n}).encode(), n) for n in range(4)]
    world.sink().deliver(TOPIC, world.batch(records))
    refuse(world, "T_b", "BadRequest_InvalidBlob", times=1)
    sweep_late(world, 4)

    assert numbers(world) == {"db.T_a": [0, 2], "db.T_b": [1, 3]}
    assert the_segment(world).state == "landed"


CHANGES: dict[str, Settings] = {
    "re-aimed": settings_of(
        {**A, "table": "A2"}, {**B, "db": "db2"}, {**REST, "mapping": "m", "metadata": "_meta"}
    ),
    "another order": settings_of({**B, "table": "A2"}, {**A, "table": "B2"}, REST),
    "a when added": settings_of({**A, "table": "A2"}, {**REST, "when": {"field": "k", "equals": "rest"}}),
    "another format": settings_of({**REST, "format": "txt", "metadata": None}),
    "removed": settings_of({"topic": "weather"}),
}


def dying_world(*routes: dict[str, Any]) -> World:
    """A worker has died when its batch was committed, and nothing of it queued."""
    steps = Steps()
    a_world(*routes).stepped_sink(steps).deliver(TOPIC, events_of(MIXED))
    commit = next(n for n, step in enumerate(steps.taken, 1) if step.startswith("transact create,create,"))
    world = a_world(*routes)
    with pytest.raises(Stopped):
        world.stepped_sink(Steps(commit, after=True)).deliver(TOPIC, world.batch(MIXED))
    assert world.queue.queued == []
    return world


@pytest.mark.parametrize("change", CHANGES)
def test_staged_data_go_where_they_were_to_go_whatever_the_settings_say_by_then(change: str) -> None:
    """The ledger holds all that queueing needs."""
    world = dying_world(A, B, REST)
    world.settings = CHANGES[change]

    world.sweep_to_the_end()

    assert numbers(world) == ALL
    assert the_segment(world).state == "landed"
    assert world.dead_offsets() == {(0, 5): 1, (0, 6): 1, (3, 0): 1}


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "re-aimed"])
def test_after_a_change_refused_data_are_made_again_by_their_own_route_or_not_at_all(
    change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By another one records would be lost, or be there twice; the blob is kept for somebody to look at."""
    world = a_world(A, B, REST)
    world.sink().deliver(TOPIC, world.batch(MIXED))
    refuse(world, "Rest", "BadRequest_InvalidBlob", times=1)
    world.settings = CHANGES[change]
    sweep_late(world, 3)

    assert numbers(world) == {table: rows for table, rows in ALL.items() if table != "db.Rest"}
    assert [state for *_, state in tables(the_segment(world))] == ["queued", "queued", "failed"]
    (told,) = said(caplog, "blob_not_mended")
    assert (told["for_good"], "takes other records now" in told["error"]) == (True, True)


def test_a_route_that_is_added_behind_keeps_none_from_being_mended() -> None:
    """Nor does one more name in a list: neither changes which records the others take."""
    template = {"table": "T_{header:h}", "tables": ["T_b"], "when": {"field": "k", "equals": None}}
    world = a_world(A, template)
    world.sink().deliver(TOPIC, world.batch([a(0), rest(1)]))
    refuse(world, "A", "BadRequest_InvalidBlob", times=1)
    world.settings = settings_of(A, {**template, "tables": ["T_b", "T_c"]}, B, REST)
    sweep_late(world, 4)

    assert numbers(world) == {"db.A": [0]}
    assert the_segment(world).state == "landed"


def test_the_digest_tells_apart_whatever_leads_records_elsewhere() -> None:
    sets: list[list[dict[str, Any]]] = [
        [A, REST],
        [B, REST],
        [REST],
        [A, {**REST, "db": "elsewhere"}],
        [A, {**REST, "table": "T"}],
        [A, {**REST, "format": "multijson"}],
        [{**A, "when": {"field": "k", "equals": "b"}}, REST],
        [{**A, "when": {"header": "k", "equals": "a"}}, REST],
        [{**A, "when": {"field": "k", "equals": True}}, REST],
        [{**A, "when": {"field": "k", "equals": "true"}}, REST],
    ]

    found = {
        router_of(several(*routes).routes).split(slices_of(events_of([rest(0)])), 1000).parts[-1].digest
        for routes in sets
    }
    assert len(found) == len(sets)


def test_dead_letters_go_back_by_the_routes_of_today() -> None:
    world = a_world(A, B)
    world.sink().deliver(TOPIC, world.batch([a(0), rest(1), Sent(b'{"n": 2}', 2, headers=(("h", b"c"),))]))
    assert world.dead_offsets() == {(0, 1): 1, (0, 2): 1}
    world.settings = settings_of(A, {**B, "when": {"header": "h", "equals": "c"}}, REST)

    ((_, records, refused),) = replay_dead_letters(world.sink(), "")
    sweep_late(world, 2)

    assert (records, refused) == (2, 0)
    assert numbers(world) == {"db.A": [0], "other.B": [2], "db.Rest": [1]}


def test_dead_letters_of_a_topic_that_no_route_names_stay_where_they_are() -> None:
    """They would all be refused again, for want of a route, and be marked as replayed."""
    world = a_world(A)
    world.sink().deliver(TOPIC, world.batch([rest(1)]))
    world.settings = settings_of({"topic": "weather"})

    with pytest.raises(NotPossibleError, match="no route"):
        list(replay_dead_letters(world.sink(), ""))

    assert len(world.dead_letters()) == 1
    world.settings = settings_of(REST)
    assert [refused for *_, refused in replay_dead_letters(world.sink(), "")] == [0]


def test_routes_with_and_without_metadata_end_as_queued_and_nothing_is_repeated() -> None:
    """ADX cannot be asked about the whole segment, so that it is not said to have landed."""
    world = a_world(A, {**REST, "metadata": None})
    world.sink().deliver(TOPIC, world.batch([a(0), rest(1)]))
    sweep_late(world, 3)

    assert the_segment(world).state == "queued"
    assert list(world.ledger.open_segments()) == []
    assert numbers(world) == {"db.A": [0], "db.Rest": [1]}


def test_what_is_removed_is_removed_with_the_blobs_of_all_tables() -> None:
    world = a_world(A, B, REST)
    world.sink().deliver(TOPIC, world.batch(MIXED))
    sweep_late(world, 1)
    assert len(world.blobs.in_container("sink-staging")) == 4

    world.clock.advance(15 * 24 * 3600)
    world.sweep()

    assert world.ledger.segments() == []
    assert world.blobs.in_container("sink-staging") == {}


def test_new_names_at_the_top_are_said_once_for_each_route(caplog: pytest.LogCaptureFixture) -> None:
    """Names and never values; of the first record of a batch and route."""
    caplog.set_level(logging.INFO)
    world = a_world(A, REST)
    sink = world.sink()
    sink.deliver(TOPIC, world.batch([Sent(None, 0), rest(1), a(2), a(3, more=1)]))
    sink.deliver(TOPIC, world.batch([a(4), rest(5)]))
    sink.deliver(TOPIC, world.batch([a(6, private="VERY-PRIVATE"), Sent(b"broken", 7)]))

    assert [(told["table"], told["names"]) for told in said(caplog, "schema_seen")] == [
        ("A", ["k", "n"]),
        ("Rest", ["n"]),
        ("A", ["k", "n", "private"]),
    ]
    assert "VERY-PRIVATE" not in caplog.text


def test_names_that_are_data_fill_neither_the_log_nor_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = a_world(REST)
    sink = world.sink()
    many = {f"{n:05}" * 40: n for n in range(3000)}
    sink.deliver(TOPIC, world.batch([Sent(json.dumps(many).encode(), 0)]))
    for n in range(1, 150):
        sink.deliver(TOPIC, world.batch([Sent(b'{"id-%d": 1}' % n, n)]))

    told = said(caplog, "schema_seen")
    assert len(told) == 100
    assert (len(told[0]["names"]), told[0]["names_left_out"]) == (100, 2900)
    assert max(map(len, told[0]["names"])) == 64


@pytest.mark.parametrize("value", [b'{"\\ud800": 1}', b'{"n": 1, "a\\udc00b": 2}'])
def test_half_a_surrogate_pair_in_a_name_is_logged_as_a_question_mark(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The record is a dead letter; its batch must not stop for the sake of a line in the log."""
    caplog.set_level(logging.INFO)
    world = a_world(REST)
    world.sink().deliver(TOPIC, world.batch([Sent(value, 0), rest(1)]))

    assert [letter["reason"] for letter in world.dead_letters()] == ["invalid_json"]
    assert tables(the_segment(world)) == [("db", "Rest", 1, "queued")]
    assert "?" in said(caplog, "schema_seen")[0]["names"][-1]


@pytest.mark.parametrize("value", [b"{", b'{"n": 0}', b""])
def test_half_a_surrogate_pair_in_the_name_of_a_header_stops_no_batch(value: bytes) -> None:
    """Neither as a row, nor as a dead letter, nor on the way to a route."""
    world = a_world(A, {**REST, "metadata": "_kafka", "tombstones": "dead_letter"})
    world.sink().deliver(TOPIC, world.batch([Sent(value, 0, headers=(("\ud800", b"x"),)), rest(1)]))

    assert world.ledger_offsets() == dict.fromkeys([(0, 0), (0, 1)], 1)
    assert [letter["headers"] for letter in world.dead_letters()] == [[["?", "eA=="]]] * (b"n" not in value)


SHAPES: list[tuple[str, bytes, list[str]]] = [
    ("json", b'{"a": {"b": 1}, "c": [], "a": 2}', ["a", "c"]),
    ("multijson", b'[{"a": 1}, {"b": 1}]', ["a"]),
    ("singlejson", b' [\n{"a": 1}]', ["a"]),
    ("multijson", b'{"a": 1}{"b": 1}', ["a"]),
    ("json", b"{}", []),
    ("json", b"\xff", []),
    ("json", b"7", []),
    ("txt", b'{"a": 1}', []),
]


@pytest.mark.parametrize(("format_", "value", "names"), SHAPES)
def test_the_names_are_those_of_the_first_object(
    format_: str, value: bytes, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = a_world({**REST, "format": format_})
    world.sink().deliver(TOPIC, world.batch([Sent(value, 0)]))

    assert [told["names"] for told in said(caplog, "schema_seen")] == ([names] if names else [])


def test_blobs_hold_the_rows_of_their_own_route() -> None:
    """Read from the blobs themselves, in the order of offsets."""
    world = a_world(A, B, REST)
    world.sink().deliver(TOPIC, world.batch(MIXED))

    found = {
        blob.table: [json.loads(line)["n"] for line in lines_of(world, blob)]
        for blob in the_segment(world).blobs
        if blob.kind == "rows"
    }
    assert found == {"A": [2, 1], "B": [3, 4], "Rest": [1]}


def test_a_new_schema_id_is_said_once_for_each_route(caplog: pytest.LogCaptureFixture) -> None:
    """One that the registry does not know is a dead letter, and not said; nor is what has no frame."""
    caplog.set_level(logging.INFO)
    avro = {"format": "avro", "decode": "registry"}
    by_header = {**avro, "table": "A", "when": {"header": "h", "equals": "b"}}
    world = World(several(by_header, {**avro, "table": "Rest"}, SCHEMA_REGISTRY_URL="http://127.0.0.1:8081"))
    schema = schema_of({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]})
    sink = world.sink(schemas=KnownSchemas({7: schema, 8: schema}))
    values = [framed(7, b"\x02"), framed(8, b"\x02"), framed(9, b"\x02"), b"\x01", b"", framed(7, b"\x04")]
    for first in (0, 10):
        records = [Sent(value, first + n) for n, value in enumerate(values)]
        records.append(Sent(framed(8, b"\x02"), first + 6, headers=(("h", b"b"),)))
        sink.deliver(TOPIC, world.batch(records))

    told = [(fact["table"], fact["schema_id"], fact["kind"]) for fact in said(caplog, "schema_seen")]
    assert told == [("A", 8, "AVRO"), ("Rest", 7, "AVRO"), ("Rest", 8, "AVRO")]
