"""A batch as columns. The hot path handles lists, one per topic-partition; an object a record is built only
where one is needed, because building one costs more than validating and compressing the record."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, lt, methodcaller
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import azure.functions as func

COLLECT_EVERY = 20_000
"""New containers between two looks of the garbage collector in a worker. The trigger's decoder makes tens of
thousands for a batch, none in a cycle; to look every 700, as by default, costs a seventh of the CPU at 5,000 small
records a batch."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class OffsetRange(NamedTuple):
    """Offsets `[first_offset, next_offset)` of one topic-partition.

    `next_offset` is the position after the range, as Kafka's own consumers count.
    """

    partition: int
    first_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Slice:
    """The records of one topic-partition in a batch: columns of equal length, rising offsets, no repeats.

    `values` holds the record values; the trigger hands over a null value and an empty one alike as `b""`.
    `events` holds what the trigger delivered, for keys, headers and timestamps. `ran_back` says that their offsets
    did not rise as they came: the list has outlived a rebalance. Offsets that are not here do not exist below
    `settled`, nor, where the slice `is_dense`, between its records.
    """

    partition: int
    offsets: list[int]
    values: list[bytes]
    events: list[func.KafkaEvent]
    ran_back: bool = False
    settled: int = 0
    is_dense: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record, whole: what a dead letter stores.

    `timestamp_ms` is Kafka's, in milliseconds since 1970, -1 where the record has none. `key` and header
    values are None where Kafka had none.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that cannot become a row, with the contract's `reason` and a `detail` without its content."""

    record: Record
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Columns:
    """How to get each column out of a batch's events: functions of one event."""

    partition: Callable[[func.KafkaEvent], int]
    offset: Callable[[func.KafkaEvent], int]
    value: Callable[[func.KafkaEvent], bytes]
    timestamp: Callable[[func.KafkaEvent], str | None]
    key: Callable[[func.KafkaEvent], str | None]
    headers: Callable[[func.KafkaEvent], list[dict[str, str | None]] | None]


_FIELDS = ("partition", "offset", "body", "timestamp", "key", "headers")
# A KafkaEvent's properties are Python functions. Reading what they return without calling them takes a tenth off
# a batch of small records. The names are private, so they are used only where they are found.
_BY_FIELD = Columns(*(attrgetter(f"_KafkaEvent__{name}") for name in _FIELDS))
_BY_PROPERTY = Columns(
    *(methodcaller("get_body") if name == "body" else attrgetter(name) for name in _FIELDS),
)


def columns_of(events: Sequence[func.KafkaEvent]) -> Columns:
    """The quickest way to the columns of `events`, all of which are of one class."""
    if events and all(hasattr(events[0], f"_KafkaEvent__{name}") for name in _FIELDS):
        return _BY_FIELD
    return _BY_PROPERTY


def slices_of(events: Sequence[func.KafkaEvent]) -> list[Slice]:
    """The batch as one slice per topic-partition, by partition, each sorted by offset and without repeats.

    Of records that share an offset the last one stays: they are one record, delivered again.

    Source: the Kafka extension's list mixes partitions in runs and survives a rebalance, so that offsets in
    it can run backwards and repeat (KafkaListener.cs; docs/delivery.md, "What a batch looks like").
    """
    columns = columns_of(events)
    by_partition: dict[int, list[func.KafkaEvent]] = {}
    for partition, run in groupby(events, columns.partition):
        by_partition.setdefault(partition, []).extend(run)
    return [_slice(partition, by_partition[partition], columns) for partition in sorted(by_partition)]


def slice_of(partition: int, events: list[func.KafkaEvent]) -> Slice:
    """Records of one partition, if there are any, as `slices_of` has them."""
    return _slice(partition, events, columns_of(events))


def _slice(partition: int, events: list[func.KafkaEvent], columns: Columns) -> Slice:
    offsets = list(map(columns.offset, events))
    ran_back = not all(map(lt, offsets, offsets[1:]))
    if ran_back:
        by_offset = dict(zip(offsets, events, strict=True))
        offsets = sorted(by_offset)
        events = [by_offset[offset] for offset in offsets]
    return Slice(partition, offsets, list(map(columns.value, events)), events, ran_back)


def record_of(event: func.KafkaEvent) -> Record:
    """The record that `event` carries, with key and header values as the bytes that Kafka held.

    Source: with binary keys the extension hands over base64 text; header values are base64 always.
    """
    key: str | None = event.key
    headers = event.headers or ()
    return Record(
        topic=event.topic or "",
        partition=event.partition or 0,
        offset=event.offset or 0,
        timestamp_ms=timestamp_ms_of(event.timestamp),
        key=None if key is None else base64.b64decode(key),
        value=event.get_body(),
        headers=tuple(
            (utf8_text(header["Key"]), None if header["Value"] is None else base64.b64decode(header["Value"]))
            for header in headers
        ),
    )


@lru_cache(maxsize=1_024)
def timestamp_of(timestamp_ms: int) -> str | None:
    """What `timestamp_ms_of` reads: the trigger's ISO text in UTC; None for a time that no calendar has."""
    try:
        moment = (_EPOCH + timestamp_ms * _MILLISECOND).replace(tzinfo=None)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").rstrip("0").rstrip(".") + "Z"


def timestamp_ms_of(timestamp: str | None) -> int:
    """Milliseconds since 1970 of the trigger's ISO text; -1 where Kafka had no timestamp.

    Source: the extension prints Kafka's timestamp as UTC and trims trailing zeros of the fraction; Kafka's
    own "none" is -1 and so prints as the last millisecond of 1969.
    """
    if timestamp is None:
        return -1
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def utf8_text(name: str | None) -> str:
    """The name as text that UTF-8 can hold. One that JSON escaped can have half a surrogate pair in it: the
    trigger's can, in the name of a header, and a record's own can."""
    return (name or "").encode("utf-8", "replace").decode()
