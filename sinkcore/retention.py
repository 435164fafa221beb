"""What nobody needs any more is removed: final segments with their blobs, and blobs that no segment names."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from sinkcore.clock import Deadline
from sinkcore.ledger_rows import Position
from sinkcore.segment import Blob, Segment, folder_of, started_ms
from sinkcore.sink import Sink, Topic
from sinkcore.telemetry import event
from sinkcore.transaction import OPERATIONS_MAX

# So many segments a topic and sweep, where a busy topic makes 60 between two sweeps, in so many transactions.
SEGMENTS_MAX = 2000
ROUNDS_MAX = 50
# Litter is looked for on as many days past the limit: whoever was off for longer leaves some, which costs little.
LITTER_DAYS = 3
DAY_MS = 24 * 3600 * 1000


def remove_old(sink: Sink, topic: Topic, turn: Deadline) -> bool:
    """Segments older than SINK_STAGED_BLOB_TTL_DAYS that are final are gone, blobs first, and so is old litter.

    `failed` ones stay, and so do their blobs. `kept_from` moves above what was removed. False where more is left
    than fits a turn.
    """
    kept_ms = sink.settings.staged_blob_ttl_days * DAY_MS
    before_ms = sink.clock.now_ms() - kept_ms
    unfinished = topic.ledger.open_ids()
    final = (
        (segment, etag)
        for segment, etag in topic.ledger.old_segments(before_ms, kept_ms / 1000)
        if segment.state in ("landed", "queued") and segment.id not in unfinished
    )
    found = left = list(islice(final, SEGMENTS_MAX))
    for _ in range(ROUNDS_MAX):
        if left and not turn.is_past():
            left = left[_forget(sink, topic, left) :]
    if left or len(found) == SEGMENTS_MAX:
        return False
    _remove_litter(sink, topic, before_ms, turn)
    return not turn.is_past()


def _forget(sink: Sink, topic: Topic, final: list[tuple[Segment, str]]) -> int:
    """As many of the segments as fit a transaction are gone; how many, none if a position has moved meanwhile."""
    positions = topic.ledger.positions()
    moved: dict[int, Position] = {}
    rows: list[tuple[str, str]] = []
    blobs: list[Blob] = []
    for segment, etag in final:
        # Offsets of a topic of that name that is no more are none of the positions'.
        ends = {
            r.partition: r.next_offset
            for r in segment.ranges
            if r.partition in positions and positions[r.partition].topic_id == segment.topic_id
        }
        if len(rows) + 1 + len(moved | ends) > OPERATIONS_MAX:
            break
        rows.append((segment.id, etag))
        blobs += segment.blobs
        for partition, end in ends.items():
            position = moved.get(partition, positions[partition])
            moved[partition] = replace(position, kept_from=max(position.kept_from, end))
    for _ in sink.executor.map(lambda blob: sink.blobs.delete(blob.container, blob.path), blobs):
        pass
    if not topic.ledger.forget(rows, list(moved.values())):
        return 0
    event("segments_removed", topic=topic.name, segments=len(rows))
    return len(rows)


def _remove_litter(sink: Sink, topic: Topic, before_ms: int, turn: Deadline) -> None:
    """Blobs of segments that were never committed, as old as final ones may be.

    None from before the ledger knew the topic: where a ledger was lost, such a blob may be somebody's only copy.
    """
    removed = 0
    newest = datetime.fromtimestamp(before_ms / 1000, UTC).date() - timedelta(days=1)
    for day in (newest - timedelta(days=n) for n in range(LITTER_DAYS)):
        for path in sink.blobs.names(sink.settings.staging_container, folder_of(topic.name, day)):
            segment_id = path.split("/")[-2]
            if turn.is_past():
                return
            if started_ms(segment_id) > topic.row.started_ms and topic.ledger.segment(segment_id) is None:
                sink.blobs.delete(sink.settings.staging_container, path)
                removed += 1
    if removed:
        event("litter_removed", topic=topic.name, blobs=removed)
