"""What Kafka says in the end that was committed to it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from tests.chaos.topics import BROKEN, PARTITIONS, Topic

ANSWER_S = 20.0
READ_WITHIN_S = 120.0
AT_ONCE = 10_000

Committed = list[tuple[str, int, int, int]]


def committed(brokers: str, topics: Sequence[Topic]) -> Committed:
    """Every record that a consumer of committed ones gets: topic, partition, offset, and its number.

    Source: with `enable.partition.eof` librdkafka says where a partition ends for such a consumer.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "chaos-never-joined",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    places = [TopicPartition(topic.name, p, OFFSET_BEGINNING) for topic in topics for p in range(PARTITIONS)]
    consumer.assign(places)
    open_ones = {(place.topic, place.partition) for place in places}
    found: Committed = []
    deadline = time.monotonic() + READ_WITHIN_S
    try:
        while open_ones:
            assert time.monotonic() < deadline, f"{sorted(open_ones)} were not read to their ends"
            for message in consumer.consume(AT_ONCE, 1.0):
                place = (str(message.topic()), int(message.partition() or 0))
                error = message.error()
                if error is None:
                    found.append((*place, int(message.offset() or 0), _number(message.value() or b"")))
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ones.discard(place)
    finally:
        consumer.close()
    return found


def stable_ends(brokers: str, topics: Sequence[Topic]) -> dict[tuple[str, int], int]:
    """Where each partition ends, transactions' markers included."""
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "chaos-never-joined", "isolation.level": "read_committed"}
    )
    try:
        return {
            (topic.name, p): consumer.get_watermark_offsets(TopicPartition(topic.name, p), ANSWER_S)[1]
            for topic in topics
            for p in range(PARTITIONS)
        }
    finally:
        consumer.close()


def _number(value: bytes) -> int:
    try:
        return int(json.loads(value)["n"])
    except ValueError:
        return BROKEN
