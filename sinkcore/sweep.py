"""The sweeper: whatever an invocation, a host or ADX left undone is done, topic after topic."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from sinkcore.clock import Deadline
from sinkcore.drain import drain_gaps
from sinkcore.errors import SinkError, TransientError
from sinkcore.failures import FailedIngestions
from sinkcore.landed import Answers, LandedRows
from sinkcore.ledger import Ledger, topics
from sinkcore.ledger_rows import OpenSegment
from sinkcore.mend import Mending
from sinkcore.partitions import Seen, check_partitions
from sinkcore.refusals import Refusals
from sinkcore.retention import remove_old
from sinkcore.sink import Sink, Topic
from sinkcore.telemetry import event
from sinkcore.unfinished import Tally, Unfinished

REMOVE_EVERY_S = 3600.0
# A topic that is behind is said so often that growth shows in ten minutes, and no more.
SAY_EVERY_S = 60.0
# Messages of the failures queue are noted for so long at most; what is left comes again.
NOTE_MAX_S = 20.0


@dataclass(slots=True)
class Sweeper:
    """One for each worker process: it remembers where positions stood. Two of them at once are harmless.

    `sink` is its own, since a sink is for one thread a topic.
    """

    sink: Sink
    landed: LandedRows
    failures: FailedIngestions
    seen: Seen = field(default_factory=Seen)
    mute_tables: set[tuple[str, str]] = field(default_factory=set)
    removed_at_s: dict[str, float] = field(default_factory=dict)
    said_at_s: dict[str, float] = field(default_factory=dict)
    turn: int = 0

    def sweep(self) -> int:
        """Every topic that was ever started is swept, as far as time allows; how many segments were finished."""
        finished = 0
        try:
            note_until = Deadline.after(self.sink.clock, NOTE_MAX_S)
            Refusals(self.sink.table, self.sink.blobs, self.failures).note(note_until)
        except TransientError as error:
            event("failures_not_read", logging.WARNING, error=str(error))
        deadline = Deadline.after(self.sink.clock, self.sink.settings.invocation_max_s)
        known = [topic for name, group in topics(self.sink.table) if (topic := self._topic(name, group))]
        # What is committed goes before what is to be read, and each sweep begins with another topic: one large gap
        # must not keep the others waiting.
        self.turn += 1
        known = [known[(self.turn + n) % len(known)] for n in range(len(known))]
        for work in (self._finish, self._catch_up):
            for topic in known:
                if deadline.is_past():
                    break
                try:
                    finished += work(topic, deadline)
                except SinkError as error:
                    event("sweep_failed", logging.WARNING, topic=topic.name, error=str(error))
        return finished

    def _topic(self, name: str, group: str) -> Topic | None:
        ledger = Ledger(self.sink.table, group)
        row = ledger.topic()
        return None if row is None else Topic(name, group, ledger, row, self.sink.clock.monotonic_s())

    def _finish(self, topic: Topic, deadline: Deadline) -> int:
        """The topic's unfinished segments are finished, and what is left of them is on its row."""
        finished, pending = self._finish_segments(topic, deadline)
        if pending != topic.row.pending and topic.ledger.change_topic(replace(topic.row, pending=pending)):
            topic.row = topic.ledger.topic() or topic.row
        return finished

    def _catch_up(self, topic: Topic, deadline: Deadline) -> int:
        """What the host did not deliver is read from Kafka, and what is old removed.

        A topic that was taken out of the settings is swept to its end, and no longer read.
        """
        lag = None
        if self.sink.settings.routes_of(topic.name) and topic.row.pending < self.sink.settings.pending_max:
            lag = check_partitions(self.sink, topic, self.seen, deadline)
            topic.row = topic.ledger.topic() or topic.row
            drain_gaps(self.sink, topic, deadline)
        if (lag or topic.row.pending) and self._is_time(topic.name, self.said_at_s, SAY_EVERY_S):
            event("topic_behind", topic=topic.name, lag=lag, pending=topic.row.pending)
        if self._is_time(topic.name, self.removed_at_s, REMOVE_EVERY_S):
            remove_old(self.sink, topic, deadline)
        return 0

    def _is_time(self, name: str, last_s: dict[str, float], every_s: float) -> bool:
        now_s = self.sink.clock.monotonic_s()
        due = now_s - last_s.get(name, -every_s) >= every_s
        if due:
            last_s[name] = now_s
        return due

    def _finish_segments(self, topic: Topic, deadline: Deadline) -> tuple[int, int]:
        """How many segments were finished, and how many are left that ADX has not taken."""
        unfinished = Unfinished(
            self.sink.settings,
            self.sink.queueing,
            Answers(topic.name, self.landed),
            Mending(self.sink, topic),
            self.sink.new_id(self.sink.clock.now_ms()),
        )
        segments = list(topic.ledger.open_segments())
        unfinished.ask(segments)
        finished = pending = 0
        for opened in segments:
            if not deadline.is_past() and unfinished.finish(topic.ledger, opened, deadline):
                finished += 1
            else:
                pending += _waits_for_adx(opened)
        self._say(topic, unfinished.tally)
        return finished, pending

    def _say(self, topic: Topic, tally: Tally) -> None:
        """What the sweep found of the topic's queued segments, in a line for each kind of finding."""
        if tally.landed:
            event(
                "segment_landed",
                logging.WARNING if tally.rows_repeated else logging.INFO,
                topic=topic.name,
                segments=tally.landed,
                rows=tally.rows,
                rows_repeated=tally.rows_repeated,
            )
        if tally.late:
            event(
                "segments_late",
                logging.ERROR,
                topic=topic.name,
                segments=tally.late,
                oldest_s=round(tally.oldest_s),
                given_up=tally.given_up,
            )
        for db, table in sorted(tally.impossible - self.mute_tables):
            event("confirmation_impossible", logging.WARNING, topic=topic.name, db=db, table=table)
        self.mute_tables |= tally.impossible


def _waits_for_adx(opened: OpenSegment) -> bool:
    """Somebody has tried to queue it and could not, or nobody knows; one that is under way, or with ADX, does not
    count."""
    segment = opened.segment
    tried = segment.attempts > 0 or any(blob.state in ("unsent", "again", "set_up") for blob in segment.blobs)
    return tried and segment.state != "queued"
