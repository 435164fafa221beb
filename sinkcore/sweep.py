"""The sweeper: whatever an invocation, a host or ADX left undone is done, topic after topic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sinkcore.clock import Deadline
from sinkcore.drain import drain_gaps, is_held_back
from sinkcore.errors import LedgerError, SinkError, TransientError
from sinkcore.failures import FailedIngestions
from sinkcore.landed import Answers, LandedRows
from sinkcore.ledger import Ledger, topics
from sinkcore.ledger_rows import OpenSegment
from sinkcore.partitions import Seen, check_partitions
from sinkcore.refusals import note_refusals
from sinkcore.retention import remove_old
from sinkcore.sink import Sink, Topic
from sinkcore.telemetry import event
from sinkcore.unfinished import Breaker, Tally, Unfinished

T = TypeVar("T")

REMOVE_EVERY_S = 3600.0
# A topic that is behind is said so often that growth shows in ten minutes, and no more.
SAY_EVERY_S = 60.0
# Messages of the failures queue are noted for so long at most; what is left comes again.
NOTE_MAX_S = 20.0
# However many topics there are, one that has its turn gets this much of a sweep, as a question to Kafka may take.
TURN_MIN_S = 10.0
# Of what is left of a sweep once segments are finished, removal gets this share at the most.
REMOVAL_SHARE = 0.25


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
        try:
            note_until = Deadline.after(self.sink.clock, NOTE_MAX_S)
            note_refusals(self.sink.table, self.sink.blobs, self.failures, note_until)
        except TransientError as error:
            event("failures_not_read", logging.WARNING, error=str(error))
        deadline = Deadline.after(self.sink.clock, self.sink.settings.invocation_max_s)
        known, breaker = self._known(), Breaker()
        # What is committed goes before what is to be read.
        finished = _in_turns(known, deadline, lambda topic, turn: self._finish(topic, breaker, deadline, turn))
        for topic in known if breaker.is_open else ():
            if topic.row.pending and not topic.row.probes:
                with _said(topic.name):
                    _write_down(topic, topic.row.pending, probes=1)
        _in_turns(known, Deadline.after(self.sink.clock, deadline.left_s() * REMOVAL_SHARE), self._remove)
        behind = _in_turns(known, deadline, lambda topic, turn: self._catch_up(topic, deadline, turn))

        def go_on(topic: Topic, turn: Deadline) -> bool:
            drain_gaps(self.sink, topic, deadline, turn)
            return turn.is_past()

        while any(behind.values()):
            behind = _in_turns([topic for topic in known if behind.get(topic.name)], deadline, go_on)
        return sum(finished.values())

    def _known(self) -> list[Topic]:
        """Every topic with a row that can be read; each sweep begins with another one."""
        known: list[Topic] = []
        for name, group in topics(self.sink.table):
            with _said(name):
                ledger = Ledger(self.sink.table, group)
                row = ledger.topic()
                if row is not None:
                    known.append(Topic(name, group, ledger, row, self.sink.clock.monotonic_s()))
        self.turn += 1
        return [known[(self.turn + n) % len(known)] for n in range(len(known))]

    def _finish(self, topic: Topic, breaker: Breaker, deadline: Deadline, turn: Deadline) -> int:
        """The topic's unfinished segments are finished, and what is left of them is on its row; how many were."""
        claimer = self.sink.new_id(self.sink.clock.now_ms())
        answers = Answers(topic.name, self.landed)
        unfinished = Unfinished(self.sink, topic, answers, breaker, deadline, claimer)
        segments = list(topic.ledger.open_segments())
        # Before ADX is asked anything: where it hangs, that takes minutes in which workers go by this number.
        _write_down(topic, sum(map(_waits_for_adx, segments)), topic.row.probes)
        unfinished.ask(segments)
        finished = pending = 0
        # One that ADX never takes must not be the one by which the breaker is tried.
        for opened in sorted(segments, key=lambda each: each.segment.attempts):
            if not turn.is_past() and unfinished.finish(opened):
                finished += 1
            else:
                pending += _waits_for_adx(opened)
        _write_down(topic, pending, unfinished.probes_next(pending))
        self._say(topic, unfinished.tally)
        return finished

    def _catch_up(self, topic: Topic, deadline: Deadline, turn: Deadline) -> bool:
        """What the host did not deliver is read from Kafka; whether there may be more of it than fitted the turn.

        A topic that was taken out of the settings is swept to its end, and no longer read.
        """
        reads = bool(self.sink.settings.routes_of(topic.name)) and not is_held_back(self.sink, topic)
        lag = check_partitions(self.sink, topic, self.seen, deadline, turn) if reads else None
        topic.row = topic.ledger.topic() or topic.row
        if (lag or topic.row.pending) and self._is_due(topic.name, self.said_at_s, SAY_EVERY_S):
            self.said_at_s[topic.name] = self.sink.clock.monotonic_s()
            event("topic_behind", topic=topic.name, lag=lag, pending=topic.row.pending)
        if not reads:
            return False
        gaps = drain_gaps(self.sink, topic, deadline, turn)
        if self.seen.is_gapped(topic, gaps):
            event(
                "group_shared",
                logging.ERROR,
                topic=topic.name,
                group=topic.group,
                partitions=sorted({gap.partition for gap in gaps}),
            )
        return turn.is_past()

    def _remove(self, topic: Topic, turn: Deadline) -> None:
        """What is old is looked for once an hour, and removed by as many sweeps in a row as that takes."""
        if self._is_due(topic.name, self.removed_at_s, REMOVE_EVERY_S) and remove_old(self.sink, topic, turn):
            self.removed_at_s[topic.name] = self.sink.clock.monotonic_s()

    def _is_due(self, name: str, last_s: dict[str, float], every_s: float) -> bool:
        """Whether so much time has passed since the topic's last time."""
        return self.sink.clock.monotonic_s() - last_s.get(name, -every_s) >= every_s

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
        for error in sorted(tally.refusals):
            event("adx_silent", logging.WARNING, topic=topic.name, error=error)
        for db, table in sorted(tally.impossible - self.mute_tables):
            event("confirmation_impossible", logging.WARNING, topic=topic.name, db=db, table=table)
        self.mute_tables |= tally.impossible


def _in_turns(swept: Sequence[Topic], deadline: Deadline, step: Callable[[Topic, Deadline], T]) -> dict[str, T]:
    """What `step` says of each topic, in its turn: an even share of the time that is left, so that what one leaves
    over the others have."""
    said: dict[str, T] = {}
    for n, topic in enumerate(swept):
        left_s = deadline.left_s()
        if left_s > 0:
            share_s = max(TURN_MIN_S, left_s / (len(swept) - n))
            with _said(topic.name):
                said[topic.name] = step(topic, Deadline.after(deadline.clock, min(share_s, left_s)))
    return said


@contextmanager
def _said(topic: str) -> Iterator[None]:
    """What goes wrong with one topic is said, and keeps no other from its turn."""
    try:
        yield
    except SinkError as error:
        level = logging.ERROR if isinstance(error, LedgerError) else logging.WARNING
        event("sweep_failed", level, topic=topic, error=str(error))


def _write_down(topic: Topic, pending: int, probes: int) -> None:
    """The topic's row has the number of segments that wait for ADX, and the breaker."""
    if probes and not topic.row.probes:
        event("breaker_opened", logging.ERROR, topic=topic.name, pending=pending)
    elif topic.row.probes and not probes:
        event("breaker_closed", logging.WARNING, topic=topic.name, pending=pending)
    row = replace(topic.row, pending=pending, probes=probes)
    if row != topic.row and topic.ledger.change_topic(row):
        topic.row = topic.ledger.topic() or topic.row


def _waits_for_adx(opened: OpenSegment) -> bool:
    """Somebody has tried to queue it and could not, or nobody knows; one that is under way, or with ADX, does not
    count."""
    segment = opened.segment
    tried = segment.attempts > 0 or any(blob.state in ("unsent", "again", "set_up") for blob in segment.blobs)
    return tried and segment.state != "queued"
