"""`python -m localrunner produce TOPIC`: each line of standard input is a record; no TLS, no SASL."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from confluent_kafka import KafkaException, Producer

ANSWER_S = 10.0
FLUSH_S = 60.0
EXIT_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`parser` knows the options of `produce`."""
    parser.add_argument("topic")
    parser.add_argument("--brokers", required=True, metavar="HOST:PORT", help="as `up` prints them")
    parser.add_argument("--key-separator", metavar="TEXT", help="what stands before it in a line is the key")


def run(parsed: argparse.Namespace) -> int:
    """The exit code of `produce`: 0 where Kafka has acknowledged every line."""
    # Its log lines would be on the screen; what matters is said below.
    producer = Producer({"bootstrap.servers": parsed.brokers, "enable.idempotence": True, "log_level": 0})
    try:
        topics = producer.list_topics(timeout=ANSWER_S).topics
    except KafkaException as fault:
        return _failed(f"kafka: {parsed.brokers} does not answer ({fault.args[0].str()}); check --brokers")
    if parsed.topic not in topics:
        return _failed(f"{parsed.topic}: {parsed.brokers} has no such topic; create it, or name one that it has")
    refused: list[str] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            refused.append(error.str())

    sent = 0
    for line in sys.stdin.buffer:
        key, value = _split(line.removesuffix(b"\n").removesuffix(b"\r"), parsed.key_separator)
        while True:
            try:
                producer.produce(parsed.topic, value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        sent += 1
        producer.poll(0)
    left = producer.flush(FLUSH_S)
    if left or refused:
        why = f" ({refused[0]})" if refused else ""
        return _failed(
            f"{parsed.topic}: {left + len(refused)} of {sent} records were not taken{why}; send them again"
        )
    print(f"{parsed.topic}: {sent} record{'' if sent == 1 else 's'} acknowledged")
    return 0


def _split(line: bytes, separator: str | None) -> tuple[bytes | None, bytes]:
    """The key and the value; a line without the separator has no key."""
    if not separator or separator.encode() not in line:
        return None, line
    key, _, value = line.partition(separator.encode())
    return key, value


def _failed(why: str) -> int:
    print(why, file=sys.stderr)
    return EXIT_FAILED
