"""Records for the three topics, as long as the run lasts; whatever happens to Kafka, the producers go on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, Producer

from tests.chaos.topics import BROKEN, PARTITIONS, Kind, Topic

ROUND_S = 0.1
ROUND_RECORDS = 4
BROKEN_ONE_IN = 100
ABORTED_ONE_IN = 4
KEYS = 200
ANSWER_S = 60.0
DELIVERED_WITHIN_S = 120.0
# Some transactions stay open over several fetches, so that the stable end stands still.
LONG_ONE_IN = 20
LONG_S = 2.5


@dataclass(slots=True)
class Sent:
    """What Kafka has acknowledged: `(partition, offset, n)` by topic. A transaction's may have been aborted."""

    records: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


@contextmanager
def load(brokers: str, topics: list[Topic], seed: int) -> Iterator[Sent]:
    """Each topic gets records until the block ends; then every record that was sent has been acknowledged."""
    sent = Sent({topic.name: [] for topic in topics})
    ends = threading.Event()
    runs: dict[Kind, Callable[..., None]] = {
        "plain": _plain,
        "transactional": _transactions,
        "compacted": _plain,
    }
    failed: list[BaseException] = []

    def run(topic: Topic) -> None:
        try:
            runs[topic.kind](brokers, topic, random.Random(f"{seed} {topic.name}"), sent, ends)
        except BaseException as error:  # noqa: BLE001 - it is raised where the run ends
            failed.append(error)

    threads = [threading.Thread(target=run, args=(topic,), name=topic.name) for topic in topics]
    for thread in threads:
        thread.start()
    try:
        yield sent
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


def _plain(brokers: str, topic: Topic, chance: random.Random, sent: Sent, ends: threading.Event) -> None:
    producer = _producer(brokers)
    count = 0
    while not ends.wait(ROUND_S):
        for _ in range(ROUND_RECORDS * PARTITIONS):
            count += 1
            broken = topic.kind == "plain" and chance.randrange(BROKEN_ONE_IN) == 0
            _produce(producer, topic, chance, sent, BROKEN if broken else count)
        producer.poll(0)
    left = producer.flush(DELIVERED_WITHIN_S)
    assert left == 0, f"{topic.name}: {left} records were not acknowledged in {DELIVERED_WITHIN_S:.0f} s"


def _transactions(brokers: str, topic: Topic, chance: random.Random, sent: Sent, ends: threading.Event) -> None:
    """Transactions of a few records; some are aborted, and one whose outcome nobody knows is left to Kafka."""
    producer: Producer | None = None
    count = 0
    while not ends.wait(ROUND_S):
        try:
            if producer is None:
                producer = _producer(brokers, topic.name)
                producer.init_transactions(ANSWER_S)
            producer.begin_transaction()
            for _ in range(ROUND_RECORDS * PARTITIONS):
                count += 1
                _produce(producer, topic, chance, sent, count)
            if chance.randrange(LONG_ONE_IN) == 0:
                ends.wait(LONG_S)
            if chance.randrange(ABORTED_ONE_IN) == 0:
                producer.abort_transaction(ANSWER_S)
            else:
                producer.commit_transaction(ANSWER_S)
        except (KafkaException, BufferError):
            # Another of its name fences it and ends what it left open.
            producer = None
    if producer is None:
        producer = _producer(brokers, topic.name)
        producer.init_transactions(ANSWER_S)


def _producer(brokers: str, transactional_id: str | None = None) -> Producer:
    config: dict[str, Any] = {
        "bootstrap.servers": brokers,
        "enable.idempotence": True,
        "linger.ms": 5,
        "log_level": 0,  # that a broker is killed is no news
    }
    if transactional_id is not None:
        config |= {"transactional.id": transactional_id, "transaction.timeout.ms": int(ANSWER_S * 1000)}
    return Producer(config)


def _produce(producer: Producer, topic: Topic, chance: random.Random, sent: Sent, n: int) -> None:
    def taken(error: Any, message: Any) -> None:
        if error is None:
            sent.records[topic.name].append((message.partition(), message.offset(), n))
        elif topic.kind != "transactional":
            sent.refused.append(str(error))

    producer.produce(
        topic.name,
        b'{"n": ' if n == BROKEN else b'{"n": %d}' % n,
        b"%d" % chance.randrange(KEYS),
        partition=chance.randrange(PARTITIONS),
        on_delivery=taken,
    )
