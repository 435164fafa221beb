"""A blob whose data ADX refused: its records are read from Kafka again, checked again, and none is lost."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from sinkcore.clock import Deadline
from sinkcore.deadletters import NAME as DEAD_LETTERS_NAME
from sinkcore.deadletters import encode_dead_letters
from sinkcore.drain import STEP_BUDGET_S, STEP_BYTES, STEP_RECORDS
from sinkcore.encode import Body, encode
from sinkcore.errors import TransientError
from sinkcore.ledger_rows import OpenSegment
from sinkcore.queueing import dead_letters_path
from sinkcore.records import OffsetRange, Refused, Slice, record_of, slices_of
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


@dataclass(frozen=True, slots=True)
class Mending:
    """What mending needs beside the segment."""

    sink: Sink
    topic: Topic

    def mend(self, opened: OpenSegment, deadline: Deadline) -> OpenSegment | None:
        """Each refused blob is replaced by what can be queued of it and by dead letters, or else `failed`.

        None where it has to be tried again. What was refused is replaced once; what is refused then becomes dead
        letters as a whole. Nothing refers to the new blobs before the ledger does, so that who dies on the way
        leaves litter.
        """
        segment = opened.segment
        for blob in segment.blobs:
            if blob.state != "refused":
                continue
            try:
                added = self._replaced(segment, blob, deadline)
            except _NotMendableError as error:
                segment = segment.with_blob(replace(blob, state="failed"))
                _say(segment, blob, error, for_good=True)
            except TransientError as error:
                _say(segment, blob, error, for_good=False)
                return None
            else:
                segment = segment.with_blob(replace(blob, state="mended"))
                letters = sum(new.rows for new in added if new.kind == "dead_letters")
                segment = replace(
                    segment, blobs=(*segment.blobs, *added), dead_letters=segment.dead_letters + letters
                )
        return self.topic.ledger.note(opened, replace(segment, state=segment.outcome))

    def _replaced(self, segment: Segment, blob: Blob, deadline: Deadline) -> list[Blob]:
        """The blobs that hold the refused one's records, staged: those of the segment that its route takes."""
        if blob.kind == "dead_letters":
            raise _NotMendableError("its dead letters are gone, and the rest of it is with ADX")
        router = router_of(self.sink.settings.routes_of(segment.topic))
        route = router.leading_to(*_aim(blob))
        if route is None:
            raise _NotMendableError("the route that led to it is gone, or takes other records now")
        twins = [each for each in segment.blobs if _aim(each) == _aim(blob)]
        if any(each.state != "mended" for each in twins if each is not blob):
            raise _NotMendableError("its route made other blobs of the segment; which records are in it is open")
        if len(twins) > GONE_MAX:
            raise _NotMendableError(f"{len(twins)} blobs of it are gone, one after the other")
        events = self._records(segment, deadline)
        settled = self._dead_offsets(segment)
        unsettled = slices_of([each for each in events if (each.partition, each.offset) not in settled])
        parts = router.split(unsettled, self.sink.settings.record_max_bytes).parts
        slices = next((part.slices for part in parts if (part.digest, part.route) == (blob.route, route)), [])
        if blob.error != GONE and any(each.error != GONE for each in twins if each is not blob):
            return self._staged(segment, blob, [], _all_refused(slices, blob.error), route)
        encoded = encode(
            slices,
            replace(route, metadata=blob.metadata),
            segment_id=segment.id,
            record_max_bytes=self.sink.settings.record_max_bytes,
            blob_max_bytes=self.sink.settings.blob_max_bytes,
            schemas=self.sink.schemas,
        )
        return self._staged(segment, blob, encoded.bodies, encoded.refused, route)

    def _records(self, segment: Segment, deadline: Deadline) -> list[func.KafkaEvent]:
        """Every record of the segment, as Kafka has it now."""
        kafka, topic = self.sink.kafka, segment.topic
        state = kafka.topic(topic)
        if state is None or (state.id and segment.topic_id and state.id != segment.topic_id):
            raise _NotMendableError("its topic was deleted, or made again")
        events: list[func.KafkaEvent] = []
        for offsets in segment.ranges:
            at = offsets.first_offset
            while at < offsets.next_offset:
                answer = kafka.read(
                    topic,
                    {offsets.partition: (at, offsets.next_offset)},
                    budget_s=min(STEP_BUDGET_S, deadline.left_s()),
                    max_records=STEP_RECORDS,
                    max_bytes=STEP_BYTES,
                )[offsets.partition]
                if answer.why in ("past_end", "no_partition"):
                    raise _NotMendableError("its topic's log ends below it")
                if answer.next_offset <= at and self._ends_below(topic, offsets):
                    raise _NotMendableError("its topic's log ends below its last offset")
                if answer.next_offset <= at or deadline.is_past():
                    raise TransientError(f"{topic}: Kafka said {answer.why} at offset {at}; it is asked again")
                events += answer.events
                at = answer.next_offset
        if len(events) != segment.records:
            raise _NotMendableError(f"of its {segment.records} records Kafka has {len(events)}")
        return events

    def _ends_below(self, topic: str, offsets: OffsetRange) -> bool:
        """Whether the log was cut short inside the range: what comes there later is not what was there."""
        ends = self.sink.kafka.end_offsets(topic, [offsets.partition], committed_only=False)
        return ends.get(offsets.partition, offsets.next_offset) < offsets.next_offset

    def _dead_offsets(self, segment: Segment) -> set[tuple[int, int]]:
        """Partition and offset of the segment's dead letters."""
        letters = (
            msgspec.json.decode(line)
            for blob in segment.blobs
            if blob.kind == "dead_letters"
            for line in gzip.decompress(self._dead_letters(segment, blob)).splitlines()
        )
        return {(letter["partition"], letter["offset"]) for letter in letters}

    def _dead_letters(self, segment: Segment, blob: Blob) -> bytes:
        blobs, users = self.sink.blobs, self.sink.settings.dead_letters_container
        for container, path in ((blob.container, blob.path), (users, dead_letters_path(segment, blob))):
            if blobs.exists(container, path):
                return blobs.get(container, path)
        raise _NotMendableError("its dead letters are gone, so that nobody knows which records are rows")

    def _staged(
        self, segment: Segment, blob: Blob, bodies: Sequence[Body], refused: Sequence[Refused], route: Route
    ) -> list[Blob]:
        """The new blobs, uploaded under names that nobody has used: what a name holds never changes."""
        if refused and self.sink.settings.on_bad_record == "fail":
            raise _NotMendableError(f"{len(refused)} of its records are refused, and SINK_ON_BAD_RECORD is fail")
        now_ms = self.sink.clock.now_ms()
        token, first = self.sink.new_id(now_ms)[12:], len(segment.blobs)
        added = [(_rows_blob(segment, blob, first + n, token, body), body) for n, body in enumerate(bodies)]
        if refused:
            letters = encode_dead_letters([(route, each) for each in refused], now_ms)
            added.append((_letters_blob(segment, blob, token, letters), letters))
        new = [each for each, _ in added]
        if len(blobs_to_json((*segment.blobs, *new))) > PROPERTY_MAX_CHARS:
            raise _NotMendableError(f"its records become {len(bodies)} blobs, too many for its row")
        for each, body in added:
            self.sink.blobs.put(each.container, each.path, body.data)
        return new


def _aim(blob: Blob) -> tuple[str, str, str]:
    """What the blobs of one route and table have in common."""
    return blob.route, blob.db, blob.table


def _all_refused(slices: Iterable[Slice], code: str) -> list[Refused]:
    """Every record that ADX was sent; tombstones are not among them."""
    events = (each for piece in slices for each in piece.events if each.get_body())
    return [Refused(record_of(each), "refused_by_adx", code) for each in events]


def _rows_blob(segment: Segment, blob: Blob, index: int, token: str, body: Body) -> Blob:
    return replace(
        blob,
        path=blob_path(segment.topic, segment.id, f"/{index}-{token}.{blob.format}.gz"),
        rows=body.rows,
        raw_size_bytes=body.raw_size_bytes,
        stored_size_bytes=len(body.data),
        source_id=source_id_of(segment.id, index),
        state="unsent",
        error="",
        failures=0,
    )


def _letters_blob(segment: Segment, blob: Blob, token: str, body: Body) -> Blob:
    return Blob(
        kind="dead_letters",
        container=blob.container,
        path=blob_path(segment.topic, segment.id, f"/dead-letters-{token}{DEAD_LETTERS_NAME}"),
        rows=body.rows,
        raw_size_bytes=body.raw_size_bytes,
        stored_size_bytes=len(body.data),
        state="unsent",
    )


def _say(segment: Segment, blob: Blob, error: Exception, *, for_good: bool) -> None:
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
