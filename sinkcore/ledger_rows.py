"""The ledger's rows: what each holds, and its form in the table (docs/ledger.md, "Rows")."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from sinkcore import transaction as rows
from sinkcore.errors import LedgerError
from sinkcore.segment import Segment, blobs_to_json
from sinkcore.table import Row
from sinkcore.transaction import Operation

T = TypeVar("T")

TOPIC_KEY = "t"
# What this version reads and writes. It stands in the topic's row, which whoever works on the topic reads first.
VERSION = 1
# Why a gap is there about which a person has decided, however large it is.
RELEASED = "released"
REPLAY = "replay"
# It was in a segment whose blobs are gone.
REOPENED = "reopened"


@dataclass(frozen=True, slots=True)
class TopicRow:
    """What is remembered of a topic since its first start.

    `topic_id` is empty where the broker has none. `partitions` is their number at the first start: one above it
    appeared later and starts at its low watermark, whatever `start` says. `sparse` is why holes are normal in
    it, empty where they are not. `pending` counts segments that wait for ADX, as the sweeper last saw them.
    `probes` is the breaker: 0 while ADX takes segments; else the sweeper alone queues, so many a sweep.
    `started_ms` is when the row was made: nothing older can be known to this ledger. `made_again_ms` is when the
    topic was last seen to be another one of its name, 0 if it never was.
    """

    topic: str
    topic_id: str
    partitions: int
    start: str
    sparse: str = ""
    pending: int = 0
    probes: int = 0
    started_ms: int = 0
    made_again_ms: int = 0
    version: int = VERSION
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset that the ledger expects of a topic-partition; `etag` is empty before it has a row.

    Offsets below `kept_from` are not accounted for: they were there before the sink, or were removed as final.
    """

    partition: int
    next_offset: int
    kept_from: int
    topic_id: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets `[next_offset, end_offset)` that the host stepped over: a position with an end.

    `held` waits for a person. `tries` counts the sweeps that could not move it, so that others come first.
    """

    partition: int
    next_offset: int
    end_offset: int
    why: str
    held: bool = False
    tries: int = 0
    key: str = ""
    etag: str = ""


Cursor = Position | Gap
_NO_PROPERTIES = {"id", "key", "partition", "etag"}


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


def properties_of(row: TopicRow | Gap | Segment) -> dict[str, Any]:
    """The row's properties: its fields, without its ETag and what its key says."""
    return {name: getattr(row, name) for name in row.__slots__ if name not in _NO_PROPERTIES}


def readable(group_key: str, row: Row, read: Callable[[Row], T]) -> T:
    """What `read` makes of the row.

    Raises:
        LedgerError: somebody edited the row, or a later version wrote it. What it holds is not shown.
    """
    try:
        return read(row)
    except (KeyError, ValueError, TypeError, IndexError, msgspec.MsgspecError) as error:
        raise LedgerError(
            f"ledger: row {row.key} of {group_key} cannot be read ({_where(error)}): it was edited, or is of a "
            "later version; put it back as it was, or run that version"
        ) from None


def _where(error: Exception) -> str:
    """Where in the row the fault is, by our own names; msgspec's text before that can quote what is there."""
    before, at, place = str(error).rpartition(" - at ")
    if isinstance(error, KeyError) or place.startswith("Object missing"):
        return "without " + place.rpartition(" ")[2].strip("`'")
    return place if at and before else type(error).__name__


def topic_of(row: Row) -> TopicRow:
    """The topic's row, read. A property that a later version brought may be missing."""
    topic = msgspec.convert({**row.values, "etag": row.etag}, TopicRow)
    if topic.version > VERSION:
        raise ValueError
    return topic


def cursor_operation(cursor: Cursor, segment_id: str) -> Operation:
    """`cursor` is where it says, in place of the row under its ETag; a gap that has reached its end is gone."""
    if isinstance(cursor, Gap):
        if cursor.next_offset >= cursor.end_offset:
            return rows.delete(cursor.key, cursor.etag)
        return rows.replace(cursor.key, properties_of(cursor), cursor.etag)
    key = position_key(cursor.partition)
    # Each batch has one for each of its partitions: by name this takes a quarter of the time.
    values: dict[str, Any] = {
        "next_offset": cursor.next_offset,
        "kept_from": cursor.kept_from,
        "topic_id": cursor.topic_id,
        "segment": segment_id,
    }
    return rows.replace(key, values, cursor.etag) if cursor.etag else rows.create(key, values)


def position_key(partition: int) -> str:
    """`p-<partition>`."""
    return f"p-{partition:010}"


def position_of(row: Row) -> Position:
    """A position's row, read."""
    position = msgspec.convert({**row.values, "partition": int(row.key[2:]), "etag": row.etag}, Position)
    if min(position.kept_from, position.next_offset) < 0:
        raise ValueError
    return position


def gap_key(gap: Gap, segment_id: str) -> str:
    """`g-<partition>-<first offset>-<segment id>`: replays may overlap, so that offsets alone are not unique."""
    return f"g-{gap.partition:010}-{gap.next_offset:019}-{segment_id}"


def gap_of(row: Row) -> Gap:
    """A gap's row, read."""
    found = {**row.values, "partition": int(row.key.split("-")[1]), "key": row.key, "etag": row.etag}
    gap = msgspec.convert(found, Gap)
    if not 0 <= gap.next_offset < gap.end_offset:
        raise ValueError
    return gap


def segment_values(segment: Segment) -> dict[str, Any]:
    """The properties of a segment's row; its lists are JSON."""
    ranges = msgspec.json.encode(segment.ranges).decode()
    return properties_of(segment) | {"ranges": ranges, "blobs": blobs_to_json(segment.blobs)}


def segment_of(row: Row) -> Segment:
    """A segment's row, read."""
    lists = {name: msgspec.json.decode(row.values[name]) for name in ("ranges", "blobs")}
    segment = msgspec.convert({**row.values, **lists, "id": row.key[2:]}, Segment)
    if not all(0 <= r.first_offset < r.next_offset for r in segment.ranges):
        raise ValueError
    return segment
