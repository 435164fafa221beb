"""Committed blobs that are gone before ADX had them: what they held is read from Kafka once more."""

from __future__ import annotations

import logging
from dataclasses import replace

from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import REOPENED, REPLAY, Gap, OpenSegment
from sinkcore.queueing import Queueing
from sinkcore.segment import GONE, Blob, BlobState, Segment
from sinkcore.telemetry import event


def gone_of(queueing: Queueing, segment: Segment, *, tagged: bool) -> list[Blob]:
    """The blobs that are to be queued and are not in storage any more.

    With an `ingest-by` tag one in doubt is none of them: ADX itself says whether it has it, or could not read it.
    """
    due = [blob for blob in segment.blobs if blob.is_due and not (tagged and blob.state == "staged")]
    return [blob for blob in due if not queueing.blobs.exists(blob.container, blob.path)]


def reopen(
    ledger: Ledger, opened: OpenSegment, gone: list[Blob], queueing: Queueing, *, topic_id: str, tagged: bool
) -> OpenSegment | None:
    """The segment is no more and its ranges are gaps, and None; or it stays, without what is gone.

    | of the other blobs                     | the segment                                                   |
    |----------------------------------------|---------------------------------------------------------------|
    | ADX can have none                      | is no more: its ranges are gaps, in one transaction           |
    | ADX has some, or may have              | stays; each blob that is gone is made again, as one refused   |
    | the topic was made again, or no ranges | likewise, which ends as `failed`: Kafka does not have them    |

    Dead letters that are in the users' container already are not gone.
    """
    segment = opened.segment
    known: set[BlobState] = {"unsent"} if tagged else {"unsent", "staged"}
    letters = [blob for blob in segment.blobs if blob.kind == "dead_letters"]
    # Who put them there may have died before the ledger said so; as gaps they would be there a second time.
    untouched = all(blob.state in known for blob in segment.blobs) and not any(
        queueing.has_dead_letters(segment, blob) for blob in letters
    )
    event(
        "staged_blobs_gone",
        logging.ERROR,
        topic=segment.topic,
        segment=segment.id,
        blobs=len(gone),
        ranges=[[r.partition, r.first_offset, r.next_offset] for r in segment.ranges],
        rows_perhaps_repeated=sum(b.rows for b in segment.blobs if b.kind == "rows" and b.state == "staged"),
    )
    if untouched and segment.ranges and segment.topic_id == topic_id:
        why = REPLAY if segment.replay else REOPENED
        ledger.reopen_as_gaps(
            opened, [Gap(r.partition, r.first_offset, r.next_offset, why) for r in segment.ranges]
        )
        return None
    for blob in gone:
        if blob.kind == "dead_letters" and queueing.has_dead_letters(segment, blob):
            segment = segment.with_blob(replace(blob, state="queued"))
        else:
            segment = segment.with_blob(replace(blob, state="refused", error=GONE))
    return ledger.note(opened, replace(segment, state=segment.outcome))
