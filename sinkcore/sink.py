"""The life of a batch: the order of its steps, and every decision to try again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sinkcore.clock import Clock, Deadline
from sinkcore.cursors import Move, groups_of, halves_of, moves_of
from sinkcore.deadletters import NAME as DEAD_LETTERS_NAME
from sinkcore.deadletters import encode_dead_letters
from sinkcore.encode import Body, Encoded, encode
from sinkcore.errors import OutcomeUnknownError, PositionMovedError, RecordError, TransientError
from sinkcore.ingest import IngestionQueue
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import OpenSegment, Position, TopicRow
from sinkcore.queueing import Queueing
from sinkcore.records import OffsetRange, Slice, slices_of
from sinkcore.routes import Route
from sinkcore.segment import Blob, Segment, blob_path, blobs_to_json, new_segment_id, source_id_of
from sinkcore.settings import Settings
from sinkcore.staging import Blobs
from sinkcore.table import PROPERTY_MAX_CHARS, Table
from sinkcore.telemetry import event

if TYPE_CHECKING:
    import azure.functions as func

# Each conflict is somebody else's progress; who meets three in a row lets the host hand the batch over again.
ROUNDS_MAX = 3
# Every kind of JSON leaves as one object a line.
STORED_FORMAT = "json"


@dataclass(slots=True)
class Topic:
    """A topic as this worker knows it; `positions` are None until they are read."""

    name: str
    ledger: Ledger
    positions: dict[int, Position] | None = None


@dataclass(frozen=True, slots=True)
class Staged:
    """A segment whose bodies lie in the staging container, and what was in them."""

    segment: Segment
    bodies: dict[str, bytes]


@dataclass(slots=True)
class Sink:
    """Delivers batches; one for each worker process, used by one thread a topic at a time."""

    settings: Settings
    table: Table
    blobs: Blobs
    queue: IngestionQueue
    clock: Clock
    executor: Executor
    _topics: dict[str, Topic] = field(default_factory=dict)

    def deliver(self, topic: str, events: Sequence[func.KafkaEvent]) -> None:
        """Every record of the batch is in the ledger: in a segment, a dead letter or a gap, exactly once.

        Records that were taken before are dropped. What is committed but not yet queued is left to the sweeper.

        Raises:
            TransientError: nothing more was taken; the host hands the batch over again.
            OutcomeUnknownError: likewise, and the next delivery will find out.
            RecordError: a record was refused and SINK_ON_BAD_RECORD is `fail`.
        """
        deadline = Deadline.after(self.clock, self.settings.invocation_max_s)
        known = self._topic(topic)
        slices = slices_of(events)
        for group in groups_of(self._moves(known, slices)):
            partitions = {move.cursor.partition for move in group}
            self._deliver(known, [s for s in slices if s.partition in partitions], group, deadline)

    @property
    def queueing(self) -> Queueing:
        """How a committed segment gets into ADX's queue."""
        return Queueing(self.blobs, self.queue, self.executor, self.settings.dead_letters_container)

    def _topic(self, name: str) -> Topic:
        known = self._topics.get(name)
        if known is None:
            known = Topic(name, Ledger(self.table, self.settings.kafka.group_of(name)))
            (route,) = self.settings.routes_of(name)
            known.ledger.start(TopicRow(name, "", 0, route.start))
            self._topics[name] = known
        return known

    def _moves(self, topic: Topic, slices: Sequence[Slice]) -> list[Move]:
        """What is left to take, by positions from this worker's memory where those explain the batch.

        A partition may have been elsewhere meanwhile, so that a hole is believed only after a look at the ledger.
        """
        cached = topic.positions
        if cached is not None and all(s.partition in cached for s in slices):
            moves = moves_of(slices, cached)
            if all(move.gap is None for move in moves):
                return moves
        topic.positions = topic.ledger.positions()
        return moves_of(slices, topic.positions)

    def _deliver(self, topic: Topic, slices: Sequence[Slice], moves: Sequence[Move], deadline: Deadline) -> None:
        """`moves`, what is left of `slices` as far as we know, is committed as one segment, and queued."""
        staged: Staged | None = None
        for _ in range(ROUNDS_MAX):
            if not moves:
                return
            if staged is None or staged.segment.ranges != _ranges(moves):
                staged = self._stage(topic, moves)
            if staged is None:
                self._deliver_halves(topic, slices, deadline)
                return
            opened = self._commit(topic, staged, moves, deadline)
            if opened is not None:
                self._finish(topic, opened, staged, deadline)
                return
            moves = self._moves(topic, slices)
        raise TransientError(
            f"{topic.name}: {ROUNDS_MAX} commits met another invocation's; the host hands the batch over again"
        )

    def _deliver_halves(self, topic: Topic, slices: Sequence[Slice], deadline: Deadline) -> None:
        halves = halves_of(slices)
        assert halves is not None, "one record became more blobs than a segment can name"
        for half in halves:
            self._deliver(topic, half, self._moves(topic, half), deadline)

    def _stage(self, topic: Topic, moves: Sequence[Move]) -> Staged | None:
        """The moves' records as a segment whose bodies are uploaded; None if it would have too many blobs."""
        segment_id = new_segment_id(self.clock.now_ms())
        (route,) = self.settings.routes_of(topic.name)
        encoded = encode(
            [move.taken for move in moves],
            route,
            segment_id=segment_id,
            record_max_bytes=self.settings.record_max_bytes,
            blob_max_bytes=self.settings.blob_max_bytes,
        )
        self._check(topic, encoded)
        blobs = [self._rows_blob(topic, segment_id, n, route, body) for n, body in enumerate(encoded.bodies)]
        bodies = [body.data for body in encoded.bodies]
        if encoded.refused:
            letters = encode_dead_letters([(route, r) for r in encoded.refused], self.clock.now_ms())
            blobs.append(self._dead_letters_blob(topic, segment_id, letters))
            bodies.append(letters.data)
        if len(blobs_to_json(tuple(blobs))) > PROPERTY_MAX_CHARS:
            return None
        by_path = {blob.path: data for blob, data in zip(blobs, bodies, strict=True)}
        self._upload(by_path)
        records = sum(len(move.taken.offsets) for move in moves)
        segment = Segment(segment_id, topic.name, _ranges(moves), tuple(blobs), records, len(encoded.refused))
        return Staged(segment, by_path)

    def _check(self, topic: Topic, encoded: Encoded) -> None:
        """The batch may go on: no record was refused, or the app is set to go on without those."""
        if encoded.large_records:
            event("large_records", logging.WARNING, topic=topic.name, records=encoded.large_records)
        if self.settings.on_bad_record != "fail":
            return
        bad = [refused for refused in encoded.refused if refused.reason != "tombstone"]
        if bad:
            first = bad[0]
            raise RecordError(
                f"{topic.name}: {len(bad)} records refused, the first at partition {first.record.partition} "
                f"offset {first.record.offset}: {first.reason}, {first.detail}; mend the producer and skip them, "
                "or set SINK_ON_BAD_RECORD=dead_letter"
            )

    def _upload(self, bodies: Mapping[str, bytes]) -> None:
        def put(path: str) -> None:
            self.blobs.put(self.settings.staging_container, path, bodies[path])

        # A hop through the executor costs more than it saves for a single body.
        for _ in map(put, bodies) if len(bodies) < 2 else self.executor.map(put, bodies):
            pass

    def _commit(
        self, topic: Topic, staged: Staged, moves: Sequence[Move], deadline: Deadline
    ) -> OpenSegment | None:
        """The moment of truth: the segment and its positions are in the ledger; None if a position had moved.

        Past the deadline it is not attempted: blobs of a process that was frozen may have been swept meanwhile.
        """
        if deadline.is_past():
            raise TransientError(
                f"{topic.name}: {deadline.spent_s():.0f} s after its start the batch is not committed any more "
                f"(SINK_INVOCATION_MAX_S is {deadline.limit_s:.0f}); the host hands it over again"
            )
        gaps = [move.gap for move in moves if move.gap is not None]
        try:
            opened, moved = topic.ledger.commit(staged.segment, [move.cursor for move in moves], gaps)
        except PositionMovedError:
            topic.positions = None
            return None
        except OutcomeUnknownError:
            topic.positions = None
            raise
        topic.positions = None if moved is None or topic.positions is None else topic.positions | moved
        for gap in gaps:
            event(
                "gap_found",
                logging.ERROR,
                topic=topic.name,
                partition=gap.partition,
                next_offset=gap.next_offset,
                end_offset=gap.end_offset,
            )
        return opened

    def _finish(self, topic: Topic, opened: OpenSegment, staged: Staged, deadline: Deadline) -> None:
        if opened.segment.state != "staged" or opened.segment.attempts:
            return  # Read back after a freeze in which both our clocks stood still: it is the sweeper's by now.
        # Only this invocation could have queued it until now, and it has not.
        opened = replace(opened, segment=opened.segment.with_waiting_blobs("unsent"))
        if not self.queueing.finish(topic.ledger, opened, deadline, staged.bodies):
            return
        segment = opened.segment
        event(
            "segment_queued",
            topic=topic.name,
            segment=segment.id,
            ranges=[[r.partition, r.first_offset, r.next_offset] for r in segment.ranges],
            records=segment.records,
            dead_letters=segment.dead_letters,
            blobs=sum(blob.kind == "rows" for blob in segment.blobs),
            raw_size_bytes=sum(blob.raw_size_bytes for blob in segment.blobs),
            stored_size_bytes=sum(blob.stored_size_bytes for blob in segment.blobs),
            duration_ms=round(deadline.spent_s() * 1000),
        )

    def _rows_blob(self, topic: Topic, segment_id: str, index: int, route: Route, body: Body) -> Blob:
        return Blob(
            kind="rows",
            container=self.settings.staging_container,
            path=blob_path(topic.name, segment_id, f"/{index}.{STORED_FORMAT}.gz"),
            db=route.db,
            table=route.table,
            format=STORED_FORMAT,
            mapping=route.mapping,
            metadata=route.metadata,
            rows=body.rows,
            raw_size_bytes=body.raw_size_bytes,
            stored_size_bytes=len(body.data),
            source_id=source_id_of(segment_id, index),
        )

    def _dead_letters_blob(self, topic: Topic, segment_id: str, body: Body) -> Blob:
        return Blob(
            kind="dead_letters",
            container=self.settings.staging_container,
            path=blob_path(topic.name, segment_id, "/dead-letters" + DEAD_LETTERS_NAME),
            rows=body.rows,
            raw_size_bytes=body.raw_size_bytes,
            stored_size_bytes=len(body.data),
        )


def _ranges(moves: Sequence[Move]) -> tuple[OffsetRange, ...]:
    return tuple(offsets for move in moves for offsets in move.ranges)
