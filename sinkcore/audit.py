"""Is every offset in one segment or gap? What the ledger leaves out is looked for in Kafka."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from sinkcore.gaps import KafkaLog
from sinkcore.ledger_rows import REPLAY, Gap, Position
from sinkcore.records import OffsetRange
from sinkcore.segment import Segment
from sinkcore.sink import Sink, Topic

# One question to Kafka, and how much of a topic is looked at: beyond it a range is `unchecked`.
STEP_BUDGET_S = 10.0
STEP_RECORDS = 5_000
STEP_BYTES = 16 * 1024 * 1024
RECORDS_MAX = 200_000

# Called with what has been asked of Kafka so far, and how much there is to ask, both in offsets.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Audit:
    """What a partition's segments and gaps leave out, or hold twice, between `kept_from` and the position.

    `missing` are records that Kafka has, and nobody took. `gone` is what Kafka has no more: retention took it, or
    a person gave it up and retention followed. `unchecked` is what Kafka did not answer about within the limits.
    What Kafka proves empty is in none of them, and what a person had replayed is no repetition. `above` counts the
    offsets that Kafka has from the position on.
    """

    partition: int
    kept_from: int
    next_offset: int
    in_gaps: int
    above: int
    missing: tuple[OffsetRange, ...]
    twice: tuple[OffsetRange, ...]
    gone: tuple[OffsetRange, ...]
    unchecked: tuple[OffsetRange, ...]


def audit(sink: Sink, topic: Topic, progress: Progress = lambda _asked, _of: None) -> list[Audit]:
    """Whether every offset of the topic was taken once, partition by partition; safe while the app runs.

    Positions are read first, so that what is taken meanwhile lies above them, and gaps before and after the
    segments: one that was drained meanwhile is in one of them.
    """
    positions = topic.ledger.positions()
    gaps = _gaps(topic)
    segments = [segment for segment in topic.ledger.segments() if not segment.replay]
    gaps_after = _gaps(topic)
    # Removal may have gone on meanwhile.
    kept_from = {p: position.kept_from for p, position in (positions | topic.ledger.positions()).items()}
    taken = [
        offsets
        for segment in segments
        for offsets in segment.ranges
        if offsets.partition in positions and _is_of(segment, positions[offsets.partition])
    ]
    held = _by_partition([*taken, *gaps.values(), *gaps_after.values()])
    surely = _by_partition([*taken, *(gap for row, gap in gaps_after.items() if row in gaps)])
    waiting = _by_partition(gaps_after.values())
    found: dict[tuple[int, str], list[OffsetRange]] = defaultdict(list)
    holes: list[OffsetRange] = []
    for p, position in positions.items():
        holes += _holes(p, kept_from[p], position.next_offset, held[p])
        found[p, "twice"] += _overlaps(p, kept_from[p], surely[p])
    for what, offsets in _asked_of_kafka(sink.kafka, topic.name, holes, progress):
        found[offsets.partition, what].append(offsets)
    ends = sink.kafka.end_offsets(topic.name, positions, committed_only=True)
    return [
        Audit(
            p,
            kept_from[p],
            position.next_offset,
            sum(gap.next_offset - gap.first_offset for gap in waiting[p]),
            max(0, ends.get(p, 0) - position.next_offset),
            *(tuple(found[p, what]) for what in ("missing", "twice", "gone", "unchecked")),
        )
        for p, position in sorted(positions.items())
    ]


def unplaced(sink: Sink, topic: Topic) -> list[int]:
    """The topic's partitions that have no position yet."""
    state, positions = sink.kafka.topic(topic.name), topic.ledger.positions()
    return [p for p in range(state.partitions if state else 0) if p not in positions]


def _asked_of_kafka(
    kafka: KafkaLog, topic: str, holes: list[OffsetRange], progress: Progress
) -> Iterator[tuple[str, OffsetRange]]:
    """What Kafka says of the holes, by the names of `Audit`; what it proves empty is left out."""
    whole = sum(hole.next_offset - hole.first_offset for hole in holes)
    asked, left = 0, RECORDS_MAX
    for hole in holes:
        p, at, end = hole.partition, hole.first_offset, hole.next_offset
        while at < end and left > 0:
            answer = kafka.read(
                topic,
                {p: (at, end)},
                budget_s=STEP_BUDGET_S,
                max_records=min(STEP_RECORDS, left),
                max_bytes=STEP_BYTES,
            )[p]
            # The log may end below: it was cut short, or the topic is another by now.
            is_gone = answer.why in ("past_end", "no_topic", "no_partition")
            reached = end if is_gone else min(answer.next_offset, end)
            if reached <= at:
                break
            if is_gone or answer.lost:
                yield "gone", OffsetRange(p, at, end if is_gone else at + answer.lost)
            for offsets in joined(p, (int(each.offset or 0) for each in answer.events)):
                yield "missing", offsets
            left -= len(answer.events)
            asked, at = asked + reached - at, reached
            progress(asked, whole)
        if at < end:
            yield "unchecked", OffsetRange(p, at, end)


def joined(partition: int, offsets: Iterable[int]) -> Iterator[OffsetRange]:
    """Rising offsets as ranges."""
    first = end = -1
    for offset in offsets:
        if offset != end:
            if end >= 0:
                yield OffsetRange(partition, first, end)
            first = offset
        end = offset + 1
    if end >= 0:
        yield OffsetRange(partition, first, end)


def _gaps(topic: Topic) -> dict[Gap, OffsetRange]:
    """The gaps that are no repetition, by their rows as they are now."""
    gaps = (gap for gap in topic.ledger.gaps() if gap.why != REPLAY)
    return {gap: OffsetRange(gap.partition, gap.next_offset, gap.end_offset) for gap in gaps}


def _is_of(segment: Segment, position: Position) -> bool:
    """Whether the segment is of the topic that the position is of, and not of one that was there before."""
    return not (segment.topic_id and position.topic_id) or segment.topic_id == position.topic_id


def _by_partition(ranges: Iterable[OffsetRange]) -> dict[int, list[OffsetRange]]:
    """The ranges of each partition, by offset."""
    found: dict[int, list[OffsetRange]] = defaultdict(list)
    for offsets in sorted(ranges, key=attrgetter("first_offset", "next_offset")):
        found[offsets.partition].append(offsets)
    return found


def _holes(partition: int, at: int, end: int, held: Iterable[OffsetRange]) -> Iterator[OffsetRange]:
    """What lies between `at` and `end` and is in none of the ranges."""
    for offsets in [*held, OffsetRange(partition, end, end)]:
        if at < min(offsets.first_offset, end):
            yield OffsetRange(partition, at, min(offsets.first_offset, end))
        at = max(at, offsets.next_offset)


def _overlaps(partition: int, at: int, held: Iterable[OffsetRange]) -> Iterator[OffsetRange]:
    """What is in two of the ranges, from `at` on."""
    kept_from = at
    for offsets in held:
        first, end = max(offsets.first_offset, kept_from), min(at, offsets.next_offset)
        if first < end:
            yield OffsetRange(partition, first, end)
        at = max(at, offsets.next_offset)
