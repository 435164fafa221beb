"""What only a person can decide: where a topic starts, what is skipped, and what is run again."""

from __future__ import annotations

import gzip
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from sinkcore.clock import Deadline
from sinkcore.errors import TransientError
from sinkcore.ledger_rows import RELEASED, REPLAY, Gap, Position
from sinkcore.records import slices_of
from sinkcore.segment import Segment
from sinkcore.sink import Sink, Topic
from sinkcore.start import places
from sinkcore.transaction import OPERATIONS_MAX

if TYPE_CHECKING:
    import azure.functions as func

# What a dead letter blob carries once its records have been sent again.
REPLAYED_AS = "replayed_as"


class NotPossibleError(Exception):
    """The ledger is not as the person thought; the message says how it is."""


def start_topic(sink: Sink, name: str, from_group: str = "") -> dict[int, Position]:
    """Every partition of the topic has its position, by the route's `start`; those it had already stay.

    At deployment this covers what a host could skip before Python first runs. Where `from_group` has committed an
    offset, another sink has taken what lies below it: the position is there.
    """
    topic = sink.topic(name)
    state = sink.kafka.topic(name)
    if state is None:
        raise TransientError(f"{name}: Kafka has no such topic; create it")
    absent = [p for p in range(state.partitions) if p not in topic.ledger.positions()]
    committed = sink.kafka.committed(from_group, name) if from_group else {}
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
    return topic.ledger.positions()


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
    position = topic.ledger.positions().get(partition)
    if position is None:
        raise NotPossibleError(f"{topic.name}: partition {partition} has no position; run start first")
    if offset <= position.next_offset:
        raise NotPossibleError(
            f"{topic.name}: partition {partition} is at {position.next_offset} already; replay takes a range again"
        )
    end = sink.kafka.end_offsets(topic.name, [partition], committed_only=False).get(partition, 0)
    if offset > end:
        raise NotPossibleError(f"{topic.name}: partition {partition} ends at {end}, below {offset}")
    _done(topic, topic.ledger.move([replace(position, next_offset=offset)]))
    return position


def replay(sink: Sink, topic: Topic, partition: int, first: int, end: int) -> Gap:
    """The offsets `[first, end)` are read from Kafka and taken once more, whatever was taken of them before."""
    position = topic.ledger.positions().get(partition)
    if position is None or not first < end <= position.next_offset:
        at = "none" if position is None else position.next_offset
        raise NotPossibleError(
            f"{topic.name}: {first} to {end} is no range below the position of {partition}, {at}"
        )
    gap = Gap(partition, first, end, REPLAY)
    _done(topic, topic.ledger.move([], [gap], sink.new_id(sink.clock.now_ms())))
    return gap


def replay_dead_letters(sink: Sink, prefix: str) -> Iterator[tuple[str, int, int]]:
    """The dead letters below `prefix` are encoded again by today's routes: path, records, and refused again.

    A blob that was replayed before is left out. The new segment's id follows from the old one's, so that whoever
    dies between the commit and the mark repeats nothing.
    """
    container = sink.settings.dead_letters_container
    # What is refused again becomes a blob below the same prefix, and is not for this call.
    for path in list(sink.blobs.names(container, prefix)):
        if REPLAYED_AS in sink.blobs.marks(container, path):
            continue
        events = [
            _event(msgspec.json.decode(line))
            for line in gzip.decompress(sink.blobs.get(container, path)).splitlines()
        ]
        if not events:
            continue
        yield path, len(events), _replay_blob(sink, path, events)


def _replay_blob(sink: Sink, path: str, events: list[func.KafkaEvent]) -> int:
    name = str(events[0].topic)
    if not sink.settings.routes_of(name):
        raise NotPossibleError(f"{path}: no route names the topic {name}; add one")
    topic = sink.topic(name)
    old_id = path.rpartition("/")[2].partition(".")[0]
    segment_id = old_id[:12] + sha256(f"{old_id} again".encode()).hexdigest()[:20]
    again, token = replace(sink, new_id=lambda _: segment_id), sink.new_id(sink.clock.now_ms())[12:]
    deadline = Deadline.after(sink.clock, sink.settings.invocation_max_s)
    # Whoever died behind the commit has left a segment that may be queued by now.
    segment = topic.ledger.segment(segment_id) or again.take_again(topic, slices_of(events), deadline, token)
    if segment is None:
        raise NotPossibleError(f"{path}: its records become too many blobs for one segment")
    sink.blobs.mark(sink.settings.dead_letters_container, path, {REPLAYED_AS: segment_id})
    return segment.dead_letters


def retry(topic: Topic, segment_id: str | None = None) -> list[Segment]:
    """The `failed` segments, or the one of that id, are open again: the sweeper goes on with them.

    Where a route has metadata it asks the table first whether the rows are there after all, and an `ingest-by` tag
    makes asking needless, so that nothing is repeated.
    """
    opened = topic.ledger.opened(segment_id) if segment_id else None
    if segment_id and (opened is None or opened.segment.state != "failed"):
        state = "not in the ledger" if opened is None else opened.segment.state
        raise NotPossibleError(f"{topic.name}: segment {segment_id} is {state}; only a failed one is tried again")
    ids = [segment_id] if segment_id else [s.id for s in topic.ledger.segments() if s.state == "failed"]
    again = [segment for each in ids if (segment := _reopened(topic, each)) is not None]
    if segment_id and not again:
        raise NotPossibleError(
            f"{topic.name}: segment {segment_id} is not given up; the sweeper tries it again by itself"
        )
    return again


def _reopened(topic: Topic, segment_id: str) -> Segment | None:
    """The segment as it was tried again; None if the sweeper has it in hand already."""
    opened = topic.ledger.opened(segment_id)
    if opened is None or not any(blob.state == "failed" for blob in opened.segment.blobs):
        return None
    blobs = tuple(
        replace(blob, state="again", failures=0) if blob.state == "failed" else blob
        for blob in opened.segment.blobs
    )
    segment = replace(opened.segment, blobs=blobs)
    segment = replace(segment, state=segment.outcome)
    _done(topic, topic.ledger.reopen(opened, segment))
    return segment


def _gap(topic: Topic, key: str) -> Gap:
    gap = topic.ledger.gap(key)
    if gap is None:
        raise NotPossibleError(f"{topic.name}: there is no gap {key}; `gaps` lists them")
    return gap


def _done(topic: Topic, moved: bool) -> None:
    if not moved:
        raise NotPossibleError(f"{topic.name}: it has changed meanwhile, or the ledger did not answer; look again")


def _event(letter: dict[str, Any]) -> func.KafkaEvent:
    """The record of a dead letter as the trigger once delivered it."""
    import azure.functions as func

    from sinkcore.records import timestamp_of

    value = letter["value"]
    return func.KafkaEvent(
        body=b"" if value is None else b64decode(value),
        topic=letter["topic"],
        partition=letter["partition"],
        offset=letter["offset"],
        timestamp=timestamp_of(letter["timestamp_ms"]),
        key=letter["key"],
        headers=[{"Key": name, "Value": value} for name, value in letter["headers"]],
    )
