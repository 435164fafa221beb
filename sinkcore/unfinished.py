"""Segments that are not finished: left behind by an invocation, refused by ADX, or not yet seen in its tables."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import ge

from sinkcore.clock import Deadline
from sinkcore.landed import Answers
from sinkcore.ledger_rows import OpenSegment
from sinkcore.mend import mend
from sinkcore.reopen import gone_of, reopen, rows_in_doubt
from sinkcore.segment import Blob, BlobState, Segment
from sinkcore.sink import Sink, Topic
from sinkcore.telemetry import event

# Beyond the deadline of whoever last worked on a segment: by then it has given up, or will find that it must.
CLAIM_MARGIN_S = 30
# So many segments that ADX does not take in a row, of whatever topics, and the breaker is open.
REFUSALS_MAX = 3
# With an open breaker a sweep tries one segment of a topic; after a good one the next tries four times as many.
PROBES_GROWTH = 4
# A blob that ADX refused rests for so long before the next try, and twice as long after each.
REST_S = 60.0
REST_MAX_S = 3600.0
# Rows that are missing so long after the segment was queued are late; after the other time nobody asks any more.
LATE_S = 3600.0
CONFIRM_MAX_S = 24 * 3600.0


@dataclass(slots=True)
class Breaker:
    """What one sweep has met at ADX's queue, all topics together: `refused` segments in a row."""

    refused: int = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing more is tried in this sweep."""
        return self.refused >= REFUSALS_MAX


@dataclass(slots=True)
class Tally:
    """What a sweep met in one topic: how many segments ADX's queue `took` or `refused`, and queued ones by what it
    has."""

    took: int = 0
    refused: int = 0
    landed: int = 0
    rows: int = 0
    rows_repeated: int = 0
    late: int = 0
    given_up: int = 0
    oldest_s: float = 0.0
    impossible: set[tuple[str, str]] = field(default_factory=set)
    # Segments in doubt wait for as long as ADX says this.
    refusals: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Finishes a topic's segments in one sweep. Two at once are harmless: a segment is claimed under its ETag."""

    sink: Sink
    topic: Topic
    answers: Answers
    breaker: Breaker
    deadline: Deadline
    claimer: str
    tally: Tally = field(default_factory=Tally)

    def ask(self, segments: Iterable[OpenSegment]) -> None:
        """ADX is asked, a question a table, about all segments for which it has had its time."""
        due = [each.segment for each in segments if each.untouched_s > self._wait_s(each.segment)]
        wanted = ((blob, segment.id) for segment in due for blob in self._asked_about(segment))
        self.answers.ask(((b, i) for b, i in wanted if b.state != "set_up" or self.answers.takes(b)))

    def finish(self, opened: OpenSegment) -> bool:
        """Whether the segment is finished now, or with ADX.

        | the segment               | what is done                                                 |
        |---------------------------|--------------------------------------------------------------|
        | was touched lately        | nothing: somebody is at it                                   |
        | is known not to be queued | it is queued                                                 |
        | may be in ADX's queue     | it waits, until ADX has had its time                         |
        | waits, ADX has all of it  | it is marked                                                 |
        | waits, ADX has none of it | it is queued                                                 |
        | cannot be asked about     | it is queued; what may be repeated is said                   |
        | is to be tried again      | it rests, and then is one that waits                         |
        | was refused: its set-up   | likewise, once ADX has the table and the mapping             |
        | was refused: its data     | it is mended, and queued                                     |
        | has a blob that is gone   | its ranges are gaps, or the blob is mended (see reopen)      |
        | was queued                | if ADX has all of it, it has landed                          |
        """
        segment = opened.segment
        states = {blob.state for blob in segment.blobs}
        # While somebody is at queueing a blob, the ledger has it as `staged`.
        if "staged" in states and not segment.waiting:
            if opened.untouched_s <= self.sink.settings.invocation_max_s + CLAIM_MARGIN_S:
                return False
            if any(blob.state == "staged" for blob in self._asked_about(replace(segment, waiting=True))):
                self.topic.ledger.claim(opened, self.claimer, waiting=True)
                return False
        if "refused" in states:
            mended = mend(self.sink, self.topic, opened, self.deadline)
            return mended is not None and self.finish(mended)
        if states & {"again", "set_up"} or (segment.waiting and "staged" in states):
            return self._settle(opened)
        if segment.state == "queued":
            return self._confirm(opened)
        if segment.outcome == "failed" and not any(blob.is_due for blob in segment.blobs):
            return self.topic.ledger.finish(opened, segment, "failed")
        return self._queue(opened)

    def probes_next(self, waiting: int) -> int:
        """The topic's breaker after this sweep, which left so many segments `waiting` for ADX."""
        tally, probes = self.tally, self.topic.row.probes
        if probes and (self.breaker.is_open or (tally.refused and not tally.took)):
            return 1
        # One that is refused while others are taken says nothing about ADX.
        return probes * PROBES_GROWTH if tally.took >= probes and waiting else 0

    def _asked_about(self, segment: Segment) -> list[Blob]:
        """The blobs of which ADX is asked whether it has them.

        With an `ingest-by` tag there is nothing to ask before queueing: doing that twice changes nothing.
        """
        asked: set[BlobState] = set()
        if segment.state == "queued":
            asked = {"queued"} if self.sink.queueing.confirms(segment) else set()
        elif self.sink.settings.delivery != "exactly_once":
            asked = {"again", "set_up", "staged"} if segment.waiting else {"again", "set_up"}
        rows = [blob for blob in segment.blobs if blob.kind == "rows" and blob.metadata is not None]
        return [blob for blob in rows if blob.state in asked]

    def _wait_s(self, segment: Segment) -> float:
        """For how long nobody must have touched the segment before something is done about it."""
        batching_s = [self.answers.batching_s(blob) for blob in self._asked_about(segment)]
        rests_s = [min(REST_S * 2.0 ** (blob.failures - 1), REST_MAX_S) for blob in _held(segment)]
        return max([0.0, *rests_s, *(each + self.sink.settings.doubt_margin_s for each in batching_s)])

    def _settle(self, opened: OpenSegment) -> bool:
        """Blobs that were refused, or are in doubt, are known to be in ADX, or queued; False while they wait."""
        segment = opened.segment
        if opened.untouched_s <= self._wait_s(segment):
            return False
        held, asked = _held(segment), self._asked_about(segment)
        if not all(self.answers.takes(blob) for blob in held if blob.state == "set_up"):
            return False
        unknown = [blob for blob in asked if not self.answers.know(blob, segment.id)]
        if unknown:
            self.tally.refusals |= {self.answers.refusal(blob) for blob in unknown} - {""}
            return False
        states: dict[str, BlobState] = {blob.path: "unsent" for blob in held}
        for blobs in _by_table(asked):
            landed = self._has_landed(segment, blobs)
            if landed is None:
                return False
            for blob in blobs:
                if self.answers.rows(blob, segment.id) is not None:
                    states[blob.path] = "queued" if landed else "unsent"
        segment = segment.with_blob_states(states)
        settled = self.topic.ledger.note(opened, replace(segment, state=segment.outcome))
        return settled is not None and self._queue(settled)

    def _has_landed(self, segment: Segment, blobs: list[Blob]) -> bool | None:
        """Whether these blobs of one table are in it, all of them or none; None if only time can tell."""
        sure = sum(b.rows for b in segment.blobs if _table_of(b) == _table_of(blobs[0]) and b.state == "queued")
        found = self.answers.rows(blobs[0], segment.id)
        expected = sure + sum(blob.rows for blob in blobs)
        if found is None or found == sure:
            return False
        # ADX repeats a blob at times. Where it is the segment's only one there, more of its rows are no riddle.
        if found == expected or (found > expected and sure == 0 and len(blobs) == 1):
            return True
        event(
            "segment_in_doubt",
            logging.ERROR,
            topic=segment.topic,
            segment=segment.id,
            db=blobs[0].db,
            table=blobs[0].table,
            rows_expected=expected,
            rows_found=found,
        )
        return None

    def _confirm(self, opened: OpenSegment) -> bool:
        """A queued segment has landed, or nobody can tell, or ADX is asked again."""
        segment, tally, ledger = opened.segment, self.tally, self.topic.ledger
        asked = self._asked_about(segment)
        unable = {_table_of(blob) for blob in asked if self.answers.cannot_tell(blob)}
        tally.impossible |= unable
        if unable or not asked:
            return ledger.finish(opened, segment, "queued")
        if not all(self.answers.know(blob, segment.id) for blob in asked):
            return False
        expected = [sum(blob.rows for blob in blobs) for blobs in _by_table(asked)]
        found = [self.answers.rows(blobs[-1], segment.id) or 0 for blobs in _by_table(asked)]
        if all(map(ge, found, expected)):
            tally.landed += 1
            tally.rows += sum(expected)
            tally.rows_repeated += sum(found) - sum(expected)
            return ledger.finish(opened, segment, "landed")
        if opened.untouched_s <= LATE_S:
            return False
        tally.late += 1
        tally.oldest_s = max(tally.oldest_s, opened.untouched_s)
        given_up = opened.untouched_s > CONFIRM_MAX_S and ledger.finish(opened, segment, "queued")
        tally.given_up += given_up
        return given_up

    def _queue(self, opened: OpenSegment) -> bool:
        sink, tally, probes = self.sink, self.tally, self.topic.row.probes
        if self.breaker.is_open or (probes and (tally.refused or tally.took >= probes)):
            return False
        gone = gone_of(sink, opened.segment)
        if gone:
            left = reopen(sink, self.topic, opened, gone)
            return left is not None and self.finish(left)
        claimed = self.topic.ledger.claim(opened, self.claimer)
        if claimed is None:
            return False
        if not sink.queueing.finish(self.topic.ledger, claimed, self.deadline):
            tally.refused += 1
            self.breaker.refused += 1
            return False
        tally.took += 1
        self.breaker.refused = 0
        tagged = sink.settings.delivery == "exactly_once"
        event(
            "segment_swept",
            logging.WARNING,
            topic=claimed.segment.topic,
            segment=claimed.segment.id,
            records=claimed.segment.records,
            attempts=claimed.segment.attempts,
            left_s=round(opened.committed_s),
            rows_perhaps_repeated=0 if tagged else rows_in_doubt(opened.segment),
        )
        return True


def _held(segment: Segment) -> list[Blob]:
    """The blobs that ADX has refused, and may take another time."""
    return [blob for blob in segment.blobs if blob.state in ("again", "set_up")]


def _table_of(blob: Blob) -> tuple[str, str]:
    return blob.db, blob.table


def _by_table(blobs: Iterable[Blob]) -> list[list[Blob]]:
    found: dict[tuple[str, str], list[Blob]] = {}
    for blob in blobs:
        found.setdefault(_table_of(blob), []).append(blob)
    return list(found.values())
