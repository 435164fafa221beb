"""The way of a committed segment into ADX's queue, the same for an invocation and for the sweeper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from sinkcore.clock import Deadline
from sinkcore.deadletters import NAME as DEAD_LETTERS_NAME
from sinkcore.deadletters import reasons_in
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

        def queue_one(blob: Blob) -> BlobState:
            return self._queue(opened.segment, blob, deadline, bodies)

        waiting = [blob for blob in opened.segment.blobs if blob.is_due]
        states = dict(zip((b.path for b in waiting), self._run(queue_one, waiting), strict=True))
        segment = opened.segment.with_blob_states(states)
        if any(blob.is_due for blob in segment.blobs):
            ledger.note(opened, segment)
            return False
        stays_open = segment.outcome != "queued" or self.confirms(segment)
        if ledger.finish(opened, segment, segment.outcome, stays_open=stays_open):
            return True
        event("segment_not_marked", logging.WARNING, topic=segment.topic, segment=segment.id)
        return False

    def confirms(self, segment: Segment) -> bool:
        """Whether the segment stays open until ADX says that it has landed."""
        return self.confirm and segment.tells_itself

    def has_dead_letters(self, segment: Segment, blob: Blob) -> bool:
        """Whether these dead letters are in the users' container already."""
        return self.blobs.exists(self.dead_letters_container, dead_letters_path(segment, blob))

    def _run(self, call: Callable[[Blob], BlobState], blobs: list[Blob]) -> list[BlobState]:
        # A hop through the executor costs more than it saves for a single blob.
        return [call(blob) for blob in blobs] if len(blobs) < 2 else list(self.executor.map(call, blobs))

    def _queue(
        self, segment: Segment, blob: Blob, deadline: Deadline, bodies: Mapping[str, bytes] | None
    ) -> BlobState:
        if deadline.is_past():
            return blob.state
        try:
            if blob.kind == "dead_letters":
                self._put_dead_letters(segment, blob, bodies)
            else:
                url = self.blobs.url_for_adx(blob.container, blob.path)
                self.queue.queue(blob, url, min(QUEUE_TIMEOUT_S, deadline.left_s()))
        except TransientError as error:
            _left(segment, blob, error)
            return blob.state
        except OutcomeUnknownError as error:
            _left(segment, blob, error)
            return "staged"
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
            reasons=reasons_in(data),
            path=path,
        )


def dead_letters_path(segment: Segment, blob: Blob) -> str:
    """Where these dead letters are in the users' container.

    Those that became dead letters when ADX had refused them are a blob of their own, after the first.
    """
    number = sum(each.kind == "dead_letters" for each in segment.blobs[: segment.blobs.index(blob)])
    name = f"-{number}{DEAD_LETTERS_NAME}" if number else DEAD_LETTERS_NAME
    return blob_path(segment.topic, segment.id, name)


def _left(segment: Segment, blob: Blob, error: Exception) -> None:
    event(
        "blob_left_staged",
        logging.WARNING,
        topic=segment.topic,
        segment=segment.id,
        db=blob.db,
        table=blob.table,
        error=str(error),
    )
