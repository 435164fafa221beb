"""Staged segments that an invocation left unfinished: claimed, asked about, and queued."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby

from sinkcore.clock import Deadline
from sinkcore.errors import TransientError
from sinkcore.landed import LandedRows
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import OpenSegment
from sinkcore.queueing import Queueing
from sinkcore.segment import Blob, BlobState, Segment
from sinkcore.settings import Settings
from sinkcore.telemetry import event

# Beyond the deadline of whoever last worked on a segment: by then it has given up, or will find that it must.
CLAIM_MARGIN_S = 30


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What finishing a segment needs. Two at once are harmless: a segment is claimed under its ETag."""

    settings: Settings
    queueing: Queueing
    landed: LandedRows
    claimer: str

    def finish(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        """Whether the segment is finished now.

        | the segment               | what is done                                             |
        |---------------------------|----------------------------------------------------------|
        | was touched lately        | nothing: somebody is at it                               |
        | is known not to be queued | it is queued                                             |
        | may be in ADX's queue     | it waits, until ADX has had its time                     |
        | waits, ADX has all of it  | it is marked                                             |
        | waits, ADX has none of it | it is queued                                             |
        | cannot be asked about     | it is queued; what may be repeated is said               |
        """
        if opened.segment.waiting:
            return self._ask(ledger, opened, deadline)
        # While somebody is at queueing a blob, the ledger has it as `staged`.
        at_rest = all(blob.state != "staged" for blob in opened.segment.blobs)
        if not at_rest and opened.untouched_s <= self.settings.invocation_max_s + CLAIM_MARGIN_S:
            return False
        if self._doubtful(opened.segment):
            ledger.claim(opened, self.claimer, waiting=True)
            return False
        return self._queue(ledger, opened, deadline)

    def _doubtful(self, segment: Segment) -> list[Blob]:
        """The blobs that may have been queued, and about which ADX can be asked before they are queued again.

        With an `ingest-by` tag there is nothing to ask: queueing twice changes nothing.
        """
        if self.settings.delivery == "exactly_once":
            return []
        staged = [blob for blob in segment.blobs if blob.kind == "rows" and blob.state == "staged"]
        return [blob for blob in staged if blob.metadata is not None]

    def _ask(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        doubtful = self._doubtful(opened.segment)
        wait_s = max((self.landed.batching_s(blob) for blob in doubtful), default=0.0)
        if opened.untouched_s <= wait_s + self.settings.doubt_margin_s:
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
        return settled is not None and self._queue(ledger, settled, deadline)

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

    def _queue(self, ledger: Ledger, opened: OpenSegment, deadline: Deadline) -> bool:
        claimed = ledger.claim(opened, self.claimer)
        if claimed is None or not self.queueing.finish(ledger, claimed, deadline):
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
        if self.settings.delivery == "exactly_once":
            return 0
        return sum(blob.rows for blob in segment.blobs if blob.kind == "rows" and blob.state == "staged")


def _table_of(blob: Blob) -> tuple[str, str]:
    return blob.db, blob.table
