"""Positions, gaps and segments of one topic in a table: the protocol by which every offset is taken once.

PartitionKey is the topic's consumer group, so that one transaction moves every position of a batch and records
its segment, or does neither. docs/ledger.md shows the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sinkcore import table as rows
from sinkcore.errors import ConflictError, OutcomeUnknownError, PositionMovedError, TransientError
from sinkcore.records import OffsetRange
from sinkcore.segment import (
    Segment,
    State,
    blobs_from_json,
    blobs_to_json,
    ranges_from_json,
    ranges_to_json,
)
from sinkcore.table import OPERATIONS_MAX, Operation, Row, Table

TOPICS_PARTITION = "=topics"
# What a commit needs beside its cursors: the segment's row and its open row.
COMMIT_OPERATIONS = 2
CURSORS_MAX = OPERATIONS_MAX - COMMIT_OPERATIONS
# A queued segment that is not marked will be doubted, so the mark is worth more than one attempt.
FINISH_ATTEMPTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset that the ledger expects of a topic-partition; `etag` is empty before its first commit.

    Offsets below `kept_from` are not accounted for: they were there before the sink, or were removed as final.
    """

    partition: int
    next_offset: int
    kept_from: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets `[next_offset, end_offset)` that the host stepped over: a position with an end."""

    partition: int
    next_offset: int
    end_offset: int
    why: str


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment that is not finished, with the ETags of its two rows and their age by the service's clock."""

    segment: Segment
    etag: str
    open_etag: str
    untouched_s: float
    committed_s: float


def key_of(group: str) -> str:
    """A consumer group as a PartitionKey: every byte outside `[A-Za-z0-9._-]` as `=XX`.

    Source: `/ \\ # ?` and control characters are refused in keys; a group is free text.
    """
    return re.sub(rb"[^A-Za-z0-9._-]", lambda found: b"=%02X" % found[0][0], group.encode()).decode()


class Ledger:
    """The ledger's rows of one topic."""

    def __init__(self, table: Table, group: str) -> None:
        self._table = table
        self._group = group
        self._key = key_of(group)

    def register(self, topic: str) -> None:
        """The topic is on the list that the sweeper goes by."""
        if self._table.get(TOPICS_PARTITION, self._key) is not None:
            return
        row = rows.create(self._key, {"topic": topic, "consumer_group": self._group})
        try:
            self._table.transact(TOPICS_PARTITION, [row])
        except ConflictError:
            return
        except OutcomeUnknownError as error:
            raise TransientError(f"ledger: {topic} could not be listed; the call will be made again") from error

    def positions(self) -> dict[int, Position]:
        """The position of every partition that has one."""
        found = (_position(row) for row in self._table.rows(self._key, "p-"))
        return {position.partition: position for position in found}

    def gaps(self) -> list[Gap]:
        """The gaps that wait to be settled against Kafka."""
        return [_gap(row) for row in self._table.rows(self._key, "g-")]

    def segment(self, segment_id: str) -> Segment | None:
        """The segment as the ledger has it; None if it was never committed, or has been removed."""
        row = self._table.get(self._key, f"s-{segment_id}")
        return None if row is None else _segment(row)

    def segments(self) -> list[Segment]:
        """Every segment of the topic, oldest first. It grows with history: for audits and tests."""
        return [_segment(row) for row in self._table.rows(self._key, "s-")]

    def commit(
        self, segment: Segment, positions: Sequence[Position], gaps: Sequence[Gap]
    ) -> tuple[OpenSegment, dict[int, Position] | None]:
        """The segment is recorded, every position is at its new `next_offset` and the gaps exist, or nothing.

        `positions` hold the new offsets under the ETags of the rows that they replace. Returns the segment and
        the positions under their new ETags, or None for these where they must be read again: the reply was
        lost, but the segment is there.

        Raises:
            PositionMovedError: the transaction did not happen; another invocation may have committed.
            OutcomeUnknownError: the reply was lost and the ledger could not be asked.
        """
        operations = [
            # First, so that a second sending of the same transaction fails on its own segment (409) and
            # never looks like somebody else's progress.
            rows.create(f"s-{segment.id}", _segment_values(segment)),
            rows.create(f"o-{segment.id}", {}),
            *(_move(position, segment.id) for position in positions),
            *(rows.create(_gap_key(gap, segment.id), _gap_values(gap)) for gap in gaps),
        ]
        try:
            etags = self._table.transact(self._key, operations)
        except (ConflictError, OutcomeUnknownError) as error:
            return self._read_back(segment, error), None
        moved = {
            position.partition: replace(position, etag=etag)
            for position, etag in zip(positions, etags[COMMIT_OPERATIONS:], strict=False)
        }
        return OpenSegment(segment, etags[0], etags[1], 0.0, 0.0), moved

    def finish(self, opened: OpenSegment, segment: Segment, state: State) -> bool:
        """The segment has its final `state` and its open row is gone.

        False if a sweeper has taken it over, or if the ledger does not answer: then it stays doubtful.
        """
        done = replace(segment, state=state)
        operations = [
            rows.merge(f"s-{segment.id}", _changing_values(done), opened.etag),
            rows.delete(f"o-{segment.id}", opened.open_etag),
        ]
        for _ in range(FINISH_ATTEMPTS_MAX):
            try:
                self._table.transact(self._key, operations)
            except (OutcomeUnknownError, TransientError):
                continue  # Under the same ETags: if the last attempt landed, this one is a conflict.
            except ConflictError:
                return self._has_state(segment.id, state)
            return True
        return False

    def claim(self, opened: OpenSegment, claimer: str, *, waiting: bool = False) -> OpenSegment | None:
        """The segment belongs to `claimer`, to be queued or to wait; None if another one was faster.

        In the ledger its blobs are in doubt from now on; what is returned holds what is known of them.
        """
        segment = replace(opened.segment, attempts=opened.segment.attempts + 1, waiting=waiting)
        claimed = self._merge(opened, segment.with_waiting_blobs("staged"), claimed_by=claimer)
        return None if claimed is None else replace(claimed, segment=segment)

    def note(self, opened: OpenSegment, segment: Segment) -> OpenSegment | None:
        """What is known of the segment's blobs is recorded; None if another one has taken it over."""
        return self._merge(opened, segment)

    def open_segments(self) -> Iterator[OpenSegment]:
        """The segments that are not finished, oldest first."""
        for row in self._table.rows(self._key, "o-"):
            found = self._table.get(self._key, "s-" + row.key[2:])
            if found is not None:
                yield OpenSegment(_segment(found), found.etag, row.etag, found.age_s, row.age_s)

    def _has_state(self, segment_id: str, state: State) -> bool:
        try:
            found = self.segment(segment_id)
        except TransientError:
            return False
        return found is not None and found.state == state

    def _merge(self, opened: OpenSegment, segment: Segment, **stamps: str) -> OpenSegment | None:
        values = _changing_values(segment) | stamps
        try:
            etags = self._table.transact(self._key, [rows.merge(f"s-{segment.id}", values, opened.etag)])
        except (ConflictError, OutcomeUnknownError):
            # Whoever lost a reply here leaves the segment alone until it is old enough to be claimed again.
            return None
        return replace(opened, segment=segment, etag=etags[0])

    def _read_back(self, segment: Segment, error: Exception) -> OpenSegment:
        """The segment of a commit whose reply says nothing, found in the ledger."""
        try:
            found = self._table.get(self._key, f"s-{segment.id}")
            open_row = self._table.get(self._key, f"o-{segment.id}") if found else None
        except TransientError as silent:
            raise OutcomeUnknownError(
                f"ledger: {segment.topic}: neither the commit of segment {segment.id} nor the question about it "
                "was answered; the records come again, and what was committed of them will be dropped then"
            ) from silent
        if found is None:
            raise PositionMovedError(
                f"ledger: {segment.topic}: segment {segment.id} was not committed; load the positions and trim"
            ) from error
        open_etag = open_row.etag if open_row else ""
        return OpenSegment(_segment(found), found.etag, open_etag, found.age_s, found.age_s)


def topics(table: Table) -> list[tuple[str, str]]:
    """Topic and consumer group of every topic that was ever started with this ledger."""
    return [(row.values["topic"], row.values["consumer_group"]) for row in table.rows(TOPICS_PARTITION, "")]


def _move(position: Position, segment_id: str) -> Operation:
    key = f"p-{position.partition:010}"
    values: dict[str, Any] = {
        "next_offset": position.next_offset,
        "kept_from": position.kept_from,
        "segment": segment_id,
    }
    return rows.replace(key, values, position.etag) if position.etag else rows.create(key, values)


def _position(row: Row) -> Position:
    values = row.values
    return Position(int(row.key[2:]), values["next_offset"], values["kept_from"], row.etag)


def _gap_key(gap: Gap, segment_id: str) -> str:
    return f"g-{gap.partition:010}-{gap.next_offset:019}-{segment_id}"


def _gap_values(gap: Gap) -> dict[str, Any]:
    return {"next_offset": gap.next_offset, "end_offset": gap.end_offset, "why": gap.why, "held": False}


def _gap(row: Row) -> Gap:
    partition = int(row.key.split("-")[1])
    return Gap(partition, row.values["next_offset"], row.values["end_offset"], row.values["why"])


def _segment_values(segment: Segment) -> dict[str, Any]:
    return {
        "topic": segment.topic,
        "ranges": ranges_to_json(segment.ranges),
        "records": segment.records,
        "dead_letters": segment.dead_letters,
        **_changing_values(segment),
    }


def _changing_values(segment: Segment) -> dict[str, Any]:
    return {
        "state": segment.state,
        "blobs": blobs_to_json(segment.blobs),
        "attempts": segment.attempts,
        "waiting": segment.waiting,
    }


def _segment(row: Row) -> Segment:
    values = row.values
    ranges: tuple[OffsetRange, ...] = ranges_from_json(values["ranges"])
    return Segment(
        id=row.key[2:],
        topic=values["topic"],
        ranges=ranges,
        blobs=blobs_from_json(values["blobs"]),
        records=values["records"],
        dead_letters=values["dead_letters"],
        state=values["state"],
        attempts=values["attempts"],
        waiting=values["waiting"],
    )
