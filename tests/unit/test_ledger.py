"""The protocol: a segment and its positions are recorded together, and a doubtful reply is read three ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sinkcore.errors import (
    ConflictError,
    OutcomeUnknownError,
    PositionMovedError,
    TransientError,
)
from sinkcore.ledger import Ledger, topics
from sinkcore.ledger_rows import Gap, Position, TopicRow, key_of
from sinkcore.records import OffsetRange
from sinkcore.segment import Blob, Segment
from tests.support.faults import FailingTable
from tests.support.memory import ManualClock, MemoryTable

SEGMENT_ID = "019b7c0a5d1000000000000000000001"


def a_segment(first: int = 40, after: int = 44, segment_id: str = SEGMENT_ID) -> Segment:
    blob = Blob(
        "rows", "staging", "flights/x.json.gz", 4, 400, 90, "db", "Flights", "json", "M", "_kafka", segment_id
    )
    return Segment(segment_id, "flights", (OffsetRange(0, first, after),), (blob,), after - first, 0)


def commit(ledger: Ledger, segment: Segment, etag: str = "", gaps: tuple[Gap, ...] = ()) -> Position:
    offsets = segment.ranges[0]
    _, moved = ledger.commit(segment, [Position(0, offsets.next_offset, 40, etag=etag)], gaps)
    return (moved or ledger.positions())[0]


def test_a_commit_moves_the_position_and_records_the_segment() -> None:
    ledger = Ledger(MemoryTable(), "adx-sink-flights")

    position = commit(ledger, a_segment())

    assert (position.next_offset, position.kept_from) == (44, 40)
    assert ledger.positions() == {0: position}
    assert ledger.segments() == [a_segment()]
    assert [opened.segment for opened in ledger.open_segments()] == [a_segment()]


def test_of_two_commits_at_one_position_the_second_is_refused_whole() -> None:
    ledger = Ledger(MemoryTable(), "g")
    position = commit(ledger, a_segment())
    commit(ledger, a_segment(44, 50, "2" * 32), position.etag)

    with pytest.raises(PositionMovedError):
        commit(ledger, a_segment(44, 47, "3" * 32), position.etag)

    assert [segment.id for segment in ledger.segments()] == [SEGMENT_ID, "2" * 32]
    assert ledger.positions()[0].next_offset == 50


def test_two_hosts_that_start_at_once_on_an_empty_ledger_do_not_both_win() -> None:
    ledger = Ledger(MemoryTable(), "g")
    commit(ledger, a_segment())

    with pytest.raises(PositionMovedError):
        commit(ledger, a_segment(segment_id="2" * 32))

    assert len(ledger.segments()) == 1


def test_a_commit_whose_reply_was_lost_is_not_taken_for_a_conflict() -> None:
    """Trimming after our own landed commit would leave its blobs unqueued."""
    table = FailingTable(MemoryTable(), script=["lost"])

    opened, moved = Ledger(table, "g").commit(a_segment(), [Position(0, 44, 40)], ())

    assert opened.segment == a_segment()
    assert moved is None, "the ETags are not known, so the positions must be read again"
    assert Ledger(table, "g").finish(opened, opened.segment, "queued")


def test_a_transaction_sent_twice_meets_its_own_segment_and_has_landed() -> None:
    """The SDK or a proxy sends a POST again on 503: our own success comes back as 409 on the segment's create."""
    memory = MemoryTable()

    class SendsTwice(FailingTable):
        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            self.inner.transact(partition, operations)
            return self.inner.transact(partition, operations)

    opened, moved = Ledger(SendsTwice(memory), "g").commit(a_segment(), [Position(0, 44, 40)], ())

    assert opened.segment == a_segment()
    assert moved is None


def test_a_commit_that_did_not_land_and_lost_its_reply_is_tried_again_like_a_conflict() -> None:
    table = FailingTable(MemoryTable(), script=[OutcomeUnknownError("503")])

    with pytest.raises(PositionMovedError):
        commit(Ledger(table, "g"), a_segment())

    assert commit(Ledger(table, "g"), a_segment()).next_offset == 44


def test_when_neither_the_commit_nor_the_question_is_answered_the_outcome_is_unknown() -> None:
    table = FailingTable(MemoryTable(), script=["lost"], reads_fail=[TransientError("silence")])

    with pytest.raises(OutcomeUnknownError, match="neither"):
        commit(Ledger(table, "g"), a_segment())


def test_a_commit_that_was_never_sent_is_no_question() -> None:
    table = FailingTable(MemoryTable(), script=[TransientError("refused")], reads_fail=[AssertionError("asked")])

    with pytest.raises(TransientError):
        commit(Ledger(table, "g"), a_segment())


def test_a_gap_is_in_the_same_transaction() -> None:
    ledger = Ledger(MemoryTable(), "g")
    gap = Gap(0, 30, 40, "skipped")

    commit(ledger, a_segment(), gaps=(gap,))

    (found,) = ledger.gaps()
    assert (found.partition, found.next_offset, found.end_offset, found.why, found.held) == (
        0,
        30,
        40,
        "skipped",
        False,
    )


def test_finishing_a_segment_removes_its_open_row() -> None:
    ledger = Ledger(MemoryTable(), "g")
    opened, _ = ledger.commit(a_segment(), [Position(0, 44, 40)], ())

    assert ledger.finish(opened, opened.segment, "queued")

    assert list(ledger.open_segments()) == []
    assert [segment.state for segment in ledger.segments()] == ["queued"]


def test_a_segment_that_is_finished_while_open_ones_are_read_is_none_of_them() -> None:
    """A sweeper would claim it, and say of a healthy segment that it was left behind."""
    memory = MemoryTable()
    ledger = Ledger(memory, "g")
    opened, _ = ledger.commit(a_segment(), [Position(0, 44, 40)], ())

    class FinishesMeanwhile(FailingTable):
        def rows(self, partition, prefix, before=""):  # type: ignore[no-untyped-def]
            found = list(self.inner.rows(partition, prefix, before))
            assert ledger.finish(opened, opened.segment, "landed")
            return iter(found)

    assert list(Ledger(FinishesMeanwhile(memory), "g").open_segments()) == []


@pytest.mark.parametrize("fault", ["lost", OutcomeUnknownError("503"), TransientError("not sent")])
def test_a_mark_whose_reply_was_lost_is_made_or_made_again(fault: str | Exception) -> None:
    """A queued segment without its mark would be doubted, and perhaps queued twice."""
    memory = MemoryTable()
    ledger = Ledger(FailingTable(memory, script=[None, fault]), "g")
    opened, _ = ledger.commit(a_segment(), [Position(0, 44, 40)], ())

    assert ledger.finish(opened, opened.segment, "queued")
    assert [segment.state for segment in ledger.segments()] == ["queued"]


def test_a_claimed_segment_cannot_be_finished_by_who_lost_it() -> None:
    ledger = Ledger(MemoryTable(), "g")
    opened, _ = ledger.commit(a_segment(), [Position(0, 44, 40)], ())

    claimed = ledger.claim(opened, "sweeper")

    assert claimed is not None
    assert not ledger.finish(opened, opened.segment, "queued")
    assert ledger.finish(claimed, claimed.segment, "queued")


def test_of_two_sweepers_one_gets_the_segment() -> None:
    ledger = Ledger(MemoryTable(), "g")
    ledger.commit(a_segment(), [Position(0, 44, 40)], ())
    (first,), (second,) = list(ledger.open_segments()), list(ledger.open_segments())

    claims = [ledger.claim(first, "one"), ledger.claim(second, "two")]

    assert [claim is not None for claim in claims] == [True, False]


def test_an_open_segment_tells_how_long_it_was_left_alone() -> None:
    clock = ManualClock()
    ledger = Ledger(MemoryTable(clock), "g")
    ledger.commit(a_segment(), [Position(0, 44, 40)], ())
    clock.advance(100)
    (opened,) = ledger.open_segments()
    ledger.claim(opened, "sweeper")
    clock.advance(10)

    (again,) = ledger.open_segments()

    assert (again.untouched_s, again.committed_s) == (10, 110)
    assert again.segment.attempts == 1


def test_what_is_known_of_each_blob_is_kept() -> None:
    ledger = Ledger(MemoryTable(), "g")
    opened, _ = ledger.commit(a_segment(), [Position(0, 44, 40)], ())

    ledger.note(opened, opened.segment.with_blob_states({"flights/x.json.gz": "unsent"}))

    assert [blob.state for blob in ledger.segments()[0].blobs] == ["unsent"]


def test_a_topic_is_listed_once_for_the_sweeper() -> None:
    table = MemoryTable()
    for _ in range(2):
        Ledger(table, "adx-sink-flights").start(TopicRow("flights", "", 4, "earliest"))

    assert list(topics(table)) == [("flights", "adx-sink-flights")]


def test_a_topic_that_another_host_lists_at_the_same_moment_is_listed() -> None:
    memory = MemoryTable()

    class IsSecond(FailingTable):
        def transact(self, partition, operations):  # type: ignore[no-untyped-def]
            self.inner.transact(partition, operations)
            raise ConflictError("409")

    row = Ledger(IsSecond(memory), "g").start(TopicRow("flights", "id", 4, "earliest"))

    assert (row.topic_id, row.partitions) == ("id", 4)


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ("adx-sink-flights", "adx-sink-flights"),
        ("a/b\\c#d?e", "a=2Fb=5Cc=23d=3Fe"),
        ("prüfung=1", "pr=C3=BCfung=3D1"),
        ("with space\t", "with=20space=09"),
    ],
)
def test_a_group_becomes_a_key_that_table_storage_takes(group: str, key: str) -> None:
    assert key_of(group) == key


def test_no_module_but_the_transaction_makes_operations_by_hand() -> None:
    """A forgotten match condition overwrites another invocation's position without a word."""
    from pathlib import Path

    import sinkcore

    for path in Path(sinkcore.__file__).parent.rglob("*.py"):
        if path.name != "transaction.py":
            source = path.read_text()
            assert "Operation(" not in source, path
            assert "upsert" not in source, path


def test_a_segment_survives_the_way_through_the_table() -> None:
    segment = replace(
        a_segment(), ranges=(OffsetRange(0, 40, 44), OffsetRange(7, 2**40, 2**40 + 1)), dead_letters=3, records=5
    )
    ledger = Ledger(MemoryTable(), "g")
    ledger.commit(segment, [Position(0, 44, 40), Position(7, 2**40 + 1, 0)], ())

    assert ledger.segment(segment.id) == segment
    assert ledger.segment("0" * 32) is None
