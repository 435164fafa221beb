"""Offsets that the host stepped over or never delivered, read from Kafka and taken as a batch is."""

from __future__ import annotations

import logging
from dataclasses import replace

from sinkcore.clock import Deadline
from sinkcore.cursors import drained
from sinkcore.ledger_rows import RELEASED, REPLAY, Cursor, Gap
from sinkcore.records import slice_of
from sinkcore.sink import Sink, Topic
from sinkcore.telemetry import event, range_facts

# One step is one segment: as much as a full batch of the trigger.
STEP_RECORDS = 5_000
STEP_BYTES = 64 * 1024 * 1024
STEP_BUDGET_S = 10.0
# A drain has a worker, Kafka and storage in common with live batches: behind each step it rests for this share of
# what the step took, so that they come through.
REST_SHARE = 0.5
REST_MAX_S = 1.0


def drain_gaps(sink: Sink, topic: Topic, deadline: Deadline, turn: Deadline) -> list[Gap]:
    """The topic's gaps, which are settled as far as its turn goes, those first that were tried the least.

    A gap above SINK_GAP_MAX_RECORDS is held until a person decides.
    """
    gaps = _below_positions(topic)
    for gap in sorted(gaps, key=lambda gap: (gap.tries, gap.key)):
        size = gap.end_offset - gap.next_offset
        if gap.held or turn.is_past() or is_held_back(sink, topic):
            continue
        if size > sink.settings.gap_max_records and gap.why not in (RELEASED, REPLAY):
            topic.ledger.move([replace(gap, held=True)])
            offsets = gap.partition, gap.next_offset, gap.end_offset
            event("gap_held", logging.ERROR, topic=topic.name, **range_facts(*offsets))
            continue
        drain(sink, topic, gap, gap.end_offset, deadline, turn)
    return gaps


def _below_positions(topic: Topic) -> list[Gap]:
    """The gaps, but those that go on above their partition's position: these end there from the next sweep on.

    One that was a segment until its blobs were gone does, where the log was cut short meanwhile: what is written
    at those offsets from now on comes with the position.
    """
    gaps = topic.ledger.gaps()
    at = {p: position.next_offset for p, position in topic.ledger.positions().items()} if gaps else {}
    above = [gap for gap in gaps if gap.end_offset > at.get(gap.partition, gap.end_offset)]
    for gap in above:
        below = replace(gap, end_offset=max(gap.next_offset, at[gap.partition]))
        if topic.ledger.move([below]):
            offsets = gap.partition, below.next_offset, below.end_offset
            event("log_truncated", logging.ERROR, topic=topic.name, **range_facts(*offsets))
    return [gap for gap in gaps if gap not in above]


def drain(sink: Sink, topic: Topic, cursor: Cursor, end: int, deadline: Deadline, turn: Deadline) -> int:
    """`cursor` is moved towards `end`, a step a commit, until something stops it: time, ADX, Kafka, or another.

    No step begins after the topic's `turn`; the last one may go on until the sweep's `deadline`. Returns how many
    records were found.

    Raises:
        TransientError: Kafka or storage did not answer.
    """
    step = STEP_RECORDS
    first, reached, records = cursor.next_offset, cursor.next_offset, 0
    while cursor.next_offset < end and not turn.is_past() and not is_held_back(sink, topic):
        began = Deadline.after(sink.clock, STEP_BUDGET_S)
        answer = sink.kafka.read(
            topic.name,
            {cursor.partition: (cursor.next_offset, end)},
            budget_s=min(STEP_BUDGET_S, deadline.left_s()),
            max_records=step,
            max_bytes=STEP_BYTES,
        )[cursor.partition]
        settled = min(answer.next_offset, end)
        if answer.why == "past_end" and isinstance(cursor, Gap):
            settled = end
            offsets = cursor.partition, cursor.next_offset, end
            event("log_truncated", logging.ERROR, topic=topic.name, **range_facts(*offsets))
        if settled <= cursor.next_offset:
            if isinstance(cursor, Gap):
                topic.ledger.move([replace(cursor, tries=cursor.tries + 1)])
            break
        found = slice_of(cursor.partition, answer.events)
        if answer.lost:
            # Before the commit: who dies behind it could not say it. Who does not get through says it again.
            event(
                "records_lost_to_retention",
                logging.ERROR,
                topic=topic.name,
                partition=cursor.partition,
                first_offset=cursor.next_offset,
                records=answer.lost,
            )
        taken = sink.take(topic, drained(cursor, found, settled, answer.lost), deadline)
        if taken is None:
            step = max(1, step // 2)
            continue
        if not taken:
            break
        reached, records = settled, records + len(found.offsets)
        if not answer.lost and not found.offsets and answer.why == "settled":
            sink.mark_sparse(topic)
        moved = topic.ledger.cursor(cursor)
        if moved is None:
            break
        cursor = moved
        if cursor.next_offset < end:
            sink.clock.rest(min(turn.left_s(), REST_MAX_S, REST_SHARE * began.spent_s()))
    if isinstance(cursor, Gap) and reached > first:
        event("gap_repaired", topic=topic.name, **range_facts(cursor.partition, first, reached))
    return records


def is_held_back(sink: Sink, topic: Topic) -> bool:
    """Whether so much waits for ADX that nothing more is taken."""
    return topic.row.pending >= sink.settings.pending_max
