"""The life of a batch on memory: what is taken, what is left, and what is raised."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from sinkcore.errors import OutcomeUnknownError, RecordError, TransientError
from sinkcore.ledger_rows import Gap
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent, events_of
from tests.support.faults import FailingTable, Steps
from tests.support.memory import ManualClock, MemoryBlobs


def flights(*offsets: int, partition: int = 0) -> list[Sent]:
    return [Sent(json.dumps({"flight": offset}).encode(), offset, partition) for offset in offsets]


def test_a_batch_is_staged_committed_and_queued() -> None:
    world = World()

    world.sink().deliver(TOPIC, events_of([*flights(0, 1, 2), *flights(7, partition=3)]))

    assert [(row["flight"], row["_kafka"]["partition"]) for row in world.queued_rows()] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (7, 3),
    ]
    (segment,) = world.ledger.segments()
    assert segment.state == "queued"
    assert [(r.partition, r.first_offset, r.next_offset) for r in segment.ranges] == [(0, 0, 3), (3, 7, 8)]
    assert {p.partition: p.next_offset for p in world.ledger.positions().values()} == {0: 3, 3: 8}
    (blob, url) = world.queue.queued[0]
    assert (blob.db, blob.table, blob.format, blob.rows) == ("db", "Flights", "json", 4)
    assert segment.id in blob.path
    assert url.endswith("?secret")


def test_redelivered_records_are_dropped_without_any_io() -> None:
    """Every rebalance and restart brings whole batches again."""
    world = World()
    sink = world.sink()
    sink.deliver(TOPIC, events_of(flights(0, 1, 2)))
    silent = replace(sink, table=None, blobs=None, queue=None)  # type: ignore[arg-type]
    silent._topics[TOPIC].ledger._table = None  # type: ignore[assignment]

    silent.deliver(TOPIC, events_of(flights(1, 2)))

    assert len(world.ledger.segments()) == 1


def test_a_batch_with_other_boundaries_is_trimmed() -> None:
    world = World()
    world.sink().deliver(TOPIC, events_of(flights(0, 1, 2)))

    world.sink().deliver(TOPIC, events_of(flights(2, 3, 4)))

    assert world.queued_offsets() == dict.fromkeys([(0, n) for n in range(5)], 1)


def test_offsets_that_run_backwards_and_repeat_are_put_in_order() -> None:
    """The extension's list survives a rebalance, and then starts again from the committed offset."""
    world = World()

    world.sink().deliver(TOPIC, events_of(flights(2, 3, 4, 0, 1, 2, 3)))

    assert [row["flight"] for row in world.queued_rows()] == [0, 1, 2, 3, 4]


def test_a_hole_becomes_a_gap_and_is_said_with_its_range(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    sink = world.sink()
    sink.deliver(TOPIC, events_of(flights(0, 1)))

    sink.deliver(TOPIC, events_of(flights(5, 6)))

    (gap,) = world.ledger.gaps()
    assert gap == Gap(0, 2, 5, "skipped", key=gap.key, etag=gap.etag)
    assert world.queued_offsets() == dict.fromkeys([(0, 0), (0, 1), (0, 5), (0, 6)], 1)
    (said,) = [r for r in caplog.records if r.__dict__.get("event") == "gap_found"]
    assert said.levelno == logging.ERROR
    assert {"partition": 0, "next_offset": 2, "end_offset": 5}.items() <= said.__dict__["facts"].items()


def test_a_hole_that_another_host_has_taken_is_none() -> None:
    """The partition was elsewhere for a while, so what this worker remembers is old."""
    world = World()
    here, there = world.sink(), world.sink()
    here.deliver(TOPIC, events_of(flights(0, 1)))
    there.deliver(TOPIC, events_of(flights(2, 3)))

    here.deliver(TOPIC, events_of(flights(4, 5)))

    assert world.ledger.gaps() == []
    assert world.queued_offsets() == dict.fromkeys([(0, n) for n in range(6)], 1)


def test_a_batch_of_a_hundred_partitions_is_taken_whole() -> None:
    world = World(partitions=100)

    world.sink().deliver(TOPIC, events_of(r for p in range(100) for r in flights(4, 5, partition=p)))

    assert len(world.ledger.segments()) == 2
    assert world.queued_offsets() == dict.fromkeys([(p, o) for p in range(100) for o in (4, 5)], 1)


def test_five_thousand_tombstones_move_the_position_and_leave_no_blob() -> None:
    world = World()

    world.sink().deliver(TOPIC, events_of(Sent(None, offset) for offset in range(5_000)))

    (segment,) = world.ledger.segments()
    assert (segment.state, segment.records, segment.blobs) == ("queued", 5_000, ())
    assert world.ledger.positions()[0].next_offset == 5_000
    assert world.blobs.blobs == {}


def test_tombstones_can_be_dead_letters() -> None:
    world = World(settings_of({"tombstones": "dead_letter"}))

    world.sink().deliver(TOPIC, events_of([*flights(0), Sent(None, 1, key=b"EWR")]))

    (letter,) = world.dead_letters()
    assert (letter["reason"], letter["offset"], letter["key"], letter["value"]) == ("tombstone", 1, b"EWR", None)


def test_a_refused_record_goes_alone_and_whole() -> None:
    world = World()
    bad = Sent(b'{"broken', 1, key=b"\xff\x00", timestamp="2013-01-01T10:00:00.12Z", headers=(("type", None),))

    world.sink().deliver(TOPIC, events_of([*flights(0), bad, *flights(2)]))

    assert world.queued_offsets() == {(0, 0): 1, (0, 2): 1}
    (letter,) = world.dead_letters()
    assert letter.pop("detail")
    assert letter == {
        "topic": TOPIC,
        "partition": 0,
        "offset": 1,
        "timestamp_ms": 1357034400120,
        "key": b"\xff\x00",
        "value": b'{"broken',
        "headers": [["type", None]],
        "reason": "invalid_json",
        "db": "db",
        "table": "Flights",
        "at": "2026-01-02T03:04:05Z",
    }
    (segment,) = world.ledger.segments()
    assert list(world.blobs.in_container("sink-dead-letters")) == [world.dead_letters_path(segment.id)]
    assert segment.ranges[0].next_offset == 3


def test_a_bad_record_stops_the_topic_where_the_app_is_set_so() -> None:
    world = World(settings_of(SINK_ON_BAD_RECORD="fail"))

    with pytest.raises(RecordError, match="partition 0 offset 1: invalid_json") as raised:
        world.sink().deliver(TOPIC, events_of([*flights(0), Sent(b'{"secret', 1)]))

    assert "secret" not in str(raised.value)
    assert world.ledger.segments() == []


def test_past_its_deadline_a_batch_is_not_committed() -> None:
    """Blobs of a process that was frozen for days may have been swept."""
    world = World()

    class SlowBlobs(MemoryBlobs):
        def put(self, container: str, path: str, data: bytes) -> None:
            world.clock.advance(241)
            super().put(container, path, data)

    with pytest.raises(TransientError, match="not committed any more"):
        world.sink(blobs=SlowBlobs()).deliver(TOPIC, events_of(flights(0)))

    assert world.ledger.segments() == []


def test_a_freeze_between_commit_and_queueing_leaves_the_segment_to_the_sweeper() -> None:
    world = World()

    class FreezesAfterCommit(FailingTable):
        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            etags = super().transact(partition, operations)
            if operations[0].key.startswith("s-"):
                world.clock.advance(10_000)
            return etags

    world.sink(table=FreezesAfterCommit(world.table)).deliver(TOPIC, events_of(flights(0)))

    assert world.queue.queued == []
    (segment,) = world.ledger.segments()
    assert (segment.state, [blob.state for blob in segment.blobs]) == ("staged", ["unsent"])


def test_a_segment_that_the_sweeper_took_during_a_freeze_is_left_to_it() -> None:
    """Both clocks of a frozen machine may stand still; the ledger's rows tell."""
    world = World()

    class FreezesDuringCommit(FailingTable):
        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            super().transact(partition, operations)
            if operations[0].key.startswith("s-"):
                (opened,) = world.ledger.open_segments()
                assert world.ledger.claim(opened, "a sweeper that is about to queue it")
                raise OutcomeUnknownError("ledger: the reply was lost")

    sink = world.sink(table=FreezesDuringCommit(world.table), clock=ManualClock(world.clock.ms))
    sink.deliver(TOPIC, events_of(flights(0)))

    assert world.queue.queued == []


@pytest.mark.parametrize(
    ("error", "state"), [(TransientError("DM: 503"), "unsent"), (OutcomeUnknownError("lost"), "staged")]
)
def test_while_adx_refuses_records_are_committed_and_stay_staged(error: Exception, state: str) -> None:
    world = World()

    world.queue.fails_with = error

    world.sink().deliver(TOPIC, events_of(flights(0, 1)))

    (segment,) = world.ledger.segments()
    assert (segment.state, [blob.state for blob in segment.blobs]) == ("staged", [state])
    assert world.ledger.positions()[0].next_offset == 2


def test_a_conflict_with_another_hosts_progress_uses_the_same_blobs_where_nothing_was_trimmed() -> None:
    """Another partition of the same topic moves without touching ours; encoding again would be for nothing."""
    world = World()
    sink = world.sink(table=FailingTable(world.table, script=[None, None, OutcomeUnknownError("503")]))

    sink.deliver(TOPIC, events_of(flights(0, 1)))

    assert len(world.blobs.in_container("sink-staging")) == 1
    assert world.queued_offsets() == {(0, 0): 1, (0, 1): 1}


def test_a_conflict_in_which_another_host_took_records_is_trimmed_and_encoded_again() -> None:
    world = World()
    late = world.sink()
    late.deliver(TOPIC, events_of(flights(0)))
    world.sink().deliver(TOPIC, events_of(flights(1, 2)))

    late.deliver(TOPIC, events_of(flights(1, 2, 3)))

    assert world.queued_offsets() == dict.fromkeys([(0, n) for n in range(4)], 1)


def test_who_meets_conflict_after_conflict_gives_the_batch_back() -> None:
    world = World()
    sink = world.sink(table=FailingTable(world.table, script=[None, None, *[OutcomeUnknownError("503")] * 3]))

    with pytest.raises(TransientError, match="3 commits"):
        sink.deliver(TOPIC, events_of(flights(0)))

    assert world.queue.queued == []


def test_a_batch_whose_bodies_are_too_many_for_one_segment_becomes_several() -> None:
    world = World(settings_of(SINK_BLOB_MAX_BYTES="1024", SINK_RECORD_MAX_BYTES="1024"))
    big = [Sent(json.dumps({"n": n, "x": "y" * 600}).encode(), n) for n in range(200)]

    world.sink().deliver(TOPIC, events_of(big))

    assert len(world.ledger.segments()) > 1
    assert world.ledger_offsets() == dict.fromkeys([(0, n) for n in range(200)], 1)
    assert world.queued_offsets() == dict.fromkeys([(0, n) for n in range(200)], 1)


def test_the_requests_of_a_batch_do_not_grow_with_its_partitions() -> None:
    """A put, the commit, a message and the mark; 100 partitions are two segments."""

    def requests(partitions: int) -> list[str]:
        world, steps = World(partitions=100), Steps()
        sink = world.stepped_sink(steps)
        for offset in (5, 6):
            steps.taken.clear()
            sink.deliver(TOPIC, events_of(r for p in range(partitions) for r in flights(offset, partition=p)))
        return [step.partition(" ")[0] for step in steps.taken]

    assert requests(1) == requests(10) == requests(45) == ["put", "transact", "queue", "transact"]
    assert requests(100) == requests(1) * 2


def test_a_healthy_invocation_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A worker's first one says what its records look like, too."""
    caplog.set_level(logging.INFO)
    world = World()
    sink = world.sink()
    sink.deliver(TOPIC, events_of(flights(0)))
    assert [r.__dict__["event"] for r in caplog.records] == ["schema_seen", "segment_queued"]
    caplog.clear()

    sink.deliver(TOPIC, events_of(flights(1, 2)))

    (line,) = caplog.records
    name, _, facts = line.getMessage().partition(" ")
    assert name == "segment_queued"
    assert json.loads(facts).keys() == {
        "topic",
        "segment",
        "ranges",
        "records",
        "dead_letters",
        "blobs",
        "raw_size_bytes",
        "stored_size_bytes",
        "duration_ms",
    }


def test_a_topic_with_dots_upper_case_and_249_characters_has_blobs_and_rows() -> None:
    topic = "Orders.EU." * 24 + "ab.XYZ.9."
    assert len(topic) == 249
    world = World(settings_of({"topic": topic}))

    world.sink().deliver(topic, events_of(flights(0), topic))

    (blob, _), *_ = world.queue.queued
    assert not any(part.endswith(".") for part in blob.path.split("/")), "Azure refuses such path segments"
    assert world.queued_rows()[0]["_kafka"]["topic"] == topic
