"""Kafka, asked through librdkafka: metadata and offsets by its admin client, ranges by warm consumers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from sinkcore.clock import Clock
from sinkcore.connections import Kafka
from sinkcore.gaps import Answer, TopicState
from sinkcore.kafka import Connection

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from sinkcore.reading import Reader

# A broker answers in milliseconds: who has not in this time is down or out of reach.
ANSWER_S = 5.0
# librdkafka ends a request itself; this is for the case that it does not.
MARGIN_S = 2.0
# What the ListOffsets request says in place of a time.
LATEST, EARLIEST = -1, -2
# Up to so many offsets a read is a question, whose cost is one small fetch; above, it drains a gap.
QUESTION_OFFSETS_MAX = 1_000


class ConfluentLog:
    """See KafkaLog. Any thread may ask; one worker process needs one."""

    def __init__(self, kafka: Kafka, clock: Clock) -> None:
        self._connection = Connection(kafka)
        self._clock = clock
        self._lock = Lock()
        self._admin: AdminClient | None = None

    def topic(self, topic: str) -> TopicState | None:
        """See KafkaLog.

        Source: a broker without topic ids says zero, whose text is all `A`.
        """
        from confluent_kafka import KafkaError, KafkaException, TopicCollection

        asked = TopicCollection([topic])
        future = self._client().describe_topics(asked, request_timeout=ANSWER_S)[topic]
        try:
            found = future.result(ANSWER_S + MARGIN_S)
        except (KafkaException, TimeoutError) as fault:
            absent = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION)
            if isinstance(fault, KafkaException) and fault.args[0].code() in absent:
                return None
            raise self._connection.unanswered(f"topic {topic}", fault, self._client()) from fault
        text = str(found.topic_id)
        return TopicState(text if text.strip("A") else None, len(found.partitions))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """See KafkaLog."""
        from confluent_kafka import ConsumerGroupTopicPartitions

        asked = [ConsumerGroupTopicPartitions(group)]
        future = self._client().list_consumer_group_offsets(asked, request_timeout=ANSWER_S)[group]
        found = self._answer(f"committed offsets of {group}", future, ANSWER_S).topic_partitions
        return {each.partition: each.offset for each in found if each.topic == topic and each.offset >= 0}

    def first_offsets(
        self, topic: str, partitions: Iterable[int], *, timeout_s: float = ANSWER_S
    ) -> dict[int, int]:
        """See KafkaLog."""
        return self._offsets(topic, partitions, EARLIEST, timeout_s)

    def end_offsets(
        self, topic: str, partitions: Iterable[int], *, committed_only: bool, timeout_s: float = ANSWER_S
    ) -> dict[int, int]:
        """See KafkaLog."""
        return self._offsets(topic, partitions, LATEST, timeout_s, committed_only=committed_only)

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        """See KafkaLog."""
        # The ends come first: what arrives between the two questions is at or above its end.
        ends = self.end_offsets(topic, partitions, committed_only=False)
        found = self._offsets(topic, ends, max(timestamp_ms, 0), ANSWER_S)
        return {p: found[p] if found.get(p, -1) >= 0 else end for p, end in ends.items()}

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        """See KafkaLog. Questions do not wait for a gap that is being drained in another thread."""
        is_question = sum(end - first for first, end in asked.values()) <= QUESTION_OFFSETS_MAX
        reader = self._narrow if is_question else self._wide
        return reader.read(topic, asked, budget_s, max_records, max_bytes)

    def close(self) -> None:
        """The consumers are closed; who asks again opens them again."""
        self._narrow.close()
        self._wide.close()

    @cached_property
    def _narrow(self) -> Reader:
        from sinkcore.reading import NARROW, Reader

        return Reader(self._connection, NARROW, self, self._clock)

    @cached_property
    def _wide(self) -> Reader:
        from sinkcore.reading import WIDE, Reader

        return Reader(self._connection, WIDE, self, self._clock)

    def _offsets(
        self,
        topic: str,
        partitions: Iterable[int],
        at: int,
        timeout_s: float,
        *,
        committed_only: bool = False,
    ) -> dict[int, int]:
        """By partition; `at` is a time in milliseconds since 1970, or one of EARLIEST and LATEST."""
        from confluent_kafka import IsolationLevel, TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        # Source: one partition that does not exist makes librdkafka fail the whole request.
        state = self.topic(topic)
        spec: Any = OffsetSpec
        asked = {TopicPartition(topic, p): spec(at) for p in partitions if state and p < state.partitions}
        level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
        futures = self._client().list_offsets(asked, isolation_level=level, request_timeout=timeout_s)
        return {
            each.partition: self._answer(f"offsets of topic {topic}", future, timeout_s).offset
            for each, future in futures.items()
        }

    def _client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = self._connection.admin()
            return self._admin

    def _answer(self, subject: str, future: Future[Any], timeout_s: float) -> Any:
        from confluent_kafka import KafkaException

        try:
            return future.result(timeout_s + MARGIN_S)
        except (KafkaException, TimeoutError) as fault:
            raise self._connection.unanswered(subject, fault, self._client()) from fault
