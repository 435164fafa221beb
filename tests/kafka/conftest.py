"""The real reader of `sinkcore`, and topics for it to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sinkcore.clock import SystemClock
from sinkcore.connections import Kafka
from sinkcore.gaps import Answer
from sinkcore.kafkalog import ConfluentLog
from tests.kafka.topics import Topics

BUDGET_S = 20.0  # enough for any answer on a loaded machine: whoever waits for it has met a fault
Ask = Callable[..., Answer]


@pytest.fixture(scope="session")
def log(kafka: str) -> Iterator[ConfluentLog]:
    """What asks Kafka: one for all tests, as a worker has one, so that its consumers are warm."""
    log = ConfluentLog(Kafka(brokers=kafka), SystemClock())
    yield log
    log.close()


@pytest.fixture(scope="session")
def topics(kafka: str) -> Topics:
    """Makes and fills topics."""
    return Topics(kafka)


@pytest.fixture(scope="session")
def ask(log: ConfluentLog) -> Ask:
    """Asks about one range of one partition: `ask(topic, first, end)`."""

    def ask(topic: str, first: int, end: int, partition: int = 0, budget_s: float = BUDGET_S) -> Answer:
        answers = log.read(
            topic, {partition: (first, end)}, budget_s=budget_s, max_records=100_000, max_bytes=1_000_000_000
        )
        return answers[partition]

    return ask
