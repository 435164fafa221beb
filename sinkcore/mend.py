"""A blob whose data ADX refused: its records are read from Kafka again, checked again, and none is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sinkcore.clock import Deadline
from sinkcore.deadletters import NAME as DEAD_LETTERS_NAME
from sinkcore.deadletters import dead_letters_in, encode_dead_letters
from sinkcore.drain import STEP_BUDGET_S, STEP_BYTES, STEP_RECORDS
from sinkcore.encode import Body, Encoded, encode
from sinkcore.errors import TransientError
from sinkcore.ledger_rows import OpenSegment
from sinkcore.queueing import dead_letters_path
from sinkcore.records import OffsetRange, Refused, record_of, slices_of
from sinkcore.routes import Route
from sinkcore.routing import router_of
from sinkcore.segment import GONE, Blob, Segment, blob_path, blobs_to_json, source_id_of
from sinkcore.sink import Sink, Topic
from sinkcore.table import PROPERTY_MAX_CHARS
from sinkcore.telemetry import event

if TYPE_CHECKING:
    import azure.functions as func


# So many blobs that are gone, each made again for the one before, and a person has to find out who deletes them.
GONE_MAX = 3


class _NotMendableError(Exception):
    """Nobody but a person can help; the message says why."""


def mend(sink: Sink, topic: Topic, opened: OpenSegment, deadline: Deadline) -> OpenSegment | None:
    """Each refused blob is replaced by what can be queued of it and by dead letters, or else `failed`.

    None where it has to be tried again. What was refused is replaced once; what is refused then becomes dead
    letters as a whole. Nothing refers to the new blobs before the ledger does, so that who dies on the way
    leaves litter.
    """
    segment = opened.segment
    for blob in [each for each in segment.blobs if each.state == "refused"]:
        try:
            added = _replaced(sink, segment, blob, deadline)
        except (_NotMendableError, TransientError) as error:
            for_good = isinstance(error, _NotMendableError)
            event(
                "blob_not_mended",
                logging.ERROR if for_good else logging.WARNING,
                topic=segment.topic,
                segment=segment.id,
                db=blob.db,
                table=blob.table,
                code=blob.error,
                error=str(error),
                for_good=for_good,
            )
            if not for_good:
                return None
            segment = segment.with_blob(replace(blob, state="failed"))
        else:
            segment = segment.with_blob(replace(blob, state="mended"))
            letters = sum(new.rows for new in added if new.kind == "dead_letters")
            segment = replace(segment, blobs=(*segment.blobs, *added), dead_letters=segment.dead_letters + letters)
    return topic.ledger.note(opened, replace(segment, state=segment.outcome))


def _replaced(sink: Sink, segment: Segment, blob: Blob, deadline: Deadline) -> list[Blob]:
    """The blobs that hold the refused one's records, staged: those of the segment that its route takes."""
    if blob.kind == "dead_letters":
        raise _NotMendableError("its dead letters are gone, and the rest of it is with ADX")
    settings = sink.settings
    router = router_of(settings.routes_of(segment.topic))
    route = router.leading_to(*_aim(blob))
    if route is None:
        raise _NotMendableError("the route that led to it is gone, or takes other records now")
    twins = [each for each in segment.blobs if _aim(each) == _aim(blob) and each is not blob]
    if any(each.state != "mended" for each in twins):
        raise _NotMendableError("its route made other blobs of the segment; which records are in it is open")
    if len(twins) >= GONE_MAX:
        raise _NotMendableError(f"{len(twins) + 1} blobs of it are gone, one after the other")
    events = _records(sink, segment, deadline)
    settled = _dead_offsets(sink, segment)
    unsettled = slices_of([each for each in events if (each.partition, each.offset) not in settled])
    parts = router.split(unsettled, settings.record_max_bytes).parts
    slices = next((part.slices for part in parts if (part.digest, part.route) == (blob.route, route)), [])
    if blob.error != GONE and any(each.error != GONE for each in twins):
        # Every record that ADX was sent; tombstones are not among them.
        sent = [each for piece in slices for each in piece.events if each.get_body()]
        encoded = Encoded([], [Refused(record_of(each), "refused_by_adx", blob.error) for each in sent], 0, 0)
    else:
        encoded = encode(
            slices,
            replace(route, metadata=blob.metadata),
            segment_id=segment.id,
            record_max_bytes=settings.record_max_bytes,
            blob_max_bytes=settings.blob_max_bytes,
            schemas=sink.schemas,
        )
    return _staged(sink, segment, blob, encoded, route)


def _records(sink: Sink, segment: Segment, deadline: Deadline) -> list[func.KafkaEvent]:
    """Every record of the segment, as Kafka has it now."""
    state = sink.kafka.topic(segment.topic)
    if state is None or (state.id and segment.topic_id and state.id != segment.topic_id):
        raise _NotMendableError("its topic was deleted, or made again")
    events = [each for offsets in segment.ranges for each in _read(sink, segment.topic, offsets, deadline)]
    if len(events) != segment.records:
        raise _NotMendableError(f"of its {segment.records} records Kafka has {len(events)}")
    return events


def _read(sink: Sink, topic: str, offsets: OffsetRange, deadline: Deadline) -> Iterator[func.KafkaEvent]:
    partition, at, end = offsets.partition, offsets.first_offset, offsets.next_offset
    while at < end:
        answer = sink.kafka.read(
            topic,
            {partition: (at, end)},
            budget_s=min(STEP_BUDGET_S, deadline.left_s()),
            max_records=STEP_RECORDS,
            max_bytes=STEP_BYTES,
        )[partition]
        if answer.why in ("past_end", "no_partition"):
            raise _NotMendableError("its topic's log ends below it")
        if answer.next_offset <= at:
            # Where the log was cut short inside the range, what comes there later is not what was there.
            ends = sink.kafka.end_offsets(topic, [partition], committed_only=False)
            if ends.get(partition, end) < end:
                raise _NotMendableError("its topic's log ends below its last offset")
        if answer.next_offset <= at or deadline.is_past():
            raise TransientError(f"{topic}: Kafka said {answer.why} at offset {at}; it is asked again")
        yield from answer.events
        at = answer.next_offset


def _dead_offsets(sink: Sink, segment: Segment) -> set[tuple[int, int]]:
    """Partition and offset of the segment's dead letters."""
    found: set[tuple[int, int]] = set()
    for blob in segment.blobs:
        if blob.kind == "dead_letters":
            users = sink.settings.dead_letters_container, dead_letters_path(segment, blob)
            where = next((w for w in ((blob.container, blob.path), users) if sink.blobs.exists(*w)), None)
            if where is None:
                raise _NotMendableError("its dead letters are gone, so that nobody knows which records are rows")
            found |= {(each.partition, each.offset) for each in dead_letters_in(sink.blobs.get(*where))}
    return found


def _staged(sink: Sink, segment: Segment, blob: Blob, encoded: Encoded, route: Route) -> list[Blob]:
    """The new blobs, uploaded under names that nobody has used: what a name holds never changes."""
    bodies, refused = encoded.bodies, encoded.refused
    if refused and sink.settings.on_bad_record == "fail":
        raise _NotMendableError(f"{len(refused)} of its records are refused, and SINK_ON_BAD_RECORD is fail")
    now_ms = sink.clock.now_ms()
    token = sink.new_id(now_ms)[12:]
    added: list[tuple[Blob, Body]] = []
    for index, body in enumerate(bodies, len(segment.blobs)):
        made = replace(blob, source_id=source_id_of(segment.id, index), error="", failures=0)
        added.append((_holding(body, made, segment, f"/{index}-{token}.{blob.format}.gz"), body))
    if refused:
        letters = encode_dead_letters([(route, each) for each in refused], now_ms)
        made = Blob("dead_letters", blob.container, "", 0, 0, 0)
        added.append((_holding(letters, made, segment, f"/dead-letters-{token}{DEAD_LETTERS_NAME}"), letters))
    new = [each for each, _ in added]
    if len(blobs_to_json((*segment.blobs, *new))) > PROPERTY_MAX_CHARS:
        raise _NotMendableError(f"its records become {len(bodies)} blobs, too many for its row")
    for each, body in added:
        sink.blobs.put(each.container, each.path, body.data)
    return new


def _aim(blob: Blob) -> tuple[str, str, str]:
    """What the blobs of one route and table have in common."""
    return blob.route, blob.db, blob.table


def _holding(body: Body, blob: Blob, segment: Segment, name: str) -> Blob:
    return replace(
        blob,
        path=blob_path(segment.topic, segment.id, name),
        rows=body.rows,
        raw_size_bytes=body.raw_size_bytes,
        stored_size_bytes=len(body.data),
        state="unsent",
    )
