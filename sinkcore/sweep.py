"""What an invocation left unfinished is finished: staged segments are claimed, asked about, and queued."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import groupby
from uuid import uuid4

from sinkcore.clock import Deadline
from sinkcore.errors import TransientError
from sinkcore.landed import LandedRows
from sinkcore.ledger import Ledger, topics
from sinkcore.ledger_rows import OpenSegment
from sinkcore.segment import Blob, BlobState, Segment
from sinkcore.sink import Sink
from sinkcore.telemetry import event

# Beyond the deadline of whoever last worked on a segment: by then it has given up, or will find that it must.
CLAIM_MARGIN_S = 30


@dataclass(slots=True)
class Sweep:
    """One run of the sweeper. Two at once are harmless: a segment is claimed under its ETag."""

    sink: Sink
    landed: LandedRows
    name: str = field(default_factory=lambda: uuid4().hex)

    def run(self) -> int:
        """Segments that somebody left behind are queued, as far as ADX takes them and time allows.

        Returns how many were finished.
        """
        deadline = Deadline.after(self.sink.clock, self.sink.settings.invocation_max_s)
        finished = 0
        for _, group in topics(self.sink.table):
            ledger = Ledger(self.sink.table, group)
            for opened in ledger.open_segments():
                if deadline.is_past():
                    return finished
                finished += self._sweep(ledger, opened, deadline)
        return finished

    def _sweep(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        """
        | the segment               | what is done                                             |
        |---------------------------|----------------------------------------------------------|
        | was touched lately        | nothing: somebody is at it                               |
        | may be in ADX's queue     | it waits, until ADX has had its time                     |
        | waits, ADX has all of it  | it is marked                                             |
        | waits, ADX has none of it | it is queued                                             |
        | cannot be asked about     | it is queued; what may be repeated is said               |
        """
        if opened.segment.waiting:
            return self._ask(ledger, opened, deadline)
        if opened.untouched_s <= self.sink.settings.invocation_max_s + CLAIM_MARGIN_S:
            return False
        if self._doubtful(opened.segment):
            ledger.claim(opened, self.name, waiting=True)
            return False
        return self._finish(ledger, opened, deadline)

    def _doubtful(self, segment: Segment) -> list[Blob]:
        """The blobs that may have been queued, and about which ADX can be asked before they are queued again.

        With an `ingest-by` tag there is nothing to ask: queueing twice changes nothing.
        """
        if self.sink.settings.delivery == "exactly_once":
            return []
        staged = [blob for blob in segment.blobs if blob.kind == "rows" and blob.state == "staged"]
        return [blob for blob in staged if blob.metadata is not None]

    def _ask(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        doubtful = self._doubtful(opened.segment)
        wait_s = max((self.landed.batching_s(blob) for blob in doubtful), default=0.0)
        if opened.untouched_s <= wait_s + self.sink.settings.doubt_margin_s:
            return False
        states: dict[str, BlobState] = {}
        for _, group in groupby(sorted(doubtful, key=_table_of), key=_table_of):
            blobs = list(group)
            try:
                state = self._state(opened.segment, blobs)
            except TransientError as error:
                event("adx_silent", logging.WARNING, topic=opened.segment.topic, error=str(error))
                return False
            if state is None:
                return False
            states |= dict.fromkeys((blob.path for blob in blobs), state)
        settled = ledger.note(opened, opened.segment.with_blob_states(states))
        return settled is not None and self._finish(ledger, settled, deadline)

    def _state(self, segment: Segment, blobs: list[Blob]) -> BlobState | None:
        """What is true of the segment's doubtful blobs of one table: landed or not; None if only time can tell."""
        sure = sum(b.rows for b in segment.blobs if _table_of(b) == _table_of(blobs[0]) and b.state == "queued")
        found = self.landed.count(blobs[0], segment.id)
        if found is None:
            return "staged"
        if found <= sure:
            return "unsent"
        if found == sure + sum(blob.rows for blob in blobs):
            return "queued"
        event(
            "segment_in_doubt",
            logging.ERROR,
            topic=segment.topic,
            segment=segment.id,
            db=blobs[0].db,
            table=blobs[0].table,
            rows_expected=sure + sum(blob.rows for blob in blobs),
            rows_found=found,
        )
        return None

    def _finish(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        claimed = ledger.claim(opened, self.name)
        if claimed is None or not self.sink.queueing.finish(ledger, claimed, deadline):
            return False
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

    def _perhaps_repeated(self, segment: Segment) -> int:
        if self.sink.settings.delivery == "exactly_once":
            return 0
        return sum(blob.rows for blob in segment.blobs if blob.kind == "rows" and blob.state == "staged")


def _table_of(blob: Blob) -> tuple[str, str]:
    return blob.db, blob.table
