"""What a topic is, where its partitions begin and end, and what a group has committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Uuid

from localrunner import mockkafka
from localrunner.kafka import answers
from localrunner.processes import free_ports, stop
from sinkcore.clock import SystemClock
from sinkcore.connections import Kafka
from sinkcore.gaps import TopicState
from sinkcore.kafkalog import ConfluentLog, id_of
from tests.kafka.topics import Topics, wait_for

MOMENT_MS = 1_357_034_400_000


@pytest.fixture(scope="module")
def topic(topics: Topics) -> str:
    """Partition 0: offsets 3-9 of 10, a second apart; 1: an open transaction at 2-4, one behind it; 2: empty."""
    name = topics.make(partitions=3)
    topics.fill(name, [b"x"] * 10, timestamp=[MOMENT_MS + 1_000 * n for n in range(10)])
    topics.delete_before(name, 0, 3)
    topics.fill(name, [b"x"] * 2, partition=1)
    Topics(topics.bootstrap).open(name, 3, partition=1)
    topics.fill(name, [b"x"], partition=1)
    return name


def test_a_topic_is_known_by_its_id_and_the_number_of_its_partitions(log: ConfluentLog, topic: str) -> None:
    first = log.topic(topic)

    assert first is not None
    assert first.partitions == 3
    assert first == log.topic(topic)
    assert first.id is not None
    assert len(first.id) == 22


def test_a_name_that_no_topic_can_have_is_no_topic(log: ConfluentLog) -> None:
    assert log.topic("no topic's name!") is None


def test_partitions_begin_at_the_low_watermark(log: ConfluentLog, topic: str) -> None:
    assert log.first_offsets(topic, range(3)) == {0: 3, 1: 0, 2: 0}


def test_partitions_end_at_the_last_stable_offset_or_at_the_high_watermark(log: ConfluentLog, topic: str) -> None:
    """What may still be aborted is no reason to call a partition silent; but the log is as long as it is."""
    assert log.end_offsets(topic, range(3), committed_only=True) == {0: 10, 1: 2, 2: 0}
    assert log.end_offsets(topic, range(3), committed_only=False) == {0: 10, 1: 6, 2: 0}


def test_partitions_that_do_not_exist_are_left_out(log: ConfluentLog, topic: str) -> None:
    """A topic made anew may have fewer than the ledger has rows for; one must not cost the others' answers."""
    assert log.first_offsets(topic, [2, 3, 99]) == {2: 0}
    assert log.end_offsets(topic, [], committed_only=True) == {}


@pytest.mark.parametrize(
    ("at_ms", "offset"),
    [
        (MOMENT_MS + 4_000, 4),
        (MOMENT_MS + 3_999, 4),
        (0, 3),
        (-1, 3),
        (-2, 3),
        (MOMENT_MS + 9_001, 10),
        (10**15, 10),
    ],
)
def test_a_time_is_where_the_first_record_of_it_or_later_is(
    log: ConfluentLog, topic: str, at_ms: int, offset: int
) -> None:
    """-1 and -2 are no times but orders in Kafka's protocol: they must not get through."""
    assert log.offsets_at(topic, at_ms, [0]) == {0: offset}


def test_a_time_after_all_records_is_the_end_with_what_may_still_be_committed(
    log: ConfluentLog, topic: str
) -> None:
    assert log.offsets_at(topic, 10**15, range(4)) == {0: 10, 1: 6, 2: 0}


def test_a_group_has_committed_offsets_for_the_partitions_that_it_has_read(
    log: ConfluentLog, topics: Topics, topic: str
) -> None:
    group, other = "group of " + topic, topics.make()
    topics.commit_offsets(group, {(topic, 0): 7, (topic, 2): 0, (other, 0): 1})

    assert log.committed(group, topic) == {0: 7, 2: 0}
    assert log.committed("no " + group, topic) == {}


@pytest.fixture
def bare_broker(tmp_path: Path) -> Iterator[ConfluentLog]:
    """A broker that names no controller, with the topic `flights`."""
    (port,) = free_ports(1)
    child = mockkafka.start(tmp_path / "log", port, ["flights"])
    log = ConfluentLog(Kafka(brokers=f"127.0.0.1:{port}"), SystemClock())
    try:
        wait_for("the mock broker answers", lambda: answers(f"127.0.0.1:{port}"))
        yield log
    finally:
        log.close()
        stop(child, mockkafka.STOP_S)


def test_a_broker_without_a_controller_has_topics_without_ids(bare_broker: ConfluentLog) -> None:
    """librdkafka asks a controller for them, and waits for one until its time is over."""
    found = bare_broker.topic("flights")

    assert found == TopicState(None, 4)


def test_a_broker_without_topic_ids_has_none() -> None:
    """Its zero is the same for every topic: compared, one made anew would pass for the former."""
    assert id_of(Uuid(0, 0)) is None
    assert id_of(None) is None
    assert id_of(Uuid(0, 1)) == "AAAAAAAAAAAAAAAAAAAAAQ"
