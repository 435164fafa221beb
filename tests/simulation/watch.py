"""Who watches a run: how often each fault came, and which of the interleavings of the design's evidence were met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sinkcore.errors import SinkError, TransientError
from sinkcore.table import Operation
from tests.support.kafka import Log

if TYPE_CHECKING:
    from tests.simulation.host import Batch, Host
    from tests.simulation.scheduler import Actor
    from tests.simulation.world import World

INTERLEAVINGS = {
    1: "zombie between stage and commit, another host went on",
    2: "the same, nobody went on, its blobs were swept as litter",
    3: "zombie between commit and queue, the sweeper queued",
    4: "death after queueing, before the mark",
    5: "a list that runs backwards",
    6: "a list that spans what another host took",
    7: "a list that spans what another host skipped",
    8: "redelivery with other boundaries",
    9: "a skip, and a later batch",
    10: "a skip, and no later batch",
    11: "a skip, then a late store that moves the committed offset back",
    12: "first batches skipped before the sink ever ran",
    13: "a partition that is added, under Latest",
    14: "offsets expired under Latest: a gap above the limit is held",
    15: "offsets expired under Earliest: the host crawls through the log",
    16: "an outage under a host that skips",
    17: "the app is off for a week",
    18: "an operator resets the group backward",
    19: "an operator resets the group forward",
    20: "a sweeper beside an invocation on one partition",
    21: "two sweepers at one segment",
    22: "two sweepers at one gap",
    23: "a conflict again, within one batch",
    24: "a transaction that lands after its caller has given up",
    25: "a log that is cut short",
    26: "a topic that is made again and refilled past the position",
    27: "two apps with one group and a ledger each",
    28: "the ledger's table is dropped, and restored",
    29: "an open transaction above a gap",
}


@dataclass
class Watch:
    """Counts what a run meets; knows nothing that the sink could use."""

    world: World
    faults: Counter[str] = field(default_factory=Counter)
    met: Counter[int] = field(default_factory=Counter)
    skips: set[tuple[int, int]] = field(default_factory=set)
    perhaps_repeated: set[str] = field(default_factory=set)
    frozen_at_put: set[str] = field(default_factory=set)
    lost: set[tuple[int, int]] = field(default_factory=set)
    open_skip_moved_back: bool = False
    _writers: dict[str, tuple[str, str]] = field(default_factory=dict)
    _last_lists: dict[int, list[int]] = field(default_factory=dict)

    def count(self, fault: str) -> None:
        self.faults[fault] += 1

    def meet(self, number: int) -> None:
        assert number in INTERLEAVINGS
        if not self.met[number]:
            self.world.scheduler.say(f"*** interleaving {number}: {INTERLEAVINGS[number]}")
        self.met[number] += 1

    # The host.

    def reset(self, partition: int, at: int, log: Log) -> None:
        position = self.world.position(partition)
        if self.world.theme.latest and at > log.low and partition >= self.world.partitions_at_start:
            self.meet(13)
        if not self.world.theme.latest and position is not None and at < position:
            self.meet(15)

    def flushed(self, batch: Batch) -> None:
        if any(span != sorted(span) for span in map(batch.span, batch.partitions)):
            self.meet(5)

    def begins(self, host: Host, batch: Batch) -> None:
        """What a batch looks like beside the ledger, at the moment in which it is handed over."""
        for partition in batch.partitions:
            span, position = sorted(set(batch.span(partition))), self.world.position(partition)
            if position is not None and span[0] < position:
                if self._last_lists.get(partition) not in (None, span):
                    self.meet(8)
                if span[-1] >= position and batch.over_rebalance:
                    self.meet(6)
            holes = {offset for offset in range(span[0], span[-1]) if offset not in span}
            if batch.over_rebalance and any((partition, offset) in self.skips for offset in holes):
                self.meet(7)
            self._last_lists[partition] = span

    def skipped(self, host: Host, batch: Batch) -> None:
        self.count("a batch that the host skips")
        world = self.world
        for partition in batch.partitions:
            position = world.position(partition)
            at_stake = {(partition, o) for o in batch.span(partition) if position is None or o >= position}
            self.skips |= at_stake
            if at_stake and not any(other.ran for other in world.hosts):
                self.meet(12)
            if at_stake and (world.faults.out or world.adx.faults.down):
                self.meet(16)

    def moved_back(self, partition: int, offset: int, before: int) -> None:
        self.count("a late store that moves the committed offset back")
        if any((partition, each) in self.skips for each in range(offset, before)):
            self.meet(11)
            self.open_skip_moved_back = True

    def ended(self, actor: Actor, error: BaseException | None) -> None:
        staged = actor.notes.get("staged", set())
        if isinstance(error, TransientError) and actor.notes.get("frozen at") == "commit":
            if staged & self.world.blobs.deleted:
                self.meet(2)
        if actor.notes.get("conflicts", 0) > 1:
            self.meet(23)

    def swept(self, host: Host, error: BaseException | None) -> None:
        self.world.settle_sweeps += self.world.calm
        if isinstance(error, Exception) and not isinstance(error, SinkError):
            raise error

    # The ledger.

    def transacted(self, operations: Sequence[Operation], done: bool) -> None:
        actor = self.world.scheduler.running
        if actor is None:
            if done:
                self.meet(24)
            return
        kind = "sweeper" if "sweeper" in actor.name else "invocation"
        if not done:
            self._conflict(actor, kind, operations)
            return
        for operation in operations:
            self._writers[operation.key] = (kind, actor.name)
        if operations[0].kind == "create" and operations[0].key.startswith("s-"):
            self._committed(operations)

    def _conflict(self, actor: Actor, kind: str, operations: Sequence[Operation]) -> None:
        self.count("a conflict")
        actor.notes["conflicts"] = actor.notes.get("conflicts", 0) + 1
        if actor.notes.get("frozen at") == "commit" and actor.label == "commit":
            self.meet(1)
        for operation in operations:
            other, name = self._writers.get(operation.key, ("", ""))
            if operation.key.startswith("p-") and other and other != kind:
                self.meet(20)
            if operation.key.startswith("s-") and kind == other == "sweeper" and name != actor.name:
                self.meet(21)
            if operation.key.startswith("g-") and kind == other == "sweeper" and name != actor.name:
                self.meet(22)

    def _committed(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if operation.kind == "create" and operation.key.startswith("g-"):
                partition = int(operation.key[2:12])
                first, end = operation.values["next_offset"], operation.values["end_offset"]
                if any((partition, offset) in self.skips for offset in range(int(first), int(end))):
                    self.meet(9)

    # The sink's own events.

    def said(self, event: str, facts: dict[str, Any]) -> None:
        self.world.scheduler.say(f"    {event} {facts}")
        if event == "gap_held":
            self.meet(14)
        if event == "trigger_silent":
            span = range(facts["next_offset"], facts["end_offset"])
            if any((facts["partition"], offset) in self.skips for offset in span):
                self.meet(10)
        if event == "log_truncated":
            self.meet(25)
        if event == "segment_swept" and facts["rows_perhaps_repeated"]:
            segment = self.world.ledger.segment(facts["segment"])
            self.perhaps_repeated |= {b.path for b in segment.blobs if b.kind == "rows"} if segment else set()
        if event == "records_lost_to_retention":
            first = facts["first_offset"]
            self.lost |= {(facts["partition"], offset) for offset in range(first, first + facts["records"])}
