"""What a batch leaves open, asked of Kafka at once: only where that is normal, and within narrow bounds."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sinkcore.cursors import Known, with_records
from sinkcore.errors import TransientError
from sinkcore.ledger_rows import Gap
from sinkcore.records import Slice, slice_of
from sinkcore.telemetry import event, span

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


@dataclass(frozen=True, slots=True)
class Explained:
    """By partition the slices that have more records now, and what is known of offsets that are not in hand; and
    whether a hole was proven empty."""

    slices: dict[int, Slice]
    known: dict[int, Known]
    proven_empty: bool


def ask_before(
    kafka: KafkaLog, topic: str, group: str, slices: Sequence[Slice], gaps: Mapping[int, Gap]
) -> Explained:
    """For a topic in which holes are normal: those before each slice are asked of Kafka, all at once, and those
    inside are trusted unless the list has outlived a rebalance, or retention has overtaken it.

    Source: in the first case it can fold a range that was skipped; then it runs backwards, or what the group has
    committed stands above its first offset (docs/delivery.md, "Sparse topics"). In the second the host's consumer
    has gone on at the low watermark, which stands above it too.
    """
    inner = [s for s in slices if s.offsets[-1] - s.offsets[0] + 1 > len(s.offsets) and not s.ran_back]
    committed = kafka.committed(group, topic) if inner else {}
    low = kafka.first_offsets(topic, [s.partition for s in inner]) if inner else {}
    trusted = {
        s.partition
        for s in inner
        if committed.get(s.partition, 0) <= s.offsets[0] and low.get(s.partition, 0) <= s.offsets[0]
    }
    asked = {
        s.partition: (gaps[s.partition].next_offset, s.offsets[0])
        for s in slices
        if gaps[s.partition].next_offset < s.offsets[0]
    }
    return _explain(kafka, topic, slices, asked, trusted)


def ask_first(kafka: KafkaLog, topic: str, slices: Sequence[Slice], gaps: Mapping[int, Gap]) -> Explained:
    """For a topic that shows many holes for the first time: the first one of each such slice is asked of Kafka."""
    asked = {}
    for piece in slices:
        if holes_in(piece) > HOLES_MAX:
            first = gaps[piece.partition].next_offset
            asked[piece.partition] = first, piece.offsets[bisect_left(piece.offsets, first)]
    return _explain(kafka, topic, slices, asked, set())


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
            event("earlier_records_dropped", logging.WARNING, topic=topic, **span(*offsets))
    return [found[s.partition] for s in slices if found[s.partition].offsets]


def holes_in(piece: Slice) -> int:
    """How many times an offset of the slice does not follow the one before."""
    return sum(after != before + 1 for before, after in zip(piece.offsets, piece.offsets[1:], strict=False))


def _explain(
    kafka: KafkaLog,
    topic: str,
    slices: Sequence[Slice],
    asked: Mapping[int, tuple[int, int]],
    trusted: set[int],
) -> Explained:
    limits = {"budget_s": ASK_BUDGET_S, "max_records": ASK_RECORDS_MAX, "max_bytes": ASK_BYTES_MAX}
    answers = kafka.read(topic, asked, **limits) if asked else {}  # type: ignore[arg-type]
    by_partition, known, proven_empty = {}, {}, False
    for piece in slices:
        p = piece.partition
        answer, known[p] = answers.get(p), Known(inner=p in trusted)
        # What retention took is counted by the sweeper, in one place: it stays a gap.
        if answer is not None and not answer.lost:
            first, end = asked[p]
            by_partition[p] = with_records(piece, first, end, slice_of(p, answer.events))
            known[p] = Known(answer.next_offset, p in trusted)
            proven_empty |= answer.next_offset >= end and len(answer.events) < end - first
    return Explained(by_partition, known, proven_empty)
