"""Where a topic begins, on a real broker: the route's `start`, honoured once, and what is skipped at first."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from sinkcore.kafkalog import ConfluentLog
from sinkcore.ledger import Ledger
from sinkcore.operate import start_topic
from sinkcore.partitions import SILENT_SWEEPS
from sinkctl.__main__ import main
from tests.kafka.topics import Topics
from tests.support.app import World, settings_of
from tests.support.events import Sent, events_of

NOON_MS = 1_767_355_200_000
HOUR_MS = 3_600_000


def at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


@pytest.fixture(scope="module", autouse=True)
def _groups(topics: Topics) -> None:
    """A broker that has just started loads its groups for a moment; a consumer waits for that."""
    topics.commit_offsets("any", {(topics.make(), 0): 0})


class Started:
    """A sink on a real topic with ten records, an hour apart from noon on."""

    def __init__(self, topics: Topics, log: ConfluentLog, start: str) -> None:
        self.topics, self.log = topics, log
        self.name = topics.make()
        hours = [NOON_MS + n * HOUR_MS for n in range(10)]
        topics.fill(self.name, [b"{}"] * 10, timestamp=hours)
        self.world = World(settings_of({"topic": self.name, "start": start}))
        self.sink = self.world.sink(kafka=log)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.world.table, self.world.settings.kafka.group_of(self.name))

    @property
    def begins_at(self) -> int:
        return self.ledger.positions()[0].next_offset

    def more(self, count: int) -> None:
        self.topics.fill(self.name, [b"{}"] * count)

    def deliver(self, *offsets: int) -> None:
        self.sink.deliver(self.name, events_of([Sent(b"{}", n) for n in offsets], self.name))

    def sweep(self, times: int = SILENT_SWEEPS + 1) -> None:
        for _ in range(times):
            self.world.sweep(self.world.sink(kafka=self.log))

    def taken(self) -> list[int]:
        ranges = [r for segment in self.ledger.segments() for r in segment.ranges]
        return sorted(n for r in ranges for n in range(r.first_offset, r.next_offset))


@pytest.mark.parametrize(
    ("start", "begins_at"),
    [
        ("earliest", 0),
        ("latest", 10),
        (at(NOON_MS + 4 * HOUR_MS), 4),
        (at(NOON_MS + 4 * HOUR_MS + 1), 5),
        ("2026-01-02T17:00:00+01:00", 4),
        ("2026-01-02", 0),
        ("2030-01-01", 10),
    ],
)
def test_sinkctl_start_places_each_partition_by_the_rule(
    start: str, begins_at: int, topics: Topics, log: ConfluentLog
) -> None:
    """And what a host skips behind it, the first batch of all included, is found."""
    topic = Started(topics, log, start)

    start_topic(topic.sink, topic.name)
    assert topic.begins_at == begins_at
    topic.more(5)
    topic.deliver(13, 14)
    topic.sweep()

    assert topic.taken() == list(range(begins_at, 15))


@pytest.mark.parametrize("start", ["latest", at(NOON_MS + 4 * HOUR_MS)])
def test_after_sinkctl_start_records_from_before_it_are_dropped(
    start: str, topics: Topics, log: ConfluentLog
) -> None:
    """`autoOffsetReset` is `Earliest`, so that the host hands all of the topic over."""
    topic = Started(topics, log, start)
    start_topic(topic.sink, topic.name)
    begins_at = topic.begins_at
    topic.more(1)

    topic.deliver(*range(11))

    assert topic.taken() == list(range(begins_at, 11))


@pytest.mark.parametrize(
    ("start", "committed", "begins_at"),
    [
        ("latest", None, 7),
        ("latest", 5, 5),
        ("latest", 9, 7),
        ("earliest", None, 7),
        (at(NOON_MS + 4 * HOUR_MS), 9, 4),
    ],
)
def test_without_it_a_topic_begins_with_what_the_host_delivers_first_or_at_its_time(
    start: str, committed: int | None, begins_at: int, topics: Topics, log: ConfluentLog
) -> None:
    topic = Started(topics, log, start)
    if committed is not None:
        topics.commit_offsets(topic.world.settings.kafka.group_of(topic.name), {(topic.name, 0): committed})

    topic.deliver(7, 8, 9)
    topic.sweep()

    assert topic.taken() == list(range(begins_at, 10))


def test_under_latest_a_partition_without_records_stays_open_until_its_first(
    topics: Topics, log: ConfluentLog
) -> None:
    topic = Started(topics, log, "latest")
    topics.enlarge(topic.name, 2)

    topic.deliver(9)

    assert topic.ledger.positions().keys() == {0}
    topic.sweep(1)
    assert topic.ledger.positions().keys() == {0}


def test_the_rule_is_honoured_once(topics: Topics, log: ConfluentLog) -> None:
    """A route that changes later changes nothing, and a partition that is added later begins at its start."""
    topic = Started(topics, log, "latest")
    start_topic(topic.sink, topic.name)
    changed = topic.world.sink(kafka=log, settings=settings_of({"topic": topic.name, "start": "earliest"}))

    start_topic(changed, topic.name)
    assert topic.begins_at == 10
    topics.enlarge(topic.name, 2)
    topics.fill(topic.name, [b"{}"] * 3, partition=1)
    topic.sweep()

    assert topic.ledger.positions()[1].kept_from == 0
    row = topic.ledger.topic()
    assert row is not None
    assert row.start == "latest"
    assert topic.taken() == [0, 1, 2], "those of the new partition"


@pytest.mark.parametrize(("start", "begins_at"), [("latest", 10), (at(NOON_MS + 9 * HOUR_MS), 9), ("earliest", 0)])
def test_the_verb_says_where_each_partition_begins(
    start: str,
    begins_at: int,
    topics: Topics,
    log: ConfluentLog,
    azurite: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = Started(topics, log, start)
    environment = {
        "SINK_TOPICS_MAPPING": json.dumps([{"topic": topic.name, "db": "db", "table": "T", "start": start}]),
        "KAFKA_BROKERS": topics.bootstrap,
        "AzureWebJobsStorage": azurite,
        "KUSTO_INGESTION_URL": "http://127.0.0.1:1",
        "KUSTO_QUERY_URL": "http://127.0.0.1:2",
        "KUSTO_AUTHENTICATION": "none",
        "SINK_LEDGER_TABLE": "start" + topic.name.replace("-", ""),
        "SINK_STAGING_CONTAINER": topic.name,
    }

    assert main(["start"], environment) == 0

    assert capsys.readouterr().out == f"{topic.name} 0 begins at {begins_at} ({start})\n"
