"""Kafka in memory: logs with markers, aborted records, compaction, retention and recreation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import azure.functions as func

from sinkcore.gaps import Answer, TopicState
from tests.support.events import Sent, events_of


@dataclass
class Log:
    """One partition: what each offset holds (None for a marker or an aborted record), and its two ends.

    An offset below `end` that is not in `records` was compacted away, or is a commit marker.
    """

    records: dict[int, Sent] = field(default_factory=dict)
    low: int = 0
    end: int = 0
    stable_end: int | None = None

    @property
    def stable(self) -> int:
        return self.end if self.stable_end is None else self.stable_end

    def append(self, value: bytes | None, partition: int, key: bytes | None = None) -> int:
        """A record is at the end of the log; its offset."""
        offset = self.end
        self.records[offset] = Sent(value, offset, partition, key)
        self.end += 1
        return offset

    def skip(self, count: int = 1) -> None:
        """So many offsets hold nothing that a consumer sees: markers, or aborted records."""
        self.end += count

    def retain_from(self, low: int) -> None:
        """Retention has taken what lies below `low`."""
        self.low = max(self.low, low)
        self.records = {offset: sent for offset, sent in self.records.items() if offset >= self.low}


@dataclass
class MemoryKafka:
    """Topics by name. `fails_with` is raised instead of any answer; `silent` topics get none in `read`."""

    topics: dict[str, list[Log]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[int, int]] = field(default_factory=dict)
    fails_with: Exception | None = None
    silent: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    decode: Callable[[list[Sent], str], list[func.KafkaEvent]] = events_of
    _made: int = 0

    def create(self, topic: str, partitions: int) -> None:
        """The topic is new, under a new id; whatever was there under its name is gone."""
        self._made += 1
        self.topics[topic] = [Log() for _ in range(partitions)]
        self.ids[topic] = f"id-{self._made}"
        self.commits = {group: {} for group in self.commits}

    def hold(self, topic: str, records: Iterable[Sent]) -> None:
        """The records are in the topic's logs, at their own offsets; a log begins with its first record."""
        for record in records:
            log = self.topics[topic][record.partition]
            if log.end == 0:
                log.low = record.offset
            log.records.setdefault(record.offset, record)
            log.end = max(log.end, record.offset + 1)

    def topic(self, topic: str) -> TopicState | None:
        self._answer("topic")
        found = self.topics.get(topic)
        return None if found is None else TopicState(self.ids[topic], len(found))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        self._answer("committed")
        return dict(self.commits.get(group, {})) if topic in self.topics else {}

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        self._answer("first_offsets")
        logs = self.topics.get(topic, [])
        return {p: logs[p].low for p in partitions if p < len(logs)}

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        self._answer("end_offsets")
        logs = self.topics.get(topic, [])
        return {p: logs[p].stable if committed_only else logs[p].end for p in partitions if p < len(logs)}

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        self._answer(f"offsets_at {timestamp_ms}")
        return {p: self.topics[topic][p].low for p in partitions}

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,  # noqa: ARG002 - nothing takes time here
        max_records: int,
        max_bytes: int,  # noqa: ARG002 - nothing is large here
    ) -> dict[int, Answer]:
        self._answer("read")
        logs = self.topics.get(topic)
        answers = {}
        for partition, (first, end) in asked.items():
            if topic in self.silent:
                answers[partition] = Answer([], first, 0, "unanswered")
            elif logs is None:
                answers[partition] = Answer([], first, 0, "no_topic")
            elif partition >= len(logs):
                answers[partition] = Answer([], first, 0, "no_partition")
            else:
                answers[partition] = self._read(logs[partition], topic, first, end, max_records)
                max_records -= len(answers[partition].events)
        return answers

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.fails_with is not None:
            raise self.fails_with

    def _read(self, log: Log, topic: str, first: int, end: int, max_records: int) -> Answer:
        if first > log.end:
            return Answer([], first, 0, "past_end")
        lost = max(0, min(log.low, end) - first)
        found: list[Sent] = []
        upto = min(end, log.stable)
        for offset in range(first + lost, upto):
            if offset in log.records:
                if len(found) == max_records:
                    return Answer(self.decode(found, topic), offset, lost, "budget")
                found.append(log.records[offset])
        settled = max(first + lost, upto)
        return Answer(
            self.decode(found, topic), settled, lost, "settled" if settled >= end else "not_readable_yet"
        )
