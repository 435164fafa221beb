"""A topic as its brokers have it: transactions, compaction, retention, recreation, and what every record is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import azure.functions as func

from tests.support.events import Sent, events_of
from tests.support.kafka import Log, MemoryKafka

TOPIC = "flights"
GROUP = "adx-sink-flights"

Fate = Literal["open", "readable", "aborted", "compacted", "retained", "cut", "deleted"]


@dataclass
class Produced:
    """A record that was written, by its own number; `fate` is what became of it in the log."""

    id: int
    topic_id: str
    partition: int
    offset: int
    fate: Fate
    good: bool
    at_ms: int


@dataclass
class TopicLog(Log):
    """A partition with transactions that may be open: what they wrote is there, and not readable."""

    open: dict[int, list[Sent]] = field(default_factory=dict)

    def write(self, sent: Sent, transaction: int | None) -> None:
        if transaction is None:
            self.records[sent.offset] = sent
        else:
            self.open.setdefault(transaction, []).append(sent)
        self.end += 1
        self._settle()

    def finish(self, transaction: int, *, commit: bool) -> list[Sent]:
        """The transaction's marker is written, and what it wrote is readable, or never will be."""
        written = self.open.pop(transaction)
        if commit:
            self.records |= {sent.offset: sent for sent in written if sent.offset >= self.low}
            self.records = dict(sorted(self.records.items()))
        self.skip()
        self._settle()
        return written

    def _settle(self) -> None:
        self.stable_end = min(sent[0].offset for sent in self.open.values()) if self.open else None


class Broker:
    """One topic, its consumer group's committed offsets, and the truth about each record ever written."""

    def __init__(self, partitions: int, now_ms: Callable[[], int]) -> None:
        self.kafka = MemoryKafka(decode=self._decode)
        self.written: list[Produced] = []
        self.past_ids: list[str] = []
        self._now_ms = now_ms
        # By identity, which is quicker than by content; `_kept` keeps identities from being given out again.
        self._events: dict[int, func.KafkaEvent] = {}
        self._made_of: dict[int, Produced] = {}
        self._kept: list[Sent] = []
        self._transactions = 0
        self._make(partitions)

    @property
    def topic_id(self) -> str:
        return self.kafka.ids[TOPIC]

    @property
    def logs(self) -> list[Log]:
        return self.kafka.topics[TOPIC]

    @property
    def committed(self) -> dict[int, int]:
        return self.kafka.commits[GROUP]

    def log(self, partition: int) -> TopicLog:
        log = self.logs[partition]
        assert isinstance(log, TopicLog)
        return log

    def produce(
        self,
        partition: int,
        *,
        good: bool = True,
        padding: int = 0,
        key: int | None = None,
        transaction: int | None = None,
    ) -> Produced:
        """A record is at the end of the partition; `good` ones become rows, others dead letters."""
        log = self.log(partition)
        number = len(self.written)
        value: bytes | None = b'{"id":%d,"pad":"%s"}' % (number, b"x" * padding)
        if not good:
            value = None if number % 2 else b"bad"
        at_ms = self._now_ms()
        sent = Sent(
            value,
            log.end,
            partition,
            key=None if key is None else b"k%d" % key,
            headers=() if good else (("id", b"%d" % number),),
        )
        fate: Fate = "readable" if transaction is None else "open"
        made = Produced(number, self.topic_id, partition, log.end, fate, good, at_ms)
        self.written.append(made)
        (event,) = events_of([sent], TOPIC)
        self._events[id(sent)] = event
        self._made_of[id(sent)] = made
        self._kept.append(sent)
        log.write(sent, transaction)
        return made

    def begin(self) -> int:
        """The number of a new transaction."""
        self._transactions += 1
        return self._transactions

    def finish(self, transaction: int, *, commit: bool) -> int:
        """The transaction has ended in every partition that it wrote to; in how many."""
        count = 0
        for partition in range(len(self.logs)):
            log = self.log(partition)
            if transaction in log.open:
                count += 1
                for sent in log.finish(transaction, commit=commit):
                    self._fate_of(sent, "readable" if commit else "aborted")
        return count

    def compact(self, partition: int, upto: int) -> int:
        """Below `upto`, of each key only the last record is left; how many are gone."""
        log = self.log(partition)
        last = {sent.key: offset for offset, sent in log.records.items() if sent.key is not None}
        gone = [
            offset
            for offset, sent in log.records.items()
            if offset < min(upto, log.stable) and sent.key is not None and last[sent.key] > offset
        ]
        self._remove(log, gone, "compacted")
        return len(gone)

    def retain_from(self, partition: int, low: int) -> None:
        """Retention takes what lies below `low`."""
        log = self.log(partition)
        low = min(low, log.stable)
        self._remove(log, [offset for offset in log.records if offset < low], "retained")
        log.retain_from(low)

    def cut(self, partition: int, end: int) -> None:
        """An unclean election: the log ends at `end`, as if what lay above had never been."""
        log = self.log(partition)
        self._remove(log, [offset for offset in log.records if offset >= end], "cut")
        for sent in (sent for written in log.open.values() for sent in written):
            self._fate_of(sent, "cut")
        log.open.clear()
        log.end, log.stable_end = end, None

    def add_partitions(self, count: int) -> None:
        self.logs.extend(TopicLog() for _ in range(count))

    def recreate(self, partitions: int) -> None:
        """The topic is deleted, with the group's committed offsets, and made again under the same name."""
        for each in self.written:
            if each.topic_id == self.topic_id and each.fate in ("open", "readable"):
                each.fate = "deleted"
        self.past_ids.append(self.topic_id)
        self._make(partitions)

    def event_of(self, sent: Sent) -> func.KafkaEvent:
        return self._events[id(sent)]

    def produced(self, sent: Sent) -> Produced:
        return self._made_of[id(sent)]

    def readable(self, partition: int) -> Iterable[int]:
        """The offsets that a consumer would get, from first to last."""
        log = self.log(partition)
        return (offset for offset in log.records if offset < log.stable)

    def _make(self, partitions: int) -> None:
        self.kafka.create(TOPIC, partitions)
        self.kafka.topics[TOPIC] = [TopicLog() for _ in range(partitions)]
        self.kafka.commits[GROUP] = {}

    def _decode(self, found: list[Sent], topic: str) -> list[func.KafkaEvent]:
        return [self._events[id(sent)] for sent in found]

    def _remove(self, log: TopicLog, offsets: list[int], fate: Fate) -> None:
        for offset in offsets:
            self._fate_of(log.records.pop(offset), fate)

    def _fate_of(self, sent: Sent, fate: Fate) -> None:
        self.produced(sent).fate = fate
