"""Is every offset in one segment or gap? What the ledger leaves out is looked for in Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

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
    at_first = topic.ledger.positions()
    gaps = [gap for gap in topic.ledger.gaps() if gap.why != REPLAY]
    segments = [segment for segment in topic.ledger.segments() if not segment.replay]
    gaps_after = [gap for gap in topic.ledger.gaps() if gap.why != REPLAY]
    steady = [gap for gap in gaps_after if gap in gaps]
    positions = topic.ledger.positions()
    taken: dict[int, list[OffsetRange]] = {p: [] for p in at_first}
    for segment in segments:
        for offsets in segment.ranges:
            if offsets.partition in at_first and _is_of(segment, at_first[offsets.partition]):
                taken[offsets.partition].append(offsets)
    holes: dict[int, list[OffsetRange]] = {}
    twice: dict[int, list[OffsetRange]] = {}
    for p, position in at_first.items():
        kept_from = max(position.kept_from, positions[p].kept_from if p in positions else 0)
        holes[p] = _holes(position, kept_from, [*taken[p], *_ranges(p, [*gaps, *gaps_after])])
        twice[p] = _overlaps(p, kept_from, [*taken[p], *_ranges(p, steady)])
    found = _asked_of_kafka(sink.kafka, topic.name, holes, progress)
    ends = sink.kafka.end_offsets(topic.name, at_first, committed_only=True)
    return [
        Audit(
            p,
            max(position.kept_from, positions[p].kept_from if p in positions else 0),
            position.next_offset,
            sum(r.next_offset - r.first_offset for r in _ranges(p, gaps_after)),
            max(0, ends.get(p, 0) - position.next_offset),
            *(tuple(ranges) for ranges in (found[p].missing, twice[p], found[p].gone, found[p].unchecked)),
        )
        for p, position in sorted(at_first.items())
    ]


def unplaced(sink: Sink, topic: Topic) -> list[int]:
    """The topic's partitions that have no position yet."""
    state, positions = sink.kafka.topic(topic.name), topic.ledger.positions()
    return [p for p in range(state.partitions if state else 0) if p not in positions]


@dataclass(slots=True)
class _Found:
    missing: list[OffsetRange]
    gone: list[OffsetRange]
    unchecked: list[OffsetRange]


def _asked_of_kafka(
    kafka: KafkaLog, topic: str, holes: dict[int, list[OffsetRange]], progress: Progress
) -> dict[int, _Found]:
    """What Kafka says of each hole: records, or nothing, or that it does not have it any more."""
    found = {p: _Found([], [], []) for p in holes}
    whole = sum(hole.next_offset - hole.first_offset for ranges in holes.values() for hole in ranges)
    asked, left = 0, RECORDS_MAX
    for hole in (hole for ranges in holes.values() for hole in ranges):
        p, at = hole.partition, hole.first_offset
        while at < hole.next_offset and left > 0:
            answer = kafka.read(
                topic,
                {p: (at, hole.next_offset)},
                budget_s=STEP_BUDGET_S,
                max_records=min(STEP_RECORDS, left),
                max_bytes=STEP_BYTES,
            )[p]
            reached = min(answer.next_offset, hole.next_offset)
            if answer.why in ("past_end", "no_topic", "no_partition"):
                # The log ends below: it was cut short, or the topic is another by now.
                found[p].gone.append(OffsetRange(p, at, hole.next_offset))
                asked, at = asked + hole.next_offset - at, hole.next_offset
                break
            if reached <= at:
                break
            if answer.lost:
                found[p].gone.append(OffsetRange(p, at, at + answer.lost))
            found[p].missing += joined(p, (int(each.offset or 0) for each in answer.events))
            left -= len(answer.events)
            asked, at = asked + reached - at, reached
            progress(asked, whole)
        if at < hole.next_offset:
            found[p].unchecked.append(OffsetRange(p, at, hole.next_offset))
    return found


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


def _is_of(segment: Segment, position: Position) -> bool:
    """Whether the segment is of the topic that the position is of, and not of one that was there before."""
    return not (segment.topic_id and position.topic_id) or segment.topic_id == position.topic_id


def _ranges(partition: int, gaps: Iterable[Gap]) -> list[OffsetRange]:
    return [OffsetRange(partition, g.next_offset, g.end_offset) for g in gaps if g.partition == partition]


def _holes(position: Position, kept_from: int, held: list[OffsetRange]) -> list[OffsetRange]:
    """What lies between `kept_from` and the position and is in none of the ranges."""
    p, at, holes = position.partition, kept_from, []
    for offsets in sorted(held, key=_order):
        if offsets.first_offset > at:
            holes.append(OffsetRange(p, at, min(offsets.first_offset, position.next_offset)))
        at = max(at, offsets.next_offset)
        if at >= position.next_offset:
            return holes
    return [*holes, OffsetRange(p, at, position.next_offset)]


def _overlaps(partition: int, kept_from: int, held: list[OffsetRange]) -> list[OffsetRange]:
    """What is in two of the ranges."""
    at, overlaps = kept_from, []
    for offsets in sorted(held, key=_order):
        first = max(offsets.first_offset, kept_from)
        if first < min(at, offsets.next_offset):
            overlaps.append(OffsetRange(partition, first, min(at, offsets.next_offset)))
        at = max(at, offsets.next_offset)
    return overlaps


def _order(offsets: OffsetRange) -> tuple[int, int]:
    return offsets.first_offset, offsets.next_offset
