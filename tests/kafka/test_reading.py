"""Reading ranges: records as the trigger delivers them, budgets, several questions at once and in a row."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import azure.functions as func
import pytest

from sinkcore.clock import SystemClock
from sinkcore.connections import Kafka
from sinkcore.gaps import Answer
from sinkcore.kafka import Connection
from sinkcore.kafkalog import ConfluentLog
from sinkcore.reading import NARROW, Reader
from sinkcore.records import record_of, slices_of
from tests.kafka.broken import produce_with_broken_header
from tests.kafka.conftest import BUDGET_S, Ask
from tests.kafka.topics import Topics
from tests.support.events import Sent, events_of

MANY = 1_000_000_000
MOMENT_MS = 1_357_034_400_000  # 2013-01-01T10:00:00Z
QUESTIONS = 300
WARM_QUESTIONS = 50


def offsets_of(answer: Answer) -> list[int | None]:
    return [event.offset for event in answer.events]


def fields_of(event: func.KafkaEvent) -> tuple[Any, ...]:
    return (
        event.get_body(),
        event.key,
        event.offset,
        event.partition,
        event.topic,
        event.timestamp,
        event.headers,
    )


def test_records_are_those_that_the_trigger_would_deliver(ask: Ask, topics: Topics) -> None:
    """A record that came by way of a gap must make the same row, dead letter and metadata as any other."""
    sent = [
        Sent(b"\x00\xff plain", 0, 1, b"\xff\xfe", "2013-01-01T10:00:00Z"),
        Sent(None, 1, 1, b"k", "2013-01-01T10:00:00.1Z"),
        Sent(b"", 2, 1, None, "2013-01-01T10:00:00.12Z"),
        Sent(b"h", 3, 1, b"", "2013-01-01T10:00:00.123Z", (("a", b"\xff"), ("b", None), ("a", b""))),
        Sent(b"n", 4, 1, None, "1969-12-31T23:59:59.999Z"),
        Sent("é".encode(), 5, 1, None, "1912-06-23T00:00:00Z", (("naïve", "é".encode()),)),
    ]
    times = [MOMENT_MS, MOMENT_MS + 100, MOMENT_MS + 120, MOMENT_MS + 123, -1, -1_815_350_400_000]
    name = topics.make(partitions=2)
    topics.fill(
        name,
        [each.value for each in sent],
        partition=1,
        key=[each.key for each in sent],
        timestamp=times,
        headers=[list(each.headers) or None for each in sent],
    )

    events = ask(name, 0, 6, partition=1).events

    assert [fields_of(event) for event in events] == [fields_of(event) for event in events_of(sent, name)]
    assert [record_of(event).timestamp_ms for event in events] == times
    (piece,) = slices_of(events)
    assert piece.offsets == [0, 1, 2, 3, 4, 5]


def test_a_time_that_no_calendar_has_is_none(ask: Ask, topics: Topics) -> None:
    """Any number of 64 bits is a timestamp to Kafka; one bad producer must not hold a gap for ever."""
    name = topics.make(message_timestamp_after_max_ms=str(2**63 - 1))
    topics.fill(name, [b"late", b"early"], timestamp=[300_000_000_000_000, -(2**60)])

    assert [event.timestamp for event in ask(name, 0, 2).events] == [None, None]


def test_a_header_whose_name_is_not_text_costs_the_headers_and_not_the_record(
    ask: Ask, topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    """confluent-kafka cannot hand such headers out; a gap that holds the record must be settled all the same."""
    name = topics.make()
    produce_with_broken_header(topics.bootstrap, name, b"value")

    # Once in Python's slow lane and then in its fast ones.
    for _ in range(100):
        (event,) = ask(name, 0, 1).events
        assert (event.get_body(), event.headers) == (b"value", [])

    assert "headers_unreadable" in caplog.text


@pytest.mark.parametrize("first", [0, 5])
def test_huge_records_come_through_whatever_a_fetch_may_hold(
    log: ConfluentLog, topics: Topics, first: int
) -> None:
    """Several partitions at once: a broker exceeds its limits for the first batch of a response only."""
    name = topics.make(partitions=3, max_message_bytes="5000000")
    values = [random.Random(n).randbytes(2_000_000) for n in range(6)]
    for partition in range(3):
        topics.fill(name, values, partition)

    answers = log.read(
        name, dict.fromkeys(range(3), (first, 6)), budget_s=BUDGET_S, max_records=MANY, max_bytes=MANY
    )

    for answer in answers.values():
        assert (answer.why, answer.next_offset) == ("settled", 6)
        assert [event.get_body() for event in answer.events] == values[first:]


@pytest.fixture(scope="module")
def ten_thousand(topics: Topics) -> str:
    """10,000 records of 100 bytes in partition 0, 10 in partition 1."""
    name = topics.make(partitions=2)
    topics.fill(name, [b"%0100d" % n for n in range(10_000)])
    topics.fill(name, [b"%0100d" % n for n in range(10)], partition=1)
    return name


def test_a_budget_of_records_ends_a_read_and_the_next_one_goes_on_there(
    log: ConfluentLog, ten_thousand: str
) -> None:
    """That is how a gap of any size is drained: no record twice, none left out."""
    offsets: list[int | None] = []
    next_offset, whys = 0, []
    while next_offset < 10_000:
        asked = {0: (next_offset, 10_000)}
        answer = log.read(ten_thousand, asked, budget_s=BUDGET_S, max_records=3_000, max_bytes=MANY)[0]
        assert len(answer.events) <= 3_000
        offsets += offsets_of(answer)
        next_offset = answer.next_offset
        whys.append(answer.why)

    assert offsets == list(range(10_000))
    assert whys == ["budget", "budget", "budget", "settled"]


def test_a_budget_of_bytes_ends_a_read_with_the_record_that_reaches_it(
    log: ConfluentLog, ten_thousand: str
) -> None:
    answer = log.read(ten_thousand, {0: (0, 10_000)}, budget_s=BUDGET_S, max_records=MANY, max_bytes=4_950)[0]

    assert (answer.why, len(answer.events), answer.next_offset) == ("budget", 50, 50)


def test_a_record_above_the_budget_of_bytes_comes_alone(log: ConfluentLog, ten_thousand: str) -> None:
    """Else a gap whose next record is a huge one would never move."""
    answer = log.read(ten_thousand, {0: (7, 9)}, budget_s=BUDGET_S, max_records=MANY, max_bytes=1)[0]

    assert (answer.why, offsets_of(answer), answer.next_offset) == ("budget", [7], 8)


def test_partitions_asked_together_have_verdicts_of_their_own(log: ConfluentLog, ten_thousand: str) -> None:
    asked = {0: (9_990, 10_000), 1: (5, 20), 2: (0, 1)}

    answers = log.read(ten_thousand, asked, budget_s=BUDGET_S, max_records=MANY, max_bytes=MANY)

    assert {p: (answer.why, answer.next_offset) for p, answer in answers.items()} == {
        0: ("settled", 10_000),
        1: ("not_readable_yet", 10),
        2: ("no_partition", 0),
    }
    assert offsets_of(answers[1]) == [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def holed(topics: Topics) -> tuple[str, dict[int, list[int]]]:
    """Three partitions of committed and aborted transactions, and the offsets at which records are."""
    chance = random.Random(5)
    name = topics.make(partitions=3)
    there: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for partition, offsets in there.items():
        end = 0
        for _ in range(12):
            count, aborted = chance.randint(1, 120), chance.random() < 0.3
            (topics.abort if aborted else topics.commit)(name, count, partition)
            offsets += [] if aborted else range(end, end + count)
            end += count + 1
        topics.fill(name, [b"end"], partition)
        offsets.append(end)
    return name, there


def test_questions_in_a_row_never_get_an_answer_of_the_one_before(
    log: ConfluentLog, holed: tuple[str, dict[int, list[int]]]
) -> None:
    """A record or an end left over from another range would prove this one empty: a loss without a trace."""
    name, there = holed
    chance = random.Random(7)
    for _ in range(QUESTIONS):
        asked = {}
        for p in chance.sample(range(3), chance.randint(1, 3)):
            first = chance.randint(0, there[p][-1])
            # Some wide enough for the other consumer, some that end where the log does.
            end_of_log = there[p][-1] + 1
            asked[p] = (first, min(end_of_log, chance.choice([first + 1, first + 5, end_of_log])))
        most = chance.choice([3, MANY])

        answers = log.read(name, asked, budget_s=BUDGET_S, max_records=most, max_bytes=MANY)

        for p, (first, end) in asked.items():
            found, until = answers[p], answers[p].next_offset
            assert found.why == ("settled" if until == end else "budget"), (asked, p)
            assert offsets_of(found) == [o for o in there[p] if first <= o < until], (asked, p)


def test_several_threads_may_ask_at_once(log: ConfluentLog, holed: tuple[str, dict[int, list[int]]]) -> None:
    """The sweeper and the functions of several topics share one reader."""
    name, there = holed

    def read_all(n: int) -> bool:
        asked = {n % 3: (0, there[n % 3][-1] + 1)}
        answer = log.read(name, asked, budget_s=BUDGET_S, max_records=MANY, max_bytes=MANY)[n % 3]
        return offsets_of(answer) == there[n % 3] and answer.why == "settled"

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(read_all, range(40)))


def test_who_cannot_have_the_consumer_within_the_budget_is_not_answered(
    log: ConfluentLog, ten_thousand: str
) -> None:
    """An invocation must not wait for as long as another thread may read."""
    with ThreadPoolExecutor(1) as executor, log._reader(wide=False)._lock:
        started = time.monotonic()
        waiting = executor.submit(
            log.read, ten_thousand, {0: (0, 1)}, budget_s=0.2, max_records=MANY, max_bytes=MANY
        )
        answer = waiting.result(10)[0]
        assert time.monotonic() - started >= 0.2

    assert (answer.why, answer.next_offset, answer.events) == ("unanswered", 0, [])


def test_a_warm_question_costs_one_small_fetch(kafka: str, topics: Topics) -> None:
    """Invocations of a transactional topic ask a hundred a second: the defaults would fetch 2 MB for each."""
    name = topics.make()
    topics.fill(name, [b"x" * 1_000] * 5_000)
    seen: list[dict[str, Any]] = []
    config = NARROW | {"statistics.interval.ms": 20, "stats_cb": lambda text: seen.append(json.loads(text))}
    log = ConfluentLog(Kafka(brokers=kafka), SystemClock())
    reader = Reader(Connection(Kafka(brokers=kafka)), config, log._bounds, SystemClock())
    reader.read(name, {0: (0, 1)}, BUDGET_S, 10, MANY)

    def counts() -> tuple[int, int]:
        assert reader._consumer is not None
        seen.clear()
        # The first may be from before the last answer.
        deadline = time.monotonic() + BUDGET_S
        while len(seen) < 2 and time.monotonic() < deadline:
            reader._consumer.poll(0.05)
        brokers = seen[-1]["brokers"].values()
        return seen[-1]["rx_bytes"], sum(broker["req"].get("Fetch", 0) for broker in brokers)

    before = counts()
    for n in range(WARM_QUESTIONS):
        offset = 97 * n
        assert reader.read(name, {0: (offset, offset + 1)}, BUDGET_S, 10, MANY)[0].why == "settled"
    after = counts()
    reader.close()

    # One fetch each, and sometimes the next one that was already on its way: 70 KB and 1.1 fetches here.
    assert after[0] - before[0] <= WARM_QUESTIONS * 3 * 32_768
    assert after[1] - before[1] <= WARM_QUESTIONS * 3


def test_reading_leaves_no_consumer_group_behind(log: ConfluentLog, topics: Topics, ask: Ask) -> None:
    """A member of the trigger's group would take partitions from it; a group of our own would need rights."""
    name = topics.make()
    topics.fill(name, [b"x"])
    ask(name, 0, 1)

    groups = topics.admin.list_consumer_groups().result(20).valid
    assert [group.group_id for group in groups if "gaps" in group.group_id] == []
