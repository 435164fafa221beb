"""One test for each thing that a log can hold, or be: every question gets the right verdict, none hangs."""

from __future__ import annotations

import threading
import time

import pytest

from sinkcore.clock import SystemClock
from sinkcore.connections import Kafka
from sinkcore.gaps import Answer
from sinkcore.kafkalog import ConfluentLog
from tests.kafka.conftest import Ask
from tests.kafka.topics import Topics, wait_for

COMPACTION_S = 90.0
PATIENCE_S = 120.0


def found(answer: Answer) -> tuple[str, list[int | None], int, int]:
    """The whole verdict in one line: why, the offsets of the records, the next offset, the lost ones."""
    return answer.why, [event.offset for event in answer.events], answer.next_offset, answer.lost


@pytest.fixture(scope="module")
def plain(topics: Topics) -> str:
    """1,000 records in partition 0, none in partition 1."""
    name = topics.make(partitions=2)
    topics.fill(name, [b"%d" % n for n in range(1_000)])
    return name


@pytest.fixture(scope="module")
def transactional(topics: Topics) -> str:
    """Offsets 0-4 committed, 5 a marker, 6-10 aborted, 11 a marker, 12-16 committed, 17 a marker;
    18-20 aborted, 21 a marker, and nothing behind it."""
    name = topics.make()
    topics.commit(name, 5)
    topics.abort(name, 5)
    topics.commit(name, 5)
    topics.abort(name, 3)
    return name


@pytest.fixture(scope="module")
def undecided(topics: Topics) -> str:
    """Offsets 0-3 plain, 4-8 of a transaction that stays open, 9-11 plain: the last stable offset is 4."""
    name = topics.make()
    topics.fill(name, [b"before"] * 4)
    other = Topics(topics.bootstrap)
    other.open(name, 5)
    topics.fill(name, [b"behind"] * 3)
    return name


@pytest.fixture(scope="module")
def compacted(topics: Topics, ask: Ask) -> str:
    """Offsets 0-989 cleaned away; 990-999 are the last of their keys, 1000-1009 of theirs, 1010 is alone."""
    topics.compact_soon()
    name = topics.make(cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01")
    topics.fill(name, [b"old"] * 1_000, key=[b"%d" % (n % 10) for n in range(1_000)])

    def is_cleaned() -> bool:
        # A segment is closed by the first record that comes when its time is over, and cleaned afterwards.
        return len(ask(name, 0, 1_000).events) == 10

    time.sleep(0.15)
    topics.fill(name, [b"new"] * 10, key=[b"new %d" % n for n in range(10)])
    time.sleep(0.15)
    topics.fill(name, [b"last"], key=[b"last"])
    wait_for("the first segment is compacted", is_cleaned, COMPACTION_S)
    return name


def test_records_end_a_range_with_the_last_one_asked_for(ask: Ask, plain: str) -> None:
    """Nothing behind the range is waited for: it may take a day to come."""
    assert found(ask(plain, 100, 200)) == ("settled", list(range(100, 200)), 200, 0)


def test_the_last_record_of_a_log_ends_a_range(ask: Ask, plain: str) -> None:
    assert found(ask(plain, 999, 1_000)) == ("settled", [999], 1_000, 0)


def test_a_marker_with_records_behind_it_is_proven_empty(ask: Ask, transactional: str) -> None:
    assert found(ask(transactional, 5, 6)) == ("settled", [], 6, 0)


def test_a_last_marker_with_nothing_behind_it_is_proven_empty_by_the_end_of_the_log(
    ask: Ask, topics: Topics
) -> None:
    """No record will ever prove it, and a silent topic would keep its gap for ever."""
    name = topics.make()
    topics.commit(name, 2)

    assert found(ask(name, 2, 3)) == ("settled", [], 3, 0)


def test_an_aborted_transaction_is_proven_empty(ask: Ask, transactional: str) -> None:
    """Read uncommitted, its records would come as real ones."""
    assert found(ask(transactional, 6, 12)) == ("settled", [], 12, 0)


def test_a_range_that_starts_inside_an_aborted_transaction_is_proven_empty(ask: Ask, transactional: str) -> None:
    assert found(ask(transactional, 8, 12)) == ("settled", [], 12, 0)


def test_an_aborted_tail_is_proven_empty_by_the_end_of_the_log(ask: Ask, transactional: str) -> None:
    assert found(ask(transactional, 18, 22)) == ("settled", [], 22, 0)


def test_markers_and_aborted_records_among_others_are_stepped_over(ask: Ask, transactional: str) -> None:
    offsets = [0, 1, 2, 3, 4, 12, 13, 14, 15, 16]

    assert found(ask(transactional, 0, 22)) == ("settled", offsets, 22, 0)


def test_an_open_transaction_is_not_readable_yet(ask: Ask, undecided: str) -> None:
    """Its records may still be committed: taking the range for empty would lose them."""
    assert found(ask(undecided, 2, 9)) == ("not_readable_yet", [2, 3], 4, 0)


def test_a_question_above_the_last_stable_offset_gets_its_answer_from_the_metadata(
    ask: Ask, undecided: str
) -> None:
    """librdkafka says nothing at all there: no record, no end, no error."""
    started = time.monotonic()

    assert found(ask(undecided, 9, 12, budget_s=PATIENCE_S)) == ("not_readable_yet", [], 9, 0)
    assert time.monotonic() - started < PATIENCE_S / 2, "only the deadline ended it"


def test_closing_waits_for_a_read_that_still_asks_and_then_ends(kafka: str, undecided: str) -> None:
    """Such a read needs the other client to come to its end, so that nobody may hold that one meanwhile."""
    log = ConfluentLog(Kafka(brokers=kafka), SystemClock())
    done: list[str] = []

    def read() -> None:
        for _ in range(3):
            answers = log.read(undecided, {0: (9, 12)}, budget_s=20, max_records=10, max_bytes=1_000)
            done.append(answers[0].why)

    def close() -> None:
        while len(done) < 3:
            log.close()

    threads = [threading.Thread(target=target, daemon=True) for target in (read, close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert done == ["not_readable_yet"] * 3
    assert not any(thread.is_alive() for thread in threads)
    log.close()


def test_what_a_transaction_leaves_behind_is_readable_once_it_ends(ask: Ask, topics: Topics) -> None:
    """The same range, asked again: that is how a gap over an open transaction is settled at last."""
    name, other = topics.make(), Topics(topics.bootstrap)
    transaction = other.open(name, 3)
    assert found(ask(name, 0, 3)) == ("not_readable_yet", [], 0, 0)

    transaction.commit_transaction(20)

    assert found(ask(name, 0, 3)) == ("settled", [0, 1, 2], 3, 0)


def test_a_compacted_range_is_proven_empty_by_the_next_record(ask: Ask, compacted: str) -> None:
    assert found(ask(compacted, 100, 900)) == ("settled", [], 900, 0)
    assert found(ask(compacted, 0, 990)) == ("settled", [], 990, 0)


def test_the_end_of_a_compacted_range_comes_as_records(ask: Ask, compacted: str) -> None:
    """The newest segment is never compacted, so that a log has no hole at its very end."""
    assert found(ask(compacted, 500, 1_011)) == ("settled", list(range(990, 1_011)), 1_011, 0)


@pytest.mark.parametrize(
    ("first", "end", "verdict"),
    [
        (100, 500, ("settled", [], 500, 400)),
        (490, 503, ("settled", [500, 501, 502], 503, 10)),
        (500, 502, ("settled", [500, 501], 502, 0)),
    ],
)
def test_what_retention_took_is_counted_as_lost(
    ask: Ask, topics: Topics, first: int, end: int, verdict: tuple[str, list[int], int, int]
) -> None:
    """A reader that starts again at the earliest offset would step over the loss without a word."""
    name = topics.make()
    topics.fill(name, [b"%d" % n for n in range(510)])
    topics.delete_before(name, 0, 500)

    assert found(ask(name, first, end)) == verdict


def test_a_range_that_ends_at_the_end_of_the_log_is_no_question(ask: Ask, plain: str) -> None:
    assert found(ask(plain, 1_000, 1_000)) == ("settled", [], 1_000, 0)


def test_a_range_beyond_the_end_of_the_log_is_not_readable_yet(ask: Ask, plain: str) -> None:
    assert found(ask(plain, 998, 1_005)) == ("not_readable_yet", [998, 999], 1_000, 0)
    assert found(ask(plain, 0, 5, partition=1)) == ("not_readable_yet", [], 0, 0)


def test_a_range_past_the_end_of_the_log_is_told_from_one_below_its_beginning(ask: Ask, plain: str) -> None:
    """librdkafka has one error for both; counting this one as lost would move a position past records to come."""
    assert found(ask(plain, 1_001, 1_005)) == ("past_end", [], 1_001, 0)


def test_a_topic_that_was_deleted_under_a_warm_consumer_is_no_topic(ask: Ask, topics: Topics) -> None:
    """librdkafka goes silent there."""
    name = topics.make()
    topics.fill(name, [b"x"] * 10)
    assert found(ask(name, 0, 10)) == ("settled", list(range(10)), 10, 0)
    topics.drop(name)

    answer = ask(name, 5, 10)

    assert found(answer) == ("no_topic", [], 5, 0)


def test_a_topic_made_anew_with_few_records_ends_below_the_range(
    ask: Ask, topics: Topics, log: ConfluentLog
) -> None:
    name = topics.make()
    topics.fill(name, [b"first life"] * 520)
    before = log.topic(name)
    assert found(ask(name, 519, 520)) == ("settled", [519], 520, 0)
    topics.drop(name)
    topics.make(name)
    topics.fill(name, [b"second life"] * 100)

    assert found(ask(name, 500, 510)) == ("past_end", [], 500, 0)
    after = log.topic(name)
    assert before is not None
    assert after is not None
    assert before.id != after.id


def test_a_topic_made_anew_and_refilled_is_told_by_its_id_alone(
    ask: Ask, topics: Topics, log: ConfluentLog
) -> None:
    """Its records at the old offsets are as good as any: whoever asks has to compare the id before and after."""
    name = topics.make()
    topics.fill(name, [b"first life"] * 520)
    before = log.topic(name)
    assert ask(name, 519, 520).events[0].get_body() == b"first life"
    topics.drop(name)
    topics.make(name)
    topics.fill(name, [b"second life"] * 520)

    answer = ask(name, 500, 510)

    assert found(answer) == ("settled", list(range(500, 510)), 510, 0)
    assert {event.get_body() for event in answer.events} == {b"second life"}
    after = log.topic(name)
    assert before is not None
    assert after is not None
    assert (before.id == after.id, after.partitions) == (False, 1)


def test_a_partition_added_under_a_warm_consumer_is_read(ask: Ask, topics: Topics) -> None:
    name = topics.make()
    topics.fill(name, [b"x"])
    assert found(ask(name, 0, 1)) == ("settled", [0], 1, 0)
    topics.enlarge(name, 3)
    topics.fill(name, [b"x"] * 3, partition=2)

    assert found(ask(name, 0, 3, partition=2)) == ("settled", [0, 1, 2], 3, 0)


def test_an_unknown_partition_is_no_partition(ask: Ask, plain: str) -> None:
    """librdkafka goes silent there."""
    assert found(ask(plain, 0, 5, partition=7)) == ("no_partition", [], 0, 0)


def test_an_unknown_topic_is_no_topic_and_is_not_made_by_asking(
    ask: Ask, log: ConfluentLog, topics: Topics, topic_name: str
) -> None:
    """Brokers make topics that a client mentions, unless it says that they should not."""
    assert found(ask(topic_name, 0, 5)) == ("no_topic", [], 0, 0)
    assert log.end_offsets(topic_name, [0], committed_only=True) == {}
    assert log.topic(topic_name) is None

    topics.make()  # It comes after one that was made for us, so that this one would be there by now.
    assert log.topic(topic_name) is None
