"""Positions, gaps and segments of one topic in a table: the protocol by which every offset is taken once.

PartitionKey is the topic's consumer group, so that one transaction moves every cursor of a batch and records its
segment, or does neither. docs/ledger.md shows the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from sinkcore import transaction as rows
from sinkcore.errors import ConflictError, LedgerError, OutcomeUnknownError, PositionMovedError, TransientError
from sinkcore.ledger_rows import (
    TOPIC_KEY,
    Cursor,
    Gap,
    OpenSegment,
    Position,
    TopicRow,
    cursor_operation,
    gap_key,
    gap_of,
    key_of,
    position_key,
    position_of,
    properties_of,
    readable,
    segment_of,
    segment_values,
    topic_of,
)
from sinkcore.segment import Segment, State
from sinkcore.table import Row, Table
from sinkcore.telemetry import event
from sinkcore.transaction import OPERATIONS_MAX, Operation

TOPICS_PARTITION = "=topics"
# What a commit needs beside its cursors: the segment's row and its open row.
COMMIT_OPERATIONS = 2
CURSORS_MAX = OPERATIONS_MAX - COMMIT_OPERATIONS
# Segment ids that share so many digits are of the same minute or so (65 s); where more of them than this are open,
# one query reads them all. It reads finished ones as well, which a busy topic has many of.
NEIGHBOURS_DIGITS = 8
NEIGHBOURS_READ_SINGLY = 5
# A queued segment that is not marked will be doubted, so the mark is worth more than one attempt.
FINISH_ATTEMPTS_MAX = 3

T = TypeVar("T")


class Ledger:
    """The ledger's rows of one topic."""

    def __init__(self, table: Table, group: str) -> None:
        self._table = table
        self._group = group
        self._key = key_of(group)

    def topic(self) -> TopicRow | None:
        """What is remembered of the topic; None before its first start."""
        return self._one(TOPIC_KEY, topic_of)

    def start(self, topic: TopicRow) -> TopicRow:
        """The topic is listed for the sweeper and has its row: `topic`, or what another one was faster with."""
        listed = {"topic": topic.topic, "consumer_group": self._group}
        with suppress(ConflictError):
            self._table.transact(TOPICS_PARTITION, [rows.create(self._key, listed)])
        with suppress(ConflictError):
            self._table.transact(self._key, [rows.create(TOPIC_KEY, properties_of(topic))])
        found = self.topic()
        if found is None:
            raise TransientError(f"ledger: {topic.topic} could not be started; the call will be made again")
        return found

    def change_topic(self, topic: TopicRow) -> bool:
        """The topic's row says what `topic` does; False if it has changed meanwhile, or nobody knows."""
        return self._try([rows.replace(TOPIC_KEY, properties_of(topic), topic.etag)])

    def positions(self) -> dict[int, Position]:
        """The position of every partition that has one."""
        return {position.partition: position for position in self._all("p-", position_of)}

    def cursor(self, cursor: Cursor) -> Cursor | None:
        """The cursor as it is now, under its new ETag; None once it is gone."""
        if isinstance(cursor, Gap):
            return self.gap(cursor.key)
        return self._one(position_key(cursor.partition), position_of)

    def gaps(self) -> list[Gap]:
        """The gaps that wait to be settled against Kafka, by partition and offset."""
        return self._all("g-", gap_of)

    def gap(self, key: str) -> Gap | None:
        """The gap as it is now; None once it has reached its end."""
        return self._one(key, gap_of)

    def segment(self, segment_id: str) -> Segment | None:
        """The segment as the ledger has it; None if it was never committed, or has been removed."""
        return self._one(f"s-{segment_id}", segment_of)

    def segments(self) -> list[Segment]:
        """Every segment of the topic, oldest first. It grows with history: for audits and tests."""
        return self._all("s-", segment_of)

    def old_segments(self, before_ms: int, untouched_s: float) -> Iterator[tuple[Segment, str]]:
        """The segments that were made before that time and not touched for so long, with their rows' ETags.

        Both, since a segment may have waited for ADX for longer than it is kept.
        """
        old = self._table.rows(self._key, "s-", f"s-{before_ms:012x}")
        for row, segment in self._sound(row for row in old if row.age_s >= untouched_s):
            yield segment, row.etag

    def open_ids(self) -> set[str]:
        """The ids of the segments that wait for somebody to finish them."""
        return {row.key[2:] for row in self._table.rows(self._key, "o-")}

    def forget(self, segments: Sequence[tuple[str, str]], positions: Sequence[Position]) -> bool:
        """The rows of the segments (id, ETag) are gone and the positions' `kept_from` has moved, or neither."""
        removed = [rows.delete(f"s-{segment_id}", etag) for segment_id, etag in segments]
        return self._try([*removed, *(cursor_operation(position, "") for position in positions)])

    def commit(
        self, segment: Segment, cursors: Sequence[Cursor], gaps: Sequence[Gap]
    ) -> tuple[OpenSegment, dict[int, Position] | None]:
        """The segment is recorded, every cursor is at its new `next_offset` and the gaps exist, or nothing.

        `cursors` hold the new offsets under the ETags of the rows that they replace. Returns the segment and
        the positions under their new ETags, or None for these where they must be read again: the reply was
        lost, but the segment is there.

        Raises:
            PositionMovedError: the transaction did not happen; another invocation may have committed.
            OutcomeUnknownError: the reply was lost and the ledger could not be asked.
        """
        operations = [
            # First, so that a second sending of the same transaction fails on its own segment (409) and
            # never looks like somebody else's progress.
            rows.create(f"s-{segment.id}", segment_values(segment)),
            rows.create(f"o-{segment.id}", {}),
            *(cursor_operation(cursor, segment.id) for cursor in cursors),
            *_created(gaps, segment.id),
        ]
        try:
            etags = self._table.transact(self._key, operations)
        except (ConflictError, OutcomeUnknownError) as error:
            return self._read_back(segment, error), None
        moved = {
            cursor.partition: replace(cursor, etag=etag)
            for cursor, etag in zip(cursors, etags[COMMIT_OPERATIONS:], strict=False)
            if isinstance(cursor, Position)
        }
        return OpenSegment(segment, etags[0], etags[1], 0.0, 0.0), moved

    def move(self, cursors: Sequence[Cursor], gaps: Sequence[Gap] = (), made_by: str = "") -> bool:
        """Every cursor is where it says and the gaps exist, without a segment; False if one has moved meanwhile.

        For what no record stands for: offsets that were proven not to exist, or that retention took.
        """
        return self._try([*(cursor_operation(cursor, made_by) for cursor in cursors), *_created(gaps, made_by)])

    def finish(self, opened: OpenSegment, segment: Segment, state: State, *, stays_open: bool = False) -> bool:
        """The segment has its `state`, which is final unless it `stays_open`: then its open row is gone.

        False if a sweeper has taken it over, or if the ledger does not answer: then it stays doubtful.
        """
        operations = [_changed(opened, replace(segment, state=state))]
        if not stays_open:
            operations.append(rows.delete(f"o-{segment.id}", opened.open_etag))
        for _ in range(FINISH_ATTEMPTS_MAX):
            with suppress(OutcomeUnknownError, TransientError):
                try:
                    self._table.transact(self._key, operations)
                except ConflictError:
                    # Under the same ETags: where an attempt before this one has landed, its state is there.
                    found = self.segment(segment.id)
                    return found is not None and found.state == state
                return True
        return False

    def claim(self, opened: OpenSegment, claimer: str, *, waiting: bool = False) -> OpenSegment | None:
        """The segment belongs to `claimer`, to be queued or to wait; None if another one was faster.

        In the ledger its blobs are in doubt from now on; what is returned holds what is known of them.
        """
        segment = replace(opened.segment, attempts=opened.segment.attempts + 1, waiting=waiting)
        claimed = self.note(opened, segment.with_waiting_blobs("staged"), claimed_by=claimer)
        return None if claimed is None else replace(claimed, segment=segment)

    def note(self, opened: OpenSegment, segment: Segment, **stamps: str) -> OpenSegment | None:
        """What is known of the segment's blobs is recorded; None if another has taken it over, or nobody knows.

        Whoever lost a reply here leaves the segment alone until it is old enough to be claimed again.
        """
        try:
            etags = self._table.transact(self._key, [_changed(opened, segment, **stamps)])
        except (ConflictError, OutcomeUnknownError):
            return None
        return replace(opened, segment=segment, etag=etags[0])

    def open_segments(self) -> Iterator[OpenSegment]:
        """The segments that are not finished, oldest first."""
        open_rows = {"s-" + row.key[2:]: row for row in self._table.rows(self._key, "o-")}
        for prefix, keys in groupby(open_rows, key=lambda key: key[: 2 + NEIGHBOURS_DIGITS]):
            neighbours = list(keys)
            if len(neighbours) > NEIGHBOURS_READ_SINGLY:
                found = {row.key: row for row in self._table.rows(self._key, prefix)}
            else:
                each = (self._table.get(self._key, key) for key in neighbours)
                found = {row.key: row for row in each if row is not None}
            for read, segment in self._sound(found[key] for key in neighbours if key in found):
                # It may have been finished since its open row was read, and with it that row is gone.
                if segment.state != "landed":
                    row = open_rows[read.key]
                    yield OpenSegment(segment, read.etag, row.etag, read.age_s, row.age_s)

    def _sound(self, segment_rows: Iterable[Row]) -> Iterator[tuple[Row, Segment]]:
        """The rows that can be read, with their segments; one that cannot is said, and keeps nobody waiting."""
        for row in segment_rows:
            try:
                yield row, readable(self._key, row, segment_of)
            except LedgerError as error:
                event("ledger_row_unreadable", logging.ERROR, error=str(error))

    def opened(self, segment_id: str) -> OpenSegment | None:
        """The segment with the ETags of its rows, of which an empty one is not there; None if there is none."""
        found = self._table.get(self._key, f"s-{segment_id}")
        if found is None:
            return None
        open_row = self._table.get(self._key, f"o-{segment_id}")
        open_etag = open_row.etag if open_row else ""
        segment = readable(self._key, found, segment_of)
        return OpenSegment(segment, found.etag, open_etag, found.age_s, found.age_s)

    def reopen(self, opened: OpenSegment, segment: Segment) -> bool:
        """The segment is as `segment` says, and open; False if it has changed meanwhile, or nobody knows."""
        operations = [_changed(opened, segment)]
        if not opened.open_etag:
            operations.append(rows.create(f"o-{segment.id}", {}))
        return self._try(operations)

    def reopen_as_gaps(self, opened: OpenSegment, gaps: Sequence[Gap]) -> bool:
        """The segment is no more and its offsets wait in `gaps`; False if it has changed meanwhile."""
        key = opened.segment.id
        gone = [rows.delete(f"s-{key}", opened.etag), rows.delete(f"o-{key}", opened.open_etag)]
        return self._try([*gone, *_created(gaps, key)])

    def _one(self, key: str, read: Callable[[Row], T]) -> T | None:
        row = self._table.get(self._key, key)
        return None if row is None else readable(self._key, row, read)

    def _all(self, prefix: str, read: Callable[[Row], T]) -> list[T]:
        return [readable(self._key, row, read) for row in self._table.rows(self._key, prefix)]

    def _try(self, operations: Sequence[Operation]) -> bool:
        """The transaction happened; False where it did not, or nobody knows: whoever asks again sees."""
        try:
            self._table.transact(self._key, operations)
        except (ConflictError, OutcomeUnknownError):
            return False
        return True

    def _read_back(self, segment: Segment, error: Exception) -> OpenSegment:
        """The segment of a commit whose reply says nothing, found in the ledger."""
        try:
            found = self.opened(segment.id)
        except TransientError as silent:
            raise OutcomeUnknownError(
                f"ledger: {segment.topic}: neither the commit of segment {segment.id} nor the question about it "
                "was answered; the records come again, and what was committed of them will be dropped then"
            ) from silent
        if found is None:
            raise PositionMovedError(
                f"ledger: {segment.topic}: segment {segment.id} was not committed; load the positions and trim"
            ) from error
        return found


def _changed(opened: OpenSegment, segment: Segment, **stamps: str) -> Operation:
    """The segment's row is as `segment` says, in place of what was read of it."""
    return rows.merge(f"s-{segment.id}", segment_values(segment) | stamps, opened.etag)


def _created(gaps: Iterable[Gap], segment_id: str) -> Iterator[Operation]:
    return (rows.create(gap_key(gap, segment_id), properties_of(gap)) for gap in gaps)


def topics(table: Table) -> Iterator[tuple[str, str]]:
    """Topic and consumer group of every topic that was ever started with this ledger."""
    for row in table.rows(TOPICS_PARTITION, ""):
        topic, group = row.values.get("topic"), row.values.get("consumer_group")
        if isinstance(topic, str) and isinstance(group, str) and key_of(group) == row.key:
            yield topic, group
        else:
            error = f"ledger: row {row.key} of {TOPICS_PARTITION} cannot be read; put it back as it was"
            event("ledger_row_unreadable", logging.ERROR, error=error)
