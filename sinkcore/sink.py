"""The life of a batch: the order of its steps, and every decision to try again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sinkcore.clock import Clock, Deadline
from sinkcore.cursors import Move, groups_of, halves_of, moves_of, ranges_of
from sinkcore.drift import Drift
from sinkcore.errors import LedgerError, PositionMovedError, SinkError, TransientError
from sinkcore.holes import HOLES_MAX, as_kafka_has_it, ask_before, ask_first, holes_in
from sinkcore.ingest import IngestionQueue
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import REPLAY, Gap, OpenSegment, Position, TopicRow
from sinkcore.queueing import Queueing
from sinkcore.records import Slice, slices_of
from sinkcore.schemas import Schemas
from sinkcore.segment import Segment, new_segment_id
from sinkcore.settings import Settings
from sinkcore.stage import Stage, Staged
from sinkcore.staging import Blobs
from sinkcore.start import places, start
from sinkcore.table import Table
from sinkcore.telemetry import event, range_facts

if TYPE_CHECKING:
    import azure.functions as func

    from sinkcore.gaps import KafkaLog

# Each conflict is somebody else's progress; who meets three in a row lets the host hand the batch over again.
ROUNDS_MAX = 3
# A request every so often, for all batches of a topic.
TOPIC_READ_EVERY_S = 10.0
# When a topic was made again, a host can still hold lists of its earlier life: what it retries, without end, and
# what waits behind that. For so long its lists only say where to look.
EARLIER_LIFE_S = 30 * 24 * 3600


@dataclass(slots=True)
class Topic:
    """A topic as this worker knows it; `positions` are None until they are read."""

    name: str
    group: str
    ledger: Ledger
    row: TopicRow
    row_read_s: float
    positions: dict[int, Position] | None = None


@dataclass(slots=True)
class Sink:
    """Delivers batches; one for each worker process, used by one thread a topic at a time."""

    settings: Settings
    table: Table
    blobs: Blobs
    queue: IngestionQueue
    kafka: KafkaLog
    clock: Clock
    executor: Executor
    new_id: Callable[[int], str] = new_segment_id
    schemas: Schemas | None = None
    drift: Drift = field(default_factory=Drift)
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
        slices = slices_of(events)
        known = self.topic(topic)
        self._hold_back(known)
        try:
            for group in groups_of(self._moves(known, slices)):
                partitions = {move.cursor.partition for move in group}
                self._deliver(known, [s for s in slices if s.partition in partitions], group, deadline)
        except SinkError:
            # The commit may have happened, or somebody skips what stands in the way (`sinkctl skip`).
            known.positions = None
            raise

    def take(self, topic: Topic, move: Move, deadline: Deadline) -> bool | None:
        """One cursor is moved, and what it passes is committed and queued, as in a batch: for the sweeper.

        False if the cursor has moved meanwhile; None if its records make too many blobs for one segment.
        """
        if not move.ranges:
            return topic.ledger.move([move.cursor])
        staged = self.stage.stage(topic.name, [move.taken], move.ranges)
        if staged is None:
            return None
        if isinstance(move.cursor, Gap) and move.cursor.why == REPLAY:
            staged = replace(staged, segment=replace(staged.segment, replay=True))
        opened = self._commit(topic, staged, [move], deadline)
        if opened is None:
            return False
        self._finish(topic, opened, staged, deadline)
        return True

    def take_again(self, topic: Topic, slices: Sequence[Slice], deadline: Deadline, token: str) -> Segment | None:
        """The records are committed and queued as a segment that moves no cursor: a person sends them again.

        A segment of the same id that is there already is left to the sweeper. None if there are too many blobs.
        `token` is in the blobs' names: who died before may have staged others, by other routes, for the same id.
        """
        staged = replace(self.stage, token=f"-{token}").stage(topic.name, slices, ())
        if staged is None:
            return None
        opened, moved = topic.ledger.commit(staged.segment, [], [])
        if moved is not None:
            self._finish(topic, opened, staged, deadline)
        return staged.segment

    @property
    def stage(self) -> Stage:
        """How records become a staged segment."""
        return Stage(self.settings, self.blobs, self.clock, self.executor, self.new_id, self.schemas, self.drift)

    @property
    def queueing(self) -> Queueing:
        """How a committed segment gets into ADX's queue."""
        settings = self.settings
        confirm = settings.confirm != "none"
        return Queueing(self.blobs, self.queue, self.executor, settings.dead_letters_container, confirm)

    def topic(self, name: str) -> Topic:
        """The topic, started if it never was; what the sweeper writes about it is at most 10 s old."""
        known = self._topics.get(name)
        now_s = self.clock.monotonic_s()
        if known is None:
            group = self.settings.kafka.group_of(name)
            ledger = Ledger(self.table, group)
            row = start(ledger, self.kafka, name, self.settings.routes_of(name)[0].start, self.clock.now_ms())
            known = self._topics[name] = Topic(name, group, ledger, row, now_s)
        elif now_s - known.row_read_s >= TOPIC_READ_EVERY_S:
            known.row, known.row_read_s = _still_there(known), now_s
        return known

    def _hold_back(self, topic: Topic) -> None:
        """Too much waits for ADX: Kafka holds the rest."""
        if topic.row.pending < self.settings.pending_max:
            return
        event("backpressure", logging.WARNING, topic=topic.name, pending=topic.row.pending)
        raise TransientError(
            f"{topic.name}: {topic.row.pending} segments wait for ADX, SINK_PENDING_MAX is "
            f"{self.settings.pending_max}; Kafka holds the rest until ADX takes them"
        )

    def _moves(self, topic: Topic, slices: Sequence[Slice]) -> list[Move]:
        """What is left to take, by positions from this worker's memory where those explain the batch.

        A partition may have been elsewhere meanwhile, so that a hole is believed only after a look at the ledger.
        """
        cached = topic.positions
        if cached is not None and all(s.partition in cached for s in slices):
            moves = self._explained(topic, slices, cached)
            if all(move.gap is None for move in moves):
                return moves
        positions = topic.ledger.positions()
        missing = {s.partition: s.offsets[0] for s in slices if s.partition not in positions}
        if missing:
            topic.row = _still_there(topic)
            positions |= places(self.kafka, topic.row, topic.group, missing, missing)
            if any(partition not in positions for partition in missing):
                raise TransientError(f"{topic.name}: Kafka does not say where a new partition begins; try again")
        topic.positions = positions
        return self._explained(topic, slices, positions)

    def _explained(self, topic: Topic, slices: Sequence[Slice], positions: Mapping[int, Position]) -> list[Move]:
        """What is left to take; holes are asked about at once where they are normal, or look it."""
        if self._is_made_again(topic, slices, positions):
            slices = as_kafka_has_it(self.kafka, topic.name, slices)
        moves = moves_of(slices, positions)
        gaps = {move.gap.partition: move.gap for move in moves if move.gap is not None}
        suspects = [s for s in slices if s.partition in gaps]
        if suspects and topic.row.sparse:
            explained = ask_before(self.kafka, topic.name, topic.group, suspects, gaps)
        elif any(holes_in(piece) > HOLES_MAX for piece in suspects):
            explained, proven_empty = ask_first(self.kafka, topic.name, suspects, gaps)
            if proven_empty:
                self.mark_sparse(topic)
                explained = ask_before(self.kafka, topic.name, topic.group, suspects, gaps)
        else:
            return moves
        return moves_of([explained.get(s.partition, s) for s in slices], positions)

    def _is_made_again(self, topic: Topic, slices: Sequence[Slice], positions: Mapping[int, Position]) -> bool:
        """Whether the records may be of an earlier topic of this name; a position tells before the topic's row."""
        row = topic.row
        if any(positions[s.partition].topic_id != row.topic_id for s in slices):
            return True
        return row.made_again_ms > 0 and self.clock.now_ms() - row.made_again_ms < EARLIER_LIFE_S * 1000

    def mark_sparse(self, topic: Topic) -> None:
        """The topic is known as one in which holes are normal: Kafka has proven one empty."""
        if topic.row.sparse:
            return
        row = replace(topic.row, sparse="a hole was proven empty")
        if topic.ledger.change_topic(row):
            event("topic_sparse", topic=topic.name)
        topic.row = _still_there(topic)

    def _deliver(self, topic: Topic, slices: Sequence[Slice], moves: Sequence[Move], deadline: Deadline) -> None:
        """`moves`, what is left of `slices` as far as we know, is committed as one segment, and queued."""
        staged: Staged | None = None
        bodies_of: list[Slice] = []
        for _ in range(ROUNDS_MAX):
            if not moves:
                return
            taken = [move.taken for move in moves]
            if staged is None or staged.segment.ranges != ranges_of(moves) or bodies_of != taken:
                staged, bodies_of = self.stage.stage(topic.name, taken, ranges_of(moves)), taken
            if staged is None:
                for half in halves_of(slices) or ():
                    self._deliver(topic, half, self._moves(topic, half), deadline)
                return
            opened = self._commit(topic, staged, moves, deadline)
            if opened is not None:
                self._finish(topic, opened, staged, deadline)
                return
            moves = self._moves(topic, slices)
        raise TransientError(
            f"{topic.name}: {ROUNDS_MAX} commits met another invocation's; the host hands the batch over again"
        )

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
            segment = replace(staged.segment, topic_id=topic.row.topic_id)
            opened, moved = topic.ledger.commit(segment, [move.cursor for move in moves], gaps)
        except PositionMovedError:
            topic.positions = None
            return None
        topic.positions = None if moved is None or topic.positions is None else topic.positions | moved
        for gap in gaps:
            offsets = gap.partition, gap.next_offset, gap.end_offset
            event("gap_found", logging.ERROR, topic=topic.name, **range_facts(*offsets))
        return opened

    def _finish(self, topic: Topic, opened: OpenSegment, staged: Staged, deadline: Deadline) -> None:
        if opened.segment.state != "staged" or opened.segment.attempts:
            return  # Read back after a freeze in which both our clocks stood still: it is the sweeper's by now.
        # Only this invocation could have queued it until now, and it has not.
        opened = replace(opened, segment=opened.segment.with_waiting_blobs("unsent"))
        if topic.row.probes:  # ADX does not take segments: the sweeper alone finds out when it does again.
            topic.ledger.note(opened, opened.segment)
            return
        if not self.queueing.finish(topic.ledger, opened, deadline, staged.bodies):
            return
        segment = opened.segment
        event(
            "segment_queued",
            topic=topic.name,
            segment=segment.id,
            ranges=segment.ranges,
            records=segment.records,
            dead_letters=segment.dead_letters,
            blobs=sum(blob.kind == "rows" for blob in segment.blobs),
            raw_size_bytes=sum(blob.raw_size_bytes for blob in segment.blobs),
            stored_size_bytes=sum(blob.stored_size_bytes for blob in segment.blobs),
            duration_ms=round(deadline.spent_s() * 1000),
        )


def _still_there(topic: Topic) -> TopicRow:
    """The row of a topic that was started: where it is gone, so is the ledger, and nothing begins anew."""
    row = topic.ledger.topic()
    if row is None:
        raise LedgerError(
            f"{topic.name}: its row is gone from the ledger, which was emptied or replaced; restore the table. To "
            "begin anew, stop the app and run `python -m sinkctl start`"
        )
    return row
