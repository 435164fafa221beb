"""Committed blobs that are gone before ADX had them: what they held is read from Kafka once more."""

from __future__ import annotations

import logging
from dataclasses import replace

from sinkcore.ledger_rows import REOPENED, REPLAY, Gap, OpenSegment
from sinkcore.queueing import dead_letters_path
from sinkcore.segment import GONE, Blob, BlobState, Segment
from sinkcore.sink import Sink, Topic
from sinkcore.telemetry import event


def gone_of(sink: Sink, segment: Segment) -> list[Blob]:
    """The blobs that are to be queued and are not in storage any more.

    With an `ingest-by` tag one in doubt is none of them: ADX itself says whether it has it, or could not read it.
    """
    due = [blob for blob in segment.blobs if blob.state in _unqueued(sink)]
    return [blob for blob in due if not sink.blobs.exists(blob.container, blob.path)]


def reopen(sink: Sink, topic: Topic, opened: OpenSegment, gone: list[Blob]) -> OpenSegment | None:
    """The segment is no more and its ranges are gaps, and None; or it stays, without what is gone.

    | of the other blobs                     | the segment                                                   |
    |----------------------------------------|---------------------------------------------------------------|
    | ADX can have none                      | is no more: its ranges are gaps, in one transaction           |
    | ADX has some, or may have              | stays; each blob that is gone is made again, as one refused   |
    | the topic was made again, or no ranges | likewise, which ends as `failed`: Kafka does not have them    |

    Dead letters that are in the users' container already are not gone.
    """
    segment = opened.segment
    # Who put them there may have died before the ledger said so; as gaps they would be there a second time.
    users = sink.settings.dead_letters_container
    letters = [blob for blob in segment.blobs if blob.kind == "dead_letters"]
    put = [blob for blob in letters if sink.blobs.exists(users, dead_letters_path(segment, blob))]
    event(
        "staged_blobs_gone",
        logging.ERROR,
        topic=segment.topic,
        segment=segment.id,
        blobs=len(gone),
        ranges=[[r.partition, r.first_offset, r.next_offset] for r in segment.ranges],
        rows_perhaps_repeated=rows_in_doubt(segment),
    )
    untouched = not put and all(blob.state in _unqueued(sink) for blob in segment.blobs)
    if untouched and segment.ranges and segment.topic_id == topic.row.topic_id:
        why = REPLAY if segment.replay else REOPENED
        topic.ledger.reopen_as_gaps(
            opened, [Gap(r.partition, r.first_offset, r.next_offset, why) for r in segment.ranges]
        )
        return None
    for blob in gone:
        now = replace(blob, state="queued") if blob in put else replace(blob, state="refused", error=GONE)
        segment = segment.with_blob(now)
    return topic.ledger.note(opened, replace(segment, state=segment.outcome))


def _unqueued(sink: Sink) -> set[BlobState]:
    """The states of blobs that ADX has not, or of which nobody will ever know."""
    return {"unsent"} if sink.settings.delivery == "exactly_once" else {"unsent", "staged"}


def rows_in_doubt(segment: Segment) -> int:
    """How many rows ADX may have, for all that is known."""
    return sum(blob.rows for blob in segment.blobs if blob.kind == "rows" and blob.state == "staged")
