"""sinkcore's seams with a guard taken away: what is passed in lies, or does not answer. Nothing is patched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sinkcore.errors import ConflictError
from sinkcore.failures import FailedIngestion, FailedIngestions
from sinkcore.gaps import Answer, KafkaLog, TopicState
from sinkcore.table import Row, Table
from sinkcore.transaction import Operation

if TYPE_CHECKING:
    from tests.simulation.parts.simulation import Guards


@dataclass
class BlindKafka:
    """Kafka without topic ids, without committed offsets, or without an end to its silence."""

    inner: KafkaLog
    guards: Guards

    def topic(self, topic: str) -> TopicState | None:
        found = self.inner.topic(topic)
        return found if found is None or self.guards.topic_ids else TopicState(None, found.partitions)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        return self.inner.committed(group, topic) if self.guards.committed_known else {}

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self.inner.first_offsets(topic, partitions)

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        return self.inner.end_offsets(topic, partitions, committed_only=committed_only)

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        return self.inner.offsets_at(topic, timestamp_ms, partitions)

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        budget_s = budget_s if self.guards.reads_end else float("inf")
        return self.inner.read(topic, asked, budget_s=budget_s, max_records=max_records, max_bytes=max_bytes)


@dataclass
class ForgetfulTable:
    """After a conflict the next look at a segment's row finds none: as if nobody looked."""

    inner: Table
    conflict: bool = False

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        try:
            return self.inner.transact(partition, operations)
        except ConflictError:
            self.conflict = True
            raise

    def get(self, partition: str, key: str) -> Row | None:
        if self.conflict and key.startswith("s-"):
            self.conflict = False
            return None
        return self.inner.get(partition, key)

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        return self.inner.rows(partition, prefix, before)


@dataclass
class NoFailures:
    """Nobody hears what ADX refused."""

    def receive(self, most: int) -> list[FailedIngestion]:
        return []

    def delete(self, message: FailedIngestion) -> None:
        raise AssertionError("there was none")


def kafka_of(kafka: KafkaLog, guards: Guards) -> KafkaLog:
    """Kafka as sinkcore is to see it."""
    all_there = guards.topic_ids and guards.committed_known and guards.reads_end
    return kafka if all_there else BlindKafka(kafka, guards)


def table_of(table: Table, guards: Guards) -> Table:
    """The table as sinkcore is to see it."""
    return table if guards.read_back else ForgetfulTable(table)


def failures_of(failures: FailedIngestions, guards: Guards) -> FailedIngestions:
    """The failures queue as sinkcore is to see it."""
    return failures if guards.failures_read else NoFailures()
