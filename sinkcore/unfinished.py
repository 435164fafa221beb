"""Segments that are not finished: left behind by an invocation, refused by ADX, or not yet seen in its tables."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby

from sinkcore.clock import Deadline
from sinkcore.landed import Answers, question_of
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import OpenSegment
from sinkcore.mend import Mending
from sinkcore.queueing import Queueing
from sinkcore.reopen import gone_of, reopen
from sinkcore.segment import Blob, BlobState, Segment
from sinkcore.settings import Settings
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


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What finishing a topic's segments needs. Two at once are harmless: a segment is claimed under its ETag."""

    settings: Settings
    queueing: Queueing
    answers: Answers
    mending: Mending
    claimer: str
    breaker: Breaker
    probes: int = 0
    tally: Tally = field(default_factory=Tally)

    def ask(self, segments: Iterable[OpenSegment]) -> None:
        """ADX is asked, a question a table, about all segments for which it has had its time."""
        due = [each.segment for each in segments if each.untouched_s > self._wait_s(each.segment)]
        wanted = ((blob, segment.id) for segment in due for blob in self._asked_about(segment))
        self.answers.ask(((b, i) for b, i in wanted if b.state != "set_up" or self.answers.takes(b)))

    def finish(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
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
            if opened.untouched_s <= self.settings.invocation_max_s + CLAIM_MARGIN_S:
                return False
            if any(blob.state == "staged" for blob in self._asked_about(replace(segment, waiting=True))):
                ledger.claim(opened, self.claimer, waiting=True)
                return False
        if "refused" in states:
            mended = self.mending.mend(opened, deadline)
            return mended is not None and self.finish(ledger, mended, deadline)
        if states & {"again", "set_up"} or (segment.waiting and "staged" in states):
            return self._settle(ledger, opened, deadline)
        if segment.state == "queued":
            return self._confirm(ledger, opened)
        if segment.outcome == "failed" and not any(blob.is_due for blob in segment.blobs):
            return ledger.finish(opened, segment, "failed")
        return self._queue(ledger, opened, deadline)

    def _asked_about(self, segment: Segment) -> list[Blob]:
        """The blobs of which ADX is asked whether it has them.

        With an `ingest-by` tag there is nothing to ask before queueing: doing that twice changes nothing.
        """
        asked: set[BlobState] = {"again", "set_up"}
        if segment.state == "queued":
            asked = {"queued"} if self.queueing.confirms(segment) else set()
        elif self.settings.delivery == "exactly_once":
            asked = set()
        elif segment.waiting:
            asked |= {"staged"}
        rows = [blob for blob in segment.blobs if blob.kind == "rows" and blob.metadata is not None]
        return [blob for blob in rows if blob.state in asked]

    def _wait_s(self, segment: Segment) -> float:
        """For how long nobody must have touched the segment before something is done about it."""
        batching_s = [self.answers.batching_s(blob) for blob in self._asked_about(segment)]
        rests_s = [
            min(REST_S * 2.0 ** (blob.failures - 1), REST_MAX_S)
            for blob in segment.blobs
            if blob.state in ("again", "set_up")
        ]
        return max([0.0, *rests_s, *(each + self.settings.doubt_margin_s for each in batching_s)])

    def _settle(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        """Blobs that were refused, or are in doubt, are known to be in ADX, or queued; False while they wait."""
        segment = opened.segment
        if opened.untouched_s <= self._wait_s(segment):
            return False
        held = [blob for blob in segment.blobs if blob.state in ("again", "set_up")]
        if not all(self.answers.takes(blob) for blob in held if blob.state == "set_up"):
            return False
        states: dict[str, BlobState] = {blob.path: "unsent" for blob in held}
        asked = self._asked_about(segment)
        for _, group in groupby(sorted(asked, key=_table_of), key=_table_of):
            blobs = list(group)
            if not self.answers.know(blobs[0], segment.id):
                return False
            landed = self._has_landed(segment, blobs)
            if landed is None:
                return False
            states |= {
                blob.path: "queued" if landed else "unsent"
                for blob in blobs
                if self.answers.rows(blob, segment.id) is not None
            }
        segment = segment.with_blob_states(states)
        settled = ledger.note(opened, replace(segment, state=segment.outcome))
        return settled is not None and self._queue(ledger, settled, deadline)

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

    def _confirm(self, ledger: Ledger, opened: OpenSegment) -> bool:
        """A queued segment has landed, or nobody can tell, or ADX is asked again."""
        segment, tally = opened.segment, self.tally
        asked = self._asked_about(segment)
        unable = [b for b in asked if question_of(b) in self.answers.forbidden or self._is_mute(b, segment)]
        tally.impossible |= {_table_of(blob) for blob in unable}
        if unable or not asked:
            return ledger.finish(opened, segment, "queued")
        if not all(self.answers.know(blob, segment.id) for blob in asked):
            return False
        found = {_table_of(blob): self.answers.rows(blob, segment.id) or 0 for blob in asked}
        expected = Counter[tuple[str, str]]()
        for blob in asked:
            expected[_table_of(blob)] += blob.rows
        if all(found[table] >= rows for table, rows in expected.items()):
            tally.landed += 1
            tally.rows += expected.total()
            tally.rows_repeated += sum(found.values()) - expected.total()
            return ledger.finish(opened, segment, "landed")
        if opened.untouched_s <= LATE_S:
            return False
        tally.late += 1
        tally.oldest_s = max(tally.oldest_s, opened.untouched_s)
        given_up = opened.untouched_s > CONFIRM_MAX_S and ledger.finish(opened, segment, "queued")
        tally.given_up += given_up
        return given_up

    def _is_mute(self, blob: Blob, segment: Segment) -> bool:
        return self.answers.know(blob, segment.id) and self.answers.rows(blob, segment.id) is None

    def _queue(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        tally = self.tally
        if self.breaker.is_open or (self.probes and (tally.refused or tally.took >= self.probes)):
            return False
        tagged = self.settings.delivery == "exactly_once"
        gone = gone_of(self.queueing, opened.segment, tagged=tagged)
        if gone:
            topic_id = self.mending.topic.row.topic_id
            left = reopen(ledger, opened, gone, self.queueing, topic_id=topic_id, tagged=tagged)
            return left is not None and self.finish(ledger, left, deadline)
        claimed = ledger.claim(opened, self.claimer)
        if claimed is None:
            return False
        if not self.queueing.finish(ledger, claimed, deadline):
            tally.refused += 1
            self.breaker.refused += 1
            return False
        tally.took += 1
        self.breaker.refused = 0
        event(
            "segment_swept",
            logging.WARNING,
            topic=claimed.segment.topic,
            segment=claimed.segment.id,
            records=claimed.segment.records,
            attempts=claimed.segment.attempts,
            left_s=round(opened.committed_s),
            rows_perhaps_repeated=self._perhaps_repeated(opened.segment),
        )
        return True

    def probes_next(self, waiting: int) -> int:
        """The topic's breaker after this sweep, which left so many segments `waiting` for ADX."""
        tally = self.tally
        if self.probes and (self.breaker.is_open or (tally.refused and not tally.took)):
            return 1
        # One that is refused while others are taken says nothing about ADX.
        return self.probes * PROBES_GROWTH if tally.took >= self.probes and waiting else 0

    def _perhaps_repeated(self, segment: Segment) -> int:
        if self.settings.delivery == "exactly_once":
            return 0
        return sum(blob.rows for blob in segment.blobs if blob.kind == "rows" and blob.state == "staged")


def _table_of(blob: Blob) -> tuple[str, str]:
    return blob.db, blob.table
