"""What an invocation left unfinished is finished: staged segments are claimed and queued."""

from __future__ import annotations

import logging
from uuid import uuid4

from sinkcore.clock import Deadline
from sinkcore.ledger import Ledger, OpenSegment, topics
from sinkcore.sink import Sink
from sinkcore.telemetry import event

# Beyond the deadline of whoever last worked on a segment: by then it has given up, or will find that it must.
CLAIM_MARGIN_S = 30


def sweep(sink: Sink) -> int:
    """Every segment that somebody left behind is queued, as far as ADX takes it and time allows.

    Two sweepers at once are harmless: a segment is claimed under its ETag. Returns how many were finished.
    """
    deadline = Deadline.after(sink.clock, sink.settings.invocation_max_s)
    sweeper = uuid4().hex
    finished = 0
    for topic, group in topics(sink.table):
        ledger = Ledger(sink.table, group)
        for opened in ledger.open_segments():
            if deadline.is_past():
                return finished
            if opened.untouched_s > sink.settings.invocation_max_s + CLAIM_MARGIN_S:
                finished += _finish(sink, ledger, opened, sweeper, deadline, topic)
    return finished


def _finish(sink: Sink, ledger: Ledger, opened: OpenSegment, sweeper: str, deadline: Deadline, topic: str) -> bool:
    claimed = ledger.claim(opened, sweeper)
    if claimed is None or not sink.queueing.finish(ledger, claimed, deadline):
        return False
    event(
        "segment_swept",
        logging.WARNING,
        topic=topic,
        segment=claimed.segment.id,
        records=claimed.segment.records,
        attempts=claimed.segment.attempts,
        left_s=round(opened.committed_s),
    )
    return True
