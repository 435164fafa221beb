"""Kafka with a memory of its own: which records there were, and which of them the sink owes to the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sinkcore.errors import TransientError
from sinkcore.gaps import Answer, TopicState
from tests.simulation.scheduler import Scheduler
from tests.support.kafka import Log, MemoryKafka

T = TypeVar("T")


@dataclass
class Produced:
    """A record: what becomes of it if all goes well, and why the sink may be excused."""

    uid: int
    partition: int
    offset: int
    kind: str
    gone: bool = False
    may_be_lost: bool = False
    may_be_twice: bool = False


@dataclass
class SimKafka:
    """See sinkcore.gaps.KafkaLog; one topic, whose log is written by the methods below that."""

    name: str
    scheduler: Scheduler
    count: Callable[[str], None]
    inner: MemoryKafka = field(default_factory=MemoryKafka)
    records: list[Produced] = field(default_factory=list)
    refused: float = 0.0
    silent: float = 0.0
    out: bool = False
    new_topic_unknown: bool = False
    cut_below: dict[int, int] = field(default_factory=dict)

    # What the sink asks.

    def topic(self, topic: str) -> TopicState | None:
        return self._ask("topic", lambda: self.inner.topic(topic))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        return self._ask("committed", lambda: self.inner.committed(group, topic))

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self._ask("first offsets", lambda: self.inner.first_offsets(topic, partitions))

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        return self._ask(
            "end offsets", lambda: self.inner.end_offsets(topic, partitions, committed_only=committed_only)
        )

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        return self._ask("offsets at", lambda: self.inner.offsets_at(topic, timestamp_ms, partitions))

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        if self.scheduler.rng.random() < self.silent:
            self.count("a question that Kafka does not answer")
            self.scheduler.park("read, in vain", int(budget_s * 1000))
            return {p: Answer([], first, 0, "unanswered") for p, (first, _) in asked.items()}

        def call() -> dict[int, Answer]:
            return self.inner.read(
                topic, asked, budget_s=budget_s, max_records=max_records, max_bytes=max_bytes
            )

        return self._ask("read", call)

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        self.scheduler.park(f"Kafka {what}")
        if self.out or self.scheduler.rng.random() < self.refused:
            self.count("a call that Kafka refuses")
            raise TransientError(f"Kafka: {what}: no answer")
        return call()

    # What the world does to it.

    @property
    def logs(self) -> list[Log]:
        return self.inner.topics[self.name]

    def produce(self, partition: int, kind: str) -> None:
        """A record is at the end of the partition's log: a `row`, a `bad` one, or a `tombstone`."""
        uid = len(self.records)
        value = {"row": json.dumps({"uid": uid}).encode(), "bad": b"not json %d" % uid, "tombstone": None}[kind]
        log = self.logs[partition]
        offset = log.append(value, partition)
        record = Produced(uid, partition, offset, kind)
        record.may_be_lost = offset < self.cut_below.get(partition, 0)
        record.may_be_twice = self.new_topic_unknown
        self.records.append(record)

    def begin_transaction(self, partition: int) -> None:
        log = self.logs[partition]
        if log.stable_end is None:
            log.stable_end = log.end

    def end_transaction(self, partition: int, *, commit: bool) -> None:
        """Its records are there for all to see, or for nobody; either way a marker follows."""
        log = self.logs[partition]
        if log.stable_end is None:
            return
        if not commit:
            self._forget(partition, lambda offset: offset >= (log.stable_end or 0))
        log.stable_end = None
        log.skip()

    def compact(self, partition: int) -> None:
        """Some records below the last one are taken out of the log."""
        log, rng = self.logs[partition], self.scheduler.rng
        below = min(log.stable, log.end - 1)
        self._forget(partition, lambda offset: offset < below and rng.random() < 0.3)

    def retain(self, partition: int, low: int) -> None:
        log = self.logs[partition]
        self._forget(partition, lambda offset: offset < low)
        log.retain_from(min(low, log.stable))

    def truncate(self, partition: int, end: int) -> None:
        """An unclean election cuts the log short; what is written there then may be taken for what was there."""
        log = self.logs[partition]
        self.cut_below[partition] = max(self.cut_below.get(partition, 0), log.end)
        self._forget(partition, lambda offset: offset >= end)
        log.end, log.stable_end = end, None

    def recreate(self, partitions: int) -> None:
        """A topic of the same name, and none of the old records."""
        for record in self.records:
            record.gone = True
        self.inner.create(self.name, partitions)
        self.cut_below.clear()
        self.new_topic_unknown = True

    def add_partition(self) -> int:
        self.logs.append(Log())
        return len(self.logs) - 1

    def _forget(self, partition: int, which: Callable[[int], bool]) -> None:
        gone = {offset for offset in sorted(self.logs[partition].records) if which(offset)}
        self.logs[partition].records = {o: r for o, r in self.logs[partition].records.items() if o not in gone}
        for record in self.records:
            if not record.gone and record.partition == partition and record.offset in gone:
                record.gone = True
