"""The demo's records go into Kafka, and Kafka is asked how many each partition has."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from localrunner.demo.records import WEATHER_ID, WEATHER_SCHEMA, Feed

PARTITIONS = 4
ANSWER_S = 20.0
FLUSH_S = 120.0
QUEUE_MAX = 100_000


class ProduceError(Exception):
    """Kafka did not take a record."""


def create_topics(brokers: str, topics: Sequence[str]) -> None:
    """The topics exist, with four partitions each."""
    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS) for topic in topics]).values():
        future.result(ANSWER_S)


def produce(brokers: str, feeds: Sequence[Feed]) -> None:
    """Every record is in Kafka, acknowledged, topic after topic in order.

    Raises:
        ProduceError: one was not taken, or not within two minutes.
    """
    failed: list[str] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": QUEUE_MAX,
            "on_delivery": delivered,
            "log_level": 3,  # a broker that is still starting is no news
        }
    )
    for feed in feeds:
        for key, value in feed.records:
            while True:
                try:
                    producer.produce(feed.topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(FLUSH_S)
    if left or failed:
        raise ProduceError(f"kafka: {left} records were not taken, {len(failed)} refused: {failed[:1]}")


def register(registry: str, feeds: Sequence[Feed]) -> None:
    """The schema of what is Avro is in the registry, under the id that its records name."""
    for feed in feeds:
        if feed.avro:
            body = json.dumps({"schema": json.dumps(WEATHER_SCHEMA)}).encode()
            request = urllib.request.Request(f"{registry}/subjects/{feed.topic}-value/versions", body)  # noqa: S310
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 - our own, on loopback
                found = json.load(answer)["id"]
            if found != WEATHER_ID:
                raise ProduceError(f"schema registry: id {found} for a first schema, not {WEATHER_ID}")


def end_offsets(brokers: str, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    """The offset after the last record of every topic-partition that has records."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "demo-never-joined"})
    try:
        found = {}
        for topic in topics:
            for partition in consumer.list_topics(topic, ANSWER_S).topics[topic].partitions:
                at = TopicPartition(topic, partition)
                _, end = consumer.get_watermark_offsets(at, ANSWER_S)
                if end > 0:
                    found[topic, partition] = end
        return found
    except KafkaException as error:
        raise ProduceError(f"kafka: it does not say how far its partitions go: {error}") from error
    finally:
        consumer.close()
