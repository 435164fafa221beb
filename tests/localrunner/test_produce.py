"""`python -m localrunner produce`: lines become records, and what was not taken is said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, TopicPartition

from localrunner.mockkafka import open_broker
from localrunner.plan import ROOT

TOPIC = "lines"


@pytest.fixture(scope="module")
def brokers() -> str:
    """librdkafka's own broker, in this process."""
    host, port = open_broker([TOPIC])
    return f"{host}:{port}"


def produce(*options: str, lines: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "localrunner", "produce", *options]
    return subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), input=lines, capture_output=True, timeout=60, check=False
    )


def records(brokers: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of the topic, over all partitions."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reads", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(4)])
        return sorted((m.key(), m.value()) for m in consumer.consume(count, timeout=20))
    finally:
        consumer.close()


def test_each_line_is_a_record_and_what_stands_before_the_separator_its_key(brokers: str) -> None:
    """A line end is no part of a value, of whatever kind it is; a last line may lack its own."""
    done = produce(TOPIC, "--brokers", brokers, "--key-separator", "|", lines=b"k1|one\nk2|two|2\r\nk3|three")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"lines: 3 records acknowledged\n", b"")
    assert records(brokers, 3) == [(b"k1", b"one"), (b"k2", b"two|2"), (b"k3", b"three")]


def test_a_topic_that_is_not_there_is_not_made_by_a_slip_of_the_pen(brokers: str) -> None:
    done = produce("lins", "--brokers", brokers, lines=b"x\n")

    assert done.returncode == 1
    assert done.stderr == f"lins: {brokers} has no such topic; create it, or name one that it has\n".encode()


def test_a_broker_that_does_not_answer_is_named() -> None:
    done = produce(TOPIC, "--brokers", "127.0.0.1:9", lines=b"x\n")

    assert done.returncode == 1
    assert done.stderr.startswith(b"kafka: 127.0.0.1:9 does not answer (")
    assert done.stdout == b""
