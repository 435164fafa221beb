"""Kafka, asked through librdkafka: metadata and offsets by its admin client, ranges by warm consumers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Any

from sinkcore.clock import Clock
from sinkcore.connections import Kafka
from sinkcore.gaps import Answer, TopicState
from sinkcore.kafka import Connection, partitions_in

if TYPE_CHECKING:
    from confluent_kafka import Uuid
    from confluent_kafka.admin import AdminClient

    from sinkcore.reading import Bounds, Reader

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

    def __init__(self, kafka: Kafka, clock: Clock, answer_s: float = ANSWER_S) -> None:
        self._connection = Connection(kafka)
        self._clock = clock
        self._answer_s = answer_s
        self._lock = Lock()
        self._admin: AdminClient | None = None
        self._readers: dict[bool, Reader] = {}

    def topic(self, topic: str) -> TopicState | None:
        """See KafkaLog.

        Source: ids come from the controller, which librdkafka's mock broker has not got.
        """
        from confluent_kafka import TopicCollection

        metadata, partitions = self._metadata(topic)
        if not partitions:
            return None
        if metadata.controller_id not in metadata.brokers:
            return TopicState(None, len(partitions))
        asked = TopicCollection([topic])
        future = self._client().describe_topics(asked, request_timeout=self._answer_s)[topic]
        return TopicState(id_of(self._answer(f"topic {topic}", future).topic_id), len(partitions))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """See KafkaLog."""
        from confluent_kafka import ConsumerGroupTopicPartitions

        asked = [ConsumerGroupTopicPartitions(group)]
        future = self._client().list_consumer_group_offsets(asked, request_timeout=self._answer_s)[group]
        found = self._answer(f"committed offsets of {group}", future).topic_partitions
        return {each.partition: each.offset for each in found if each.topic == topic and each.offset >= 0}

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """See KafkaLog."""
        return self._offsets(topic, partitions, EARLIEST)

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        """See KafkaLog."""
        return self._offsets(topic, partitions, LATEST, committed_only=committed_only)

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        """See KafkaLog."""
        # The ends come first: what arrives between the two questions is at or above its end.
        ends = self.end_offsets(topic, partitions, committed_only=False)
        found = self._offsets(topic, ends, max(timestamp_ms, 0))
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
        is_wide = sum(end - first for first, end in asked.values()) > QUESTION_OFFSETS_MAX
        return self._reader(wide=is_wide).read(topic, asked, budget_s, max_records, max_bytes)

    def close(self) -> None:
        """The consumers are closed; who asks again opens them again."""
        with self._lock:
            readers = list(self._readers.values())
        for reader in readers:  # Without the lock: one that reads may need it to come to its end.
            reader.close()

    def _reader(self, *, wide: bool) -> Reader:
        from sinkcore.reading import NARROW, WIDE, Reader

        with self._lock:
            if wide not in self._readers:
                config = WIDE if wide else NARROW
                self._readers[wide] = Reader(self._connection, config, self._bounds, self._clock)
            return self._readers[wide]

    def _bounds(self, topic: str, partitions: set[int], timeout_s: float) -> Bounds:
        return (
            self._offsets(topic, partitions, EARLIEST, timeout_s),
            self._offsets(topic, partitions, LATEST, timeout_s, committed_only=True),
            self._offsets(topic, partitions, LATEST, timeout_s),
        )

    def _offsets(
        self,
        topic: str,
        partitions: Iterable[int],
        at: int,
        timeout_s: float | None = None,
        *,
        committed_only: bool = False,
    ) -> dict[int, int]:
        """By partition; `at` is a time in milliseconds since 1970, or one of EARLIEST and LATEST."""
        from confluent_kafka import IsolationLevel, TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        # Source: one partition that does not exist makes librdkafka fail the whole request.
        known = self._metadata(topic)[1].intersection(partitions)
        spec: Any = OffsetSpec
        level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
        futures = self._client().list_offsets(
            {TopicPartition(topic, p): spec(at) for p in known},
            isolation_level=level,
            request_timeout=timeout_s or self._answer_s,
        )
        return {each.partition: self._answer(f"offsets of {topic}", futures[each]).offset for each in futures}

    def _metadata(self, topic: str) -> tuple[Any, set[int]]:
        from confluent_kafka import KafkaException

        try:
            metadata = self._client().list_topics(topic, timeout=self._answer_s)
            return metadata, partitions_in(metadata, topic)
        except KafkaException as fault:
            raise self._connection.unanswered(f"topic {topic}", fault, self._client()) from fault

    def _client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = self._connection.admin()
            return self._admin

    def _answer(self, subject: str, future: Future[Any]) -> Any:
        from confluent_kafka import KafkaException

        try:
            return future.result(self._answer_s + MARGIN_S)
        except (KafkaException, TimeoutError) as fault:
            raise self._connection.unanswered(subject, fault, self._client()) from fault


def id_of(topic_id: Uuid | None) -> str | None:
    """The id as text; None where the broker has none.

    Source: a broker from before topic ids leaves zero, whose text is all `A`.
    """
    text = "" if topic_id is None else str(topic_id)
    return text if text.strip("A") else None
