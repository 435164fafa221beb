"""Reading ranges of offsets with a warm consumer, which is assigned partitions and never joins a group."""

from __future__ import annotations

import logging
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from threading import Lock
from typing import Any

import azure.functions as func
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from sinkcore.clock import Clock, Deadline
from sinkcore.errors import TransientError
from sinkcore.gaps import Answer
from sinkcore.kafka import Connection, partitions_in
from sinkcore.records import timestamp_of
from sinkcore.telemetry import event

# A range is proven empty by a record or an end of the log behind it. Without `fetch.queue.backoff.ms` a small
# queue stalls for a second at a time.
_CONFIG: dict[str, Any] = {
    "group.id": "adx-sink-gaps",  # never joined, never committed to
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "fetch.wait.max.ms": 10,
    "fetch.queue.backoff.ms": 0,
    "queued.min.messages": 1,
}
# For questions: one fetch of 32 KiB a partition, two of a Java producer's batches by default. What brokers do not
# cut, a larger batch, takes a fetch for each partition; a larger fetch brings more that nobody looks at.
NARROW: dict[str, Any] = _CONFIG | {"max.partition.fetch.bytes": 32_768, "queued.max.messages.kbytes": 64}
# For draining: fewer round trips, at the price of fetching up to a megabyte that nobody asked for.
WIDE: dict[str, Any] = _CONFIG | {
    "max.partition.fetch.bytes": 1_048_576,
    "queued.max.messages.kbytes": 1_024,
    "fetch.max.bytes": 8_388_608,
}
CHUNK_RECORDS = 500
# After so much silence its reason is looked for; after twice as much once more, and so on.
SILENCE_S = 0.1
# Errors whose meaning only a look at the topic's metadata and bounds can tell.
_STUCK = (KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART)

# Low watermark, last stable offset and high watermark, each by partition: what `bounds(topic, partitions,
# timeout_s)` returns.
Bounds = tuple[dict[int, int], dict[int, int], dict[int, int]]

# Called from C, whose callers look for an exception that a method set beside its result; bytecode does not.
_headers_of = methodcaller("headers")


@dataclass(slots=True)
class _Question:
    """What is not settled yet of one partition's range, and what was found before."""

    next_offset: int
    end: int
    events: list[func.KafkaEvent] = field(default_factory=list)
    lost: int = 0


class _Reading:
    """One read: the questions that are open, the answers, and what is left of the budgets."""

    def __init__(self, topic: str, asked: Mapping[int, tuple[int, int]], max_records: int, max_bytes: int) -> None:
        # Source: librdkafka takes negative offsets for names of places, such as the log's end.
        assert all(first >= 0 for first, _ in asked.values()), "an offset below 0"
        self.topic = topic
        self.open = {p: _Question(first, end) for p, (first, end) in asked.items()}
        self.answers: dict[int, Answer] = {}
        self.stuck: set[int] = set()
        self.fault: TransientError | None = None
        self._records_left, self._bytes_left = max_records, max_bytes
        self.settle(*[p for p, (first, end) in asked.items() if first >= end], why="settled")

    def settle(self, *partitions: int, why: str) -> None:
        """The questions about these partitions are answered with what was found so far."""
        for p in partitions:
            question = self.open.pop(p)
            self.answers[p] = Answer(question.events, question.next_offset, question.lost, why)

    def skip_to(self, partition: int, offset: int, *, lost: bool = False) -> None:
        """Nothing that is still asked of the partition lies below `offset`."""
        question = self.open[partition]
        reached = max(question.next_offset, min(offset, question.end))
        question.lost += reached - question.next_offset if lost else 0
        question.next_offset = reached
        if reached == question.end:
            self.settle(partition, why="settled")

    def take(self, message: Message) -> None:
        """What the consumer handed out is noted; what belongs to no open question is left over from another."""
        partition: Any = message.partition()
        offset: Any = message.offset()
        question = self.open.get(partition) if message.topic() == self.topic else None
        if question is None:
            return
        error = message.error()
        if error is None:
            if question.next_offset <= offset < question.end:
                self._record(question, message, offset)
            self.skip_to(partition, question.end if offset >= question.end - 1 else question.next_offset)
            if self._records_left <= 0 or self._bytes_left <= 0:
                self.settle(*self.open, why="budget")
        elif error.code() == KafkaError._PARTITION_EOF:
            self.skip_to(partition, offset)
            if partition in self.open:
                self.settle(partition, why="not_readable_yet")
        elif error.code() in _STUCK:
            self.stuck.add(partition)
        else:
            self.fault = TransientError(
                f"kafka: partition {partition} of {self.topic}: {error.str()}; it is asked again"
            )
            self.settle(partition, why="unanswered")

    def _record(self, question: _Question, message: Message, offset: int) -> None:
        found = event_of(message)
        question.events.append(found)
        question.next_offset = offset + 1
        self._records_left -= 1
        headers = sum(len(header["Key"]) + len(header["Value"] or "") for header in found.headers or ())
        self._bytes_left -= len(message) + len(found.key or "") + headers


class Reader:
    """One consumer, opened when it is first needed and again after an error; one read at a time."""

    def __init__(
        self,
        connection: Connection,
        config: dict[str, Any],
        bounds: Callable[[str, set[int], float], Bounds],
        clock: Clock,
    ) -> None:
        self._connection, self._config, self._bounds, self._clock = connection, config, bounds, clock
        self._lock = Lock()
        self._consumer: Consumer | None = None
        self._known: dict[str, set[int]] = {}

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        """See KafkaLog."""
        deadline = Deadline.after(self._clock, budget_s)
        reading = _Reading(topic, asked, max_records, max_bytes)
        if reading.open and self._lock.acquire(timeout=budget_s):
            try:
                self._read(reading, deadline)
            except KafkaException as fault:
                error = self._connection.unanswered(f"records of {topic}", fault, self._consumer)
                self._drop()
                raise error from fault
            finally:
                self._lock.release()
        reading.settle(*reading.open, why="unanswered")
        nothing = all(a.why == "unanswered" and not a.events for a in reading.answers.values())
        if reading.fault is not None and nothing:
            raise reading.fault
        return reading.answers

    def close(self) -> None:
        """The consumer is closed; another read opens one."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        consumer, self._consumer, self._known = self._consumer, None, {}
        if consumer is not None:
            consumer.close()

    def _read(self, reading: _Reading, deadline: Deadline) -> None:
        """The questions are answered, or the time is over."""
        if self._consumer is None:
            self._consumer = self._connection.consumer(self._config)
        consumer, wait_s = self._consumer, SILENCE_S
        if not reading.open.keys() <= self._known.get(reading.topic, set()):
            # Source: the first question about a topic that a warm consumer does not know takes a second without.
            self._look_up(consumer, reading, deadline)
        try:
            consumer.assign(_places(reading, reading.open))
            while reading.open and not deadline.is_past():
                message = consumer.poll(min(wait_s, deadline.left_s()))
                if message is not None:
                    # Source: `consume` with a time-out waits until it has all that it was asked for. A question is
                    # mostly settled by a partition's first record; the rest is then dropped by librdkafka, unseen.
                    more = consumer.consume(CHUNK_RECORDS, 0) if self._config is WIDE else []
                    self._take(consumer, reading, [message, *more], deadline)
                elif not deadline.is_past():
                    self._compare(consumer, reading, set(reading.open), deadline)
                wait_s = wait_s * 2 if message is None else SILENCE_S
        finally:
            consumer.unassign()

    def _take(self, consumer: Consumer, reading: _Reading, messages: list[Message], deadline: Deadline) -> None:
        """What was handed out is noted, and the consumer is assigned what is still open, no more."""
        before = set(reading.open)
        for message in messages:
            reading.take(message)
        stuck, reading.stuck = reading.stuck & reading.open.keys(), set()
        if stuck:
            self._compare(consumer, reading, stuck, deadline)
        done = (before - reading.open.keys()) | stuck
        if done and reading.open:
            consumer.incremental_unassign([TopicPartition(reading.topic, p) for p in done])
            again = stuck & reading.open.keys()
            if again:
                consumer.incremental_assign(_places(reading, again))

    def _look_up(self, consumer: Consumer, reading: _Reading, deadline: Deadline) -> None:
        """Questions about what does not exist are answered."""
        metadata = consumer.list_topics(reading.topic, timeout=deadline.left_s())
        known = self._known[reading.topic] = partitions_in(metadata, reading.topic)
        absent = [p for p in reading.open if p not in known]
        reading.settle(*absent, why="no_partition" if known else "no_topic")

    def _compare(self, consumer: Consumer, reading: _Reading, stuck: set[int], deadline: Deadline) -> None:
        """Questions that the log's bounds answer are answered, and what retention took is counted as lost.

        Source: librdkafka says nothing of what does not exist, nor between the last stable offset and the high
        watermark; below the low watermark and above the high one it has the same error.
        """
        topic, left_s = reading.topic, max(deadline.left_s(), SILENCE_S)
        try:
            self._look_up(consumer, reading, deadline)
            stuck = stuck & reading.open.keys()
            low, stable, high = self._bounds(topic, stuck, left_s)
        except KafkaException as fault:
            reading.fault = self._connection.unanswered(f"topic {topic}", fault)
            return
        except TransientError as fault:
            reading.fault = fault
            return
        for p in stuck & low.keys() & stable.keys() & high.keys():
            reading.skip_to(p, low[p], lost=True)
            question = reading.open.get(p)
            if question is not None and question.next_offset >= stable[p]:
                reading.settle(p, why="past_end" if question.next_offset > high[p] else "not_readable_yet")


def _places(reading: _Reading, partitions: Iterable[int]) -> list[TopicPartition]:
    return [TopicPartition(reading.topic, p, reading.open[p].next_offset) for p in partitions]


def event_of(message: Message) -> func.KafkaEvent:
    """The record as the trigger would deliver it, so that what follows cannot tell the difference.

    Source: docs/functions-host.md has the payload's fields; a null value arrives as an empty one, keys and header
    values as base64. Header names that are not UTF-8, which Kafka does not allow and brokers do not check, cannot
    be had from confluent-kafka: such a record comes without its headers.
    """
    value, key, (kind, timestamp_ms) = message.value(), message.key(), message.timestamp()
    try:
        headers: Any = _headers_of(message) or ()
    except SystemError:
        headers = ()
        event(
            "headers_unreadable",
            logging.WARNING,
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
        )
    return func.KafkaEvent(
        body=value or b"",
        key=None if key is None else _base64(key),
        offset=message.offset(),
        partition=message.partition(),
        topic=message.topic(),
        # Source: the extension prints Kafka's "none", -1, as the last millisecond of 1969.
        timestamp=timestamp_of(-1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms),
        headers=[{"Key": name, "Value": None if part is None else _base64(part)} for name, part in headers],
    )


def _base64(data: Any) -> str:
    return b2a_base64(data, newline=False).decode()
