"""One topic in Kafka: logs with transactions, compaction, retention, truncation, and a topic made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import azure.functions as func

from sinkcore.errors import TransientError
from sinkcore.gaps import Answer, TopicState
from tests.simulation.parts.schedule import Actor, Schedule

TOPIC = "flights"


@dataclass(eq=False)
class Entry:
    """What an offset holds: `record`, `open`, `aborted`, `marker` or `gone` (compacted)."""

    uid: int
    value: bytes
    kind: str = "record"


@dataclass(eq=False)
class Log:
    """One partition."""

    entries: dict[int, Entry] = field(default_factory=dict)
    low: int = 0
    end: int = 0
    # What is written below this was another record once, before an unclean election: either of the two counts.
    excused_below: int = 0

    @property
    def stable(self) -> int:
        """The last stable offset: the first record of an open transaction, else the end."""
        return min((o for o, e in self.entries.items() if e.kind == "open"), default=self.end)

    def append(self, entry: Entry) -> int:
        self.entries[self.end] = entry
        self.end += 1
        return self.end - 1

    def visible(self, offset: int) -> bool:
        """Whether a read-committed consumer sees a record there, once it may."""
        entry = self.entries.get(offset)
        return entry is not None and entry.kind == "record" and offset >= self.low


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as a host holds it."""

    partition: int
    offset: int
    entry: Entry


def _sound(uid: int) -> bytes:
    return b'{"n":%d,"to":"%s"}' % (uid, b"odd" if uid % 2 else b"even")


@dataclass(eq=False)
class Kafka:
    """The topic, its group's committed offsets, and the seam by which sinkcore asks (`KafkaLog`)."""

    schedule: Schedule
    partitions: int
    logs: list[Log] = field(default_factory=list)
    incarnation: int = 1
    committed_at: dict[int, int] = field(default_factory=dict)
    ever_committed: set[int] = field(default_factory=set)
    # Whether the group's offsets have expired once.
    expired: bool = False
    uids: int = 0
    # Records of a topic made again, until a sweep has noticed: they may be taken twice.
    repeatable: set[int] = field(default_factory=set)
    # Offsets over which a late store has moved the committed offset back.
    hidden: set[tuple[int, int]] = field(default_factory=set)
    # Which topic of that name the ledger knows.
    known_id: Callable[[], str] = lambda: ""
    down: bool = False
    silent: bool = False

    def __post_init__(self) -> None:
        self.logs = [Log() for _ in range(self.partitions)]

    def produce(self, partition: int, kind: str = "record") -> None:
        """A record, in one case of twenty a bad one and in one of twenty a tombstone, is at the log's end."""
        self.uids += 1
        drawn = self.schedule.rng.random()
        value = b"" if drawn < 0.05 else b"bad %d" % self.uids if drawn < 0.1 else _sound(self.uids)
        offset = self.logs[partition].append(Entry(self.uids, value, kind))
        if offset < self.logs[partition].excused_below or self.known_id() not in ("", f"id-{self.incarnation}"):
            self.repeatable.add(self.uids)

    def end_transaction(self, partition: int, kind: str) -> None:
        """What was open is committed (`record`) or `aborted`, behind a marker."""
        log = self.logs[partition]
        for entry in log.entries.values():
            if entry.kind == "open":
                entry.kind = kind
        log.append(Entry(0, b"", "marker"))

    def compact(self, partition: int) -> bool:
        """A record in the middle is gone."""
        log = self.logs[partition]
        old = [o for o in range(log.low, log.stable - 1) if log.visible(o)]
        if old:
            log.entries[self.schedule.rng.choice(old)].kind = "gone"
        return bool(old)

    def recreate(self) -> None:
        """The topic is new, under a new id."""
        self.incarnation += 1
        self.logs = [Log() for _ in self.logs]
        self.committed_at.clear()

    def topic(self, topic: str) -> TopicState | None:
        self._ask("topic")
        return TopicState(f"id-{self.incarnation}", len(self.logs))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        self._ask("committed")
        return dict(self.committed_at)

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        self._ask("first_offsets")
        return {p: self.logs[p].low for p in partitions if p < len(self.logs)}

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        self._ask("end_offsets")
        logs = self.logs
        return {p: logs[p].stable if committed_only else logs[p].end for p in partitions if p < len(logs)}

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        raise NotImplementedError("no route of the simulation starts at a time")

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        actor = self._ask(f"read {dict(asked)}")
        answers: dict[int, Answer] = {}
        for partition, (first, end) in asked.items():
            if self.silent or (partition < len(self.logs) and self._says_nothing(self.logs[partition], first)):
                self.schedule.hit("fault: silence")
                if budget_s == float("inf"):
                    while True:
                        self.schedule.seam("waits for Kafka")
                self.schedule.clock.ms += int(budget_s * 1000)
                answers[partition] = Answer([], first, 0, "unanswered")
            elif partition >= len(self.logs):
                answers[partition] = Answer([], first, 0, "no_partition")
            else:
                answers[partition] = _read(self.logs[partition], partition, first, end, max_records)
                max_records -= len(answers[partition].events)
                if answers[partition].why == "not_readable_yet" and actor and actor.kind == "sweep":
                    self.schedule.hit("interleaving 29")
        return answers

    def _says_nothing(self, log: Log, first: int) -> bool:
        return log.stable < first < log.end

    def _ask(self, what: str) -> Actor | None:
        actor = self.schedule.seam(f"kafka {what}")
        if self.down or (actor and self.schedule.chance(0.01)):
            self.schedule.hit("fault: kafka down")
            raise TransientError("kafka: no answer")
        return actor


def _read(log: Log, partition: int, first: int, end: int, max_records: int) -> Answer:
    if first > log.end:
        return Answer([], first, 0, "past_end")
    lost = max(0, min(log.low, end) - first)
    found: list[Seen] = []
    upto = min(end, log.stable)
    for offset in range(first + lost, upto):
        if log.visible(offset):
            if len(found) >= max_records:
                return Answer(events_of(found), offset, lost, "budget")
            found.append(Seen(partition, offset, log.entries[offset]))
    settled = max(first + lost, upto)
    return Answer(events_of(found), settled, lost, "settled" if settled >= end else "not_readable_yet")


def events_of(records: Iterable[Seen]) -> list[func.KafkaEvent]:
    """The records as the trigger hands them over."""
    return [
        func.KafkaEvent(
            body=each.entry.value, topic=TOPIC, partition=each.partition, offset=each.offset,
            timestamp="2013-01-01T10:00:00Z", key=None, headers=[],
        )
        for each in records
    ]  # fmt: skip
