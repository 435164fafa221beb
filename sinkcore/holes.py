"""What a batch leaves open, asked of Kafka at once: only where that is normal, and within narrow bounds."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sinkcore.cursors import with_records
from sinkcore.errors import TransientError
from sinkcore.ledger_rows import Gap
from sinkcore.records import Slice, slice_of
from sinkcore.telemetry import event, range_facts

if TYPE_CHECKING:
    from sinkcore.gaps import KafkaLog

# The invocation waits meanwhile; a warm question takes about a millisecond.
ASK_BUDGET_S = 1.0
ASK_RECORDS_MAX = 5_000
ASK_BYTES_MAX = 16 * 1024 * 1024
# More holes than this in a slice make it likely that the topic is one where holes are normal.
HOLES_MAX = 8
# For a batch that is read again as a whole; it takes a tenth of this where Kafka is well.
WHOLE_BUDGET_S = 10.0


def ask_before(
    kafka: KafkaLog, topic: str, group: str, slices: Sequence[Slice], gaps: Mapping[int, Gap]
) -> dict[int, Slice]:
    """By partition the slices of a topic in which holes are normal, with what Kafka says of those before each, all
    at once. Those inside are trusted unless the list has outlived a rebalance, or retention has overtaken it.

    Source: in the first case it can fold a range that was skipped; then it runs backwards, or what the group has
    committed stands above its first offset (docs/delivery.md, "Sparse topics"). In the second the host's consumer
    has gone on at the low watermark, which stands above it too.
    """
    inner = [s for s in slices if s.offsets[-1] - s.offsets[0] + 1 > len(s.offsets) and not s.ran_back]
    committed = kafka.committed(group, topic) if inner else {}
    low = kafka.first_offsets(topic, [s.partition for s in inner]) if inner else {}
    dense = {
        s.partition
        for s in inner
        if committed.get(s.partition, 0) <= s.offsets[0] and low.get(s.partition, 0) <= s.offsets[0]
    }
    asked = {
        s.partition: (gaps[s.partition].next_offset, s.offsets[0])
        for s in slices
        if gaps[s.partition].next_offset < s.offsets[0]
    }
    explained, _ = _explain(kafka, topic, slices, asked)
    return {p: replace(piece, is_dense=p in dense) for p, piece in explained.items()}


def ask_first(
    kafka: KafkaLog, topic: str, slices: Sequence[Slice], gaps: Mapping[int, Gap]
) -> tuple[dict[int, Slice], bool]:
    """Likewise for one that shows many holes for the first time: the first one of each such slice is asked of
    Kafka. And whether one was proven empty."""
    asked = {}
    for piece in slices:
        if holes_in(piece) > HOLES_MAX:
            first = gaps[piece.partition].next_offset
            asked[piece.partition] = first, piece.offsets[bisect_left(piece.offsets, first)]
    return _explain(kafka, topic, slices, asked)


def as_kafka_has_it(kafka: KafkaLog, topic: str, slices: Sequence[Slice]) -> list[Slice]:
    """What the log holds now between the first and the last offset of each slice, in place of what it holds.

    Raises:
        TransientError: Kafka did not answer.
    """
    asked = {s.partition: (s.offsets[0], s.offsets[-1] + 1) for s in slices}
    answers = kafka.read(
        topic,
        asked,
        budget_s=WHOLE_BUDGET_S,
        max_records=sum(len(s.offsets) for s in slices),
        max_bytes=sum(len(value) for s in slices for value in s.values) + 1,
    )
    if any(answer.why == "unanswered" for answer in answers.values()):
        raise TransientError(f"{topic}: Kafka did not say what a batch of a topic made again is; it comes again")
    found = {p: slice_of(p, answer.events) for p, answer in answers.items()}
    for piece in slices:
        if piece.values != found[piece.partition].values:
            offsets = piece.partition, piece.offsets[0], piece.offsets[-1] + 1
            event("earlier_records_dropped", logging.WARNING, topic=topic, **range_facts(*offsets))
    return [found[s.partition] for s in slices if found[s.partition].offsets]


def holes_in(piece: Slice) -> int:
    """How many times an offset of the slice does not follow the one before."""
    return sum(after != before + 1 for before, after in zip(piece.offsets, piece.offsets[1:], strict=False))


def _explain(
    kafka: KafkaLog, topic: str, slices: Sequence[Slice], asked: Mapping[int, tuple[int, int]]
) -> tuple[dict[int, Slice], bool]:
    limits = {"budget_s": ASK_BUDGET_S, "max_records": ASK_RECORDS_MAX, "max_bytes": ASK_BYTES_MAX}
    answers = kafka.read(topic, asked, **limits) if asked else {}  # type: ignore[arg-type]
    explained, proven_empty = {piece.partition: piece for piece in slices}, False
    for p, answer in answers.items():
        # What retention took is counted by the sweeper, in one place: it stays a gap.
        if not answer.lost:
            first, end = asked[p]
            known = with_records(explained[p], first, end, slice_of(p, answer.events))
            explained[p] = replace(known, settled=answer.next_offset)
            proven_empty |= answer.next_offset >= end and len(answer.events) < end - first
    return explained, proven_empty
