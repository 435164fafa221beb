"""What the sweeper sees of a topic in Kafka: is it still the same, and does each partition move?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sinkcore.clock import Deadline
from sinkcore.cursors import SKIPPED
from sinkcore.drain import drain
from sinkcore.ledger_rows import Cursor, Gap, Position
from sinkcore.sink import Sink, Topic
from sinkcore.start import places
from sinkcore.telemetry import event, range_facts
from sinkcore.transaction import OPERATIONS_MAX

# A position that has not moved for so many sweeps, with records above it, is one that nobody serves.
SILENT_SWEEPS = 3
# A host that skips, or a rebalance, leaves traces as a second ledger on the group does, but not so often in a row.
SHARED_TIMES = 3


@dataclass(slots=True)
class Seen:
    """What the last sweeps of this worker saw, by consumer group and partition.

    `at` is where each position stood, and how often. `passed` is where a silent one was left, and how often
    in a row the group had committed more by then. `gapped`, by group, has the gaps there were, and for how many
    sweeps each partition had a new one.
    """

    at: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    passed: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    gapped: dict[str, tuple[set[str], int]] = field(default_factory=dict)

    def sweeps_at(self, group: str, position: Position) -> int:
        """For how many sweeps, this one included, the position has stood where it stands."""
        offset, times = self.at.get((group, position.partition), (position.next_offset, 0))
        times = times + 1 if offset == position.next_offset else 1
        self.at[group, position.partition] = position.next_offset, times
        return times

    def passed_by(self, group: str, position: Position, end: int, committed: int) -> bool:
        """Whether the group goes on in the partition, time after time, without this ledger: it is another's.

        `position` was silent and has been moved to `end`; a dead trigger commits nothing, and a skip happens once.
        """
        left_at, times = self.passed.get((group, position.partition), (position.next_offset, 0))
        is_again = position.next_offset == left_at and committed > position.next_offset
        self.passed[group, position.partition] = end, times + 1 if is_again else 0
        return self.passed[group, position.partition][1] >= SHARED_TIMES

    def is_gapped(self, topic: Topic, gaps: Sequence[Gap]) -> bool:
        """Whether each partition had a new gap, sweep after sweep: half of each is taken by somebody else."""
        keys, times = self.gapped.get(topic.group, (set(), 0))
        skipped = {gap.key: gap.partition for gap in gaps if gap.why == SKIPPED}
        new = {partition for key, partition in skipped.items() if key not in keys}
        times = times + 1 if topic.positions and new >= topic.positions.keys() else 0
        self.gapped[topic.group] = set(skipped), times
        return times >= SHARED_TIMES


def check_partitions(sink: Sink, topic: Topic, seen: Seen, deadline: Deadline, turn: Deadline) -> int | None:
    """The topic is the one that was started, each partition has a position, and none is silent with records left.

    How many offsets of it lie between the positions and the stable ends; None where nobody can tell.

    Raises:
        TransientError: Kafka or the ledger did not answer.
    """
    state = sink.kafka.topic(topic.name)
    if state is None:
        event("topic_missing", logging.ERROR, topic=topic.name)
        return None
    positions = topic.ledger.positions()
    if state.id and topic.row.topic_id and state.id != topic.row.topic_id:
        _begin_anew(sink, topic, state.id, state.partitions, positions)
        return None
    absent = [p for p in range(state.partitions) if p not in positions]
    if absent:
        _move(topic, list(places(sink.kafka, topic.row, topic.group, absent, {}).values()))
        positions = topic.ledger.positions()
    present = [p for p in positions if p < state.partitions]
    ends = sink.kafka.end_offsets(topic.name, present, committed_only=True)
    _check_ends(sink, topic, positions, ends)
    lag = sum(max(0, end - positions[partition].next_offset) for partition, end in ends.items())
    topic.positions = {partition: positions[partition] for partition in ends}
    silent: dict[int, int] = {}
    for partition, end in ends.items():
        position = positions[partition]
        times = seen.sweeps_at(topic.group, position)
        if end <= position.next_offset or times < SILENT_SWEEPS or turn.is_past():
            continue
        # A commit marker at the end is no record: it only moves the position.
        if drain(sink, topic, position, end, deadline, turn):
            offsets = partition, position.next_offset, end
            event("trigger_silent", logging.ERROR, topic=topic.name, **range_facts(*offsets))
            silent[partition] = end
    committed = sink.kafka.committed(topic.group, topic.name) if silent else {}
    shared = [
        p for p, end in silent.items() if seen.passed_by(topic.group, positions[p], end, committed.get(p, 0))
    ]
    if shared:
        event("group_shared", logging.ERROR, topic=topic.name, group=topic.group, partitions=shared)
    return lag


def _move(topic: Topic, cursors: Sequence[Cursor]) -> None:
    """The cursors are moved, as many in a transaction as it takes; what has moved meanwhile stays."""
    for first in range(0, len(cursors), OPERATIONS_MAX):
        topic.ledger.move(cursors[first : first + OPERATIONS_MAX])


def _check_ends(sink: Sink, topic: Topic, positions: dict[int, Position], ends: dict[int, int]) -> None:
    """A position past the end of the same topic's log is one that an unclean election has cut short.

    So are the gaps below it: what is written at their offsets from now on comes with the position.
    """
    suspects = [p for p, end in ends.items() if positions[p].next_offset > end]
    # The last stable offset may lie below a position that a read-uncommitted host has taken: only the end counts.
    whole = sink.kafka.end_offsets(topic.name, suspects, committed_only=False) if suspects else {}
    cut = {p: end for p, end in whole.items() if positions[p].next_offset > end}
    gaps = topic.ledger.gaps() if cut else []
    for partition, end in cut.items():
        position = positions[partition]
        above = [
            replace(gap, end_offset=max(end, gap.next_offset))
            for gap in gaps
            if gap.partition == partition and gap.end_offset > end
        ]
        if _move_with_gaps(topic, replace(position, next_offset=end), above):
            offsets = partition, position.next_offset, end
            event("log_truncated", logging.ERROR, topic=topic.name, **range_facts(*offsets))


def _move_with_gaps(topic: Topic, position: Position, gaps: Sequence[Gap]) -> bool:
    """The position is moved and its gaps are changed together: one that comes with the next batch stays as it is.

    The position was read before the gaps, so that a gap which is not among them came with a position that has
    moved since. Gaps beyond what fits the transaction are changed before.
    """
    whole = len(gaps) - len(gaps) % (OPERATIONS_MAX - 1)
    _move(topic, gaps[:whole])
    return topic.ledger.move([position, *gaps[whole:]])


def _begin_anew(sink: Sink, topic: Topic, topic_id: str, partitions: int, positions: dict[int, Position]) -> None:
    """A topic of the same name is another topic: its positions begin at its low watermarks, old gaps are gone.

    The topic's row changes last, so that whoever dies on the way is followed by one that goes on.
    """
    event("topic_recreated", logging.ERROR, topic=topic.name, topic_id=topic_id)
    first = sink.kafka.first_offsets(topic.name, range(partitions))
    gaps = topic.ledger.gaps()
    # One that the new topic does not have begins at 0, should it be added.
    for partition in sorted({*first, *positions}):
        at = first.get(partition, 0)
        position = positions.get(partition, Position(partition, 0, 0))
        if position.topic_id == topic_id and position.etag:
            continue
        old = [replace(gap, next_offset=gap.end_offset) for gap in gaps if gap.partition == partition]
        _move_with_gaps(topic, replace(position, next_offset=at, kept_from=at, topic_id=topic_id), old)
    now = topic.ledger.positions()
    # Until then, one without a row has appeared later: it begins at its low watermark, whatever was skipped.
    if now.keys() >= first.keys() and all(position.topic_id == topic_id for position in now.values()):
        row = replace(topic.row, topic_id=topic_id, partitions=partitions, sparse="")
        topic.ledger.change_topic(replace(row, made_again_ms=sink.clock.now_ms()))
