"""The way of a committed segment into ADX's queue, the same for an invocation and for the sweeper."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from sinkcore.clock import Deadline
from sinkcore.deadletters import NAME as DEAD_LETTERS_NAME
from sinkcore.deadletters import dead_letters_in
from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.ingest import QUEUE_TIMEOUT_S, IngestionQueue
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import OpenSegment
from sinkcore.segment import Blob, BlobState, Segment, blob_path
from sinkcore.staging import Blobs
from sinkcore.telemetry import event


@dataclass(frozen=True, slots=True)
class Queueing:
    """What queueing needs beside the segment."""

    blobs: Blobs
    queue: IngestionQueue
    executor: Executor
    dead_letters_container: str
    confirm: bool

    def finish(
        self, ledger: Ledger, opened: OpenSegment, deadline: Deadline, bodies: Mapping[str, bytes] | None = None
    ) -> bool:
        """Every blob that is due is queued and the ledger says so; False where something is left to do.

        The states of the segment's blobs are what is known before this attempt; the ledger has them as `staged`
        meanwhile. `bodies` holds content by path, for who has it at hand. What fails is left to the sweeper, with
        what is known of each blob: the records are safe, since the segment is committed.
        """
        segment = opened.segment
        queue_one = partial(self._queue, segment, deadline, bodies)
        due = [blob for blob in segment.blobs if blob.is_due]
        # A hop through the executor costs more than it saves for a single blob.
        states = map(queue_one, due) if len(due) < 2 else self.executor.map(queue_one, due)
        noted = segment.with_blob_states(dict(zip((blob.path for blob in due), states, strict=True)))
        if any(blob.is_due for blob in noted.blobs):
            ledger.note(opened, noted)
            return False
        stays_open = noted.outcome != "queued" or self.confirms(noted)
        if ledger.finish(opened, noted, noted.outcome, stays_open=stays_open):
            return True
        event("segment_not_marked", logging.WARNING, topic=segment.topic, segment=segment.id)
        return False

    def confirms(self, segment: Segment) -> bool:
        """Whether the segment stays open until ADX says that it has landed."""
        return self.confirm and segment.tells_itself

    def _queue(
        self, segment: Segment, deadline: Deadline, bodies: Mapping[str, bytes] | None, blob: Blob
    ) -> BlobState:
        if deadline.is_past():
            return blob.state
        try:
            if blob.kind == "dead_letters":
                self._put_dead_letters(segment, blob, bodies)
            else:
                url = self.blobs.url_for_adx(blob.container, blob.path)
                self.queue.queue(blob, url, min(QUEUE_TIMEOUT_S, deadline.left_s()))
        except (TransientError, OutcomeUnknownError) as error:
            event(
                "blob_left_staged",
                logging.WARNING,
                topic=segment.topic,
                segment=segment.id,
                db=blob.db,
                table=blob.table,
                error=str(error),
            )
            return "staged" if isinstance(error, OutcomeUnknownError) else blob.state
        return "queued"

    def _put_dead_letters(self, segment: Segment, blob: Blob, bodies: Mapping[str, bytes] | None) -> None:
        data = bodies[blob.path] if bodies else self.blobs.get(blob.container, blob.path)
        path = dead_letters_path(segment, blob)
        self.blobs.put(self.dead_letters_container, path, data)
        event(
            "dead_letters_written",
            logging.WARNING,
            topic=segment.topic,
            dead_letters=blob.rows,
            reasons=Counter(letter.reason for letter in dead_letters_in(data)).most_common(),
            path=path,
        )


def dead_letters_path(segment: Segment, blob: Blob) -> str:
    """Where these dead letters are in the users' container.

    Those that became dead letters when ADX had refused them are a blob of their own, after the first.
    """
    number = sum(each.kind == "dead_letters" for each in segment.blobs[: segment.blobs.index(blob)])
    name = f"-{number}{DEAD_LETTERS_NAME}" if number else DEAD_LETTERS_NAME
    return blob_path(segment.topic, segment.id, name)
