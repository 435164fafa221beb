"""What only a person can decide: where a topic starts, what is skipped, and what is run again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sinkcore.errors import TransientError
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import RELEASED, REPLAY, Cursor, Gap, Position
from sinkcore.segment import Segment
from sinkcore.sink import Sink, Topic
from sinkcore.start import places
from sinkcore.transaction import OPERATIONS_MAX


class NotPossibleError(Exception):
    """The ledger is not as the person thought; the message says how it is."""


@dataclass(frozen=True, slots=True)
class Begins:
    """Where a partition begins or goes on, and by what: a group's name, a rule, or that it had a position."""

    next_offset: int
    by: str


def known_topic(sink: Sink, name: str) -> Topic:
    """The topic as it is in the ledger, also one that has no route any more; nothing is written.

    Raises:
        NotPossibleError: it was never started.
    """
    group = sink.settings.kafka.group_of(name)
    ledger = Ledger(sink.table, group)
    row = ledger.topic()
    if row is None:
        fix = "run start" if name in sink.settings.topics else _routed(sink)
        raise NotPossibleError(f"{name}: it was never started; {fix}")
    return Topic(name, group, ledger, row, sink.clock.monotonic_s())


def start_topic(sink: Sink, name: str, from_group: str = "") -> dict[int, Begins]:
    """Every partition of the topic has its position, by the route's `start`; those it had already stay.

    At deployment this covers what a host could skip before Python first runs. Where `from_group` has committed an
    offset, another sink has taken what lies below it: the position is there.

    Raises:
        NotPossibleError: no route takes the topic, or `from_group` has committed nothing for it.
    """
    if name not in sink.settings.topics:
        raise NotPossibleError(f"{name}: no route takes it; {_routed(sink)}")
    state = sink.kafka.topic(name)
    if state is None:
        raise TransientError(f"{name}: Kafka has no such topic; create it")
    had = Ledger(sink.table, sink.settings.kafka.group_of(name)).positions()
    absent = [p for p in range(state.partitions) if p not in had]
    committed = sink.kafka.committed(from_group, name) if from_group else {}
    if from_group and absent and not committed:
        raise NotPossibleError(
            f"{name}: group {from_group} has committed nothing for it; check the group's name, or leave it out"
        )
    topic = sink.topic(name)
    found = {p: Position(p, at, at, topic.row.topic_id) for p, at in committed.items() if p in absent}
    found |= places(sink.kafka, topic.row, topic.group, [p for p in absent if p not in found], {})
    open_ones = [p for p in absent if p not in found]
    ends = sink.kafka.end_offsets(name, open_ones, committed_only=False) if open_ones else {}
    found |= {p: Position(p, end, end, topic.row.topic_id) for p, end in ends.items()}
    placed = list(found.values())
    for first in range(0, len(placed), OPERATIONS_MAX):
        together = placed[first : first + OPERATIONS_MAX]
        if not topic.ledger.move(together):  # A batch has placed one of them meanwhile.
            for position in together:
                topic.ledger.move([position])
    by = {p: f"group {from_group}" for p in absent if p in committed} | dict.fromkeys(had, "had a position")
    rule = topic.row.start
    return {p: Begins(each.next_offset, by.get(p, rule)) for p, each in topic.ledger.positions().items()}


def release(topic: Topic, key: str) -> Gap:
    """A held gap is drained, however large it is."""
    gap = _gap(topic, key)
    _done(topic, topic.ledger.move([replace(gap, held=False, why=RELEASED)]))
    return gap


def skip_gap(topic: Topic, key: str) -> Gap:
    """The gap's offsets are given up: they will be in no segment."""
    gap = _gap(topic, key)
    _done(topic, topic.ledger.move([replace(gap, next_offset=gap.end_offset)]))
    return gap


def skip_to(sink: Sink, topic: Topic, partition: int, offset: int) -> Position:
    """The partition goes on at `offset`; what lies below it and was not taken is given up."""
    position = _position(topic, partition)
    if offset <= position.next_offset:
        raise NotPossibleError(
            f"{topic.name}: partition {partition} is at {position.next_offset} already; replay takes a range again"
        )
    if offset > (end := _end(sink, topic, partition)):
        raise NotPossibleError(f"{topic.name}: partition {partition} ends at {end}, below {offset}")
    _done(topic, topic.ledger.move([replace(position, next_offset=offset)]))
    return position


def skip_record(sink: Sink, topic: Topic, partition: int, offset: int) -> Cursor:
    """One record is given up; what was not taken before it becomes a gap, which the next sweep drains."""
    cursor = _cursor_before(sink, topic, partition, offset)
    first, moved = cursor.next_offset, replace(cursor, next_offset=offset + 1)
    rest = Gap(partition, first, offset, RELEASED)
    if isinstance(cursor, Gap) and offset > first:
        moved, rest = replace(cursor, end_offset=offset), Gap(partition, offset + 1, cursor.end_offset, cursor.why)
    gaps = [rest] if rest.next_offset < rest.end_offset else []
    _done(topic, topic.ledger.move([moved], gaps, sink.new_id(sink.clock.now_ms())))
    return cursor


def _cursor_before(sink: Sink, topic: Topic, partition: int, offset: int) -> Cursor:
    """The position or gap by which the offset would be taken."""
    position = _position(topic, partition)
    if offset >= position.next_offset:
        if offset >= (end := _end(sink, topic, partition)):
            raise NotPossibleError(f"{topic.name}: partition {partition} ends at {end}; it has no offset {offset}")
        return position
    for gap in topic.ledger.gaps():
        if gap.partition == partition and gap.next_offset <= offset < gap.end_offset:
            return gap
    at = position.next_offset
    raise NotPossibleError(f"{topic.name}: offset {offset} of {partition} was taken; the position is {at}")


def replay(sink: Sink, topic: Topic, partition: int, first: int, end: int) -> Gap:
    """The offsets `[first, end)` are read from Kafka and taken once more, whatever was taken of them before."""
    at = _position(topic, partition).next_offset
    if not first < end <= at:
        raise NotPossibleError(
            f"{topic.name}: {first} to {end} is no range below the position of {partition}, {at}"
        )
    gap = Gap(partition, first, end, REPLAY)
    _done(topic, topic.ledger.move([], [gap], sink.new_id(sink.clock.now_ms())))
    return gap


def retry(topic: Topic, segment_id: str | None = None) -> list[Segment]:
    """The `failed` segments, or the one of that id, are open again: the sweeper goes on with them.

    Where a route has metadata it asks the table first whether the rows are there after all, and an `ingest-by` tag
    makes asking needless, so that nothing is repeated.
    """
    ids = [segment_id] if segment_id else [s.id for s in topic.ledger.segments() if s.state == "failed"]
    again = [segment for each in ids if (segment := _reopened(topic, each)) is not None]
    if segment_id and not again:
        found = topic.ledger.segment(segment_id)
        state = found.state if found else "not in the ledger"
        why = "not given up; the sweeper tries it again by itself"
        if state != "failed":
            why = f"{state}; only a failed one is tried again"
        raise NotPossibleError(f"{topic.name}: segment {segment_id} is {why}")
    return again


def _reopened(topic: Topic, segment_id: str) -> Segment | None:
    """The segment as it is tried again; None unless it was given up."""
    opened = topic.ledger.opened(segment_id)
    failed = [blob for blob in opened.segment.blobs if blob.state == "failed"] if opened else []
    if opened is None or not failed:
        return None
    segment = opened.segment
    for blob in failed:
        segment = segment.with_blob(replace(blob, state="again", failures=0))
    segment = replace(segment, state=segment.outcome)
    _done(topic, topic.ledger.reopen(opened, segment))
    return segment


def _routed(sink: Sink) -> str:
    return f"SINK_TOPICS_MAPPING takes {', '.join(sink.settings.topics)}"


def _position(topic: Topic, partition: int) -> Position:
    position = topic.ledger.positions().get(partition)
    if position is None:
        raise NotPossibleError(f"{topic.name}: partition {partition} has no position; run start first")
    return position


def _end(sink: Sink, topic: Topic, partition: int) -> int:
    """The end of the partition's log; 0 where there is no such partition."""
    return sink.kafka.end_offsets(topic.name, [partition], committed_only=False).get(partition, 0)


def _gap(topic: Topic, key: str) -> Gap:
    gap = topic.ledger.gap(key)
    if gap is None:
        raise NotPossibleError(f"{topic.name}: there is no gap {key}; `gaps` lists them")
    return gap


def _done(topic: Topic, moved: bool) -> None:
    if not moved:
        raise NotPossibleError(f"{topic.name}: it has changed meanwhile, or the ledger did not answer; look again")
