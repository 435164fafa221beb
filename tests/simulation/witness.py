"""What everybody did, as far as the checks need it: commits, claims, messages, skips, and what was said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sinkcore.errors import ConflictError, SinkError
from sinkcore.records import OffsetRange
from sinkcore.table import Operation
from tests.simulation.schedule import Killed, Task

if TYPE_CHECKING:
    from sinkcore.gaps import Answer
    from tests.simulation.adx import Message
    from tests.simulation.host import Batch, Host
    from tests.simulation.world import World


@dataclass
class Committed:
    """A segment that came into the ledger: by whom and when."""

    segment_id: str
    by: Task
    at_ms: int
    ranges: tuple[OffsetRange, ...]
    topic_id: str
    claims: list[Task] = field(default_factory=list)


@dataclass
class Met:
    """What a task has met so far that excuses it from finishing what it began."""

    mars: int = 0
    frozen_ms: int = 0
    conflicts: int = 0
    put: list[str] = field(default_factory=list)


# A lost reply to a transaction is asked about or repeated, so that one of them alone leaves nothing undone.
_HARMLESS = ("unheard", "lost reply")


@dataclass
class Witness:
    """Notes what happens, in the order in which it happens; judges nothing but what can never be right."""

    world: World
    commits: dict[str, Committed] = field(default_factory=dict)
    met: dict[Task, Met] = field(default_factory=dict)
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lost: list[tuple[str, int, int, int]] = field(default_factory=list)
    faults_found: list[str] = field(default_factory=list)
    seen: Counter[int] = field(default_factory=Counter)

    def wrong(self, what: str) -> None:
        """This must not happen, whatever else does."""
        self.world.trace.add("CHECK", f"WRONG: {what}")
        self.faults_found.append(what)

    def of(self, task: Task) -> Met:
        return self.met.setdefault(task, Met())

    def fault(self, task: Task, fault: str, kind: str) -> None:
        self.of(task).mars += 1 if kind == "table write" and fault in _HARMLESS else 2

    def frozen(self, task: Task, for_ms: int) -> None:
        self.of(task).frozen_ms += for_ms
        self.of(task).mars += 2

    def put(self, task: Task, container: str, path: str) -> None:
        self.of(task).put.append(path)

    def transact(self, task: Task, operations: Sequence[Operation], apply: Callable[[], list[str]]) -> list[str]:
        try:
            etags = apply()
        except ConflictError:
            self.of(task).conflicts += 1
            raise
        for operation in operations:
            if operation.kind == "create" and operation.key.startswith("s-"):
                self._committed(task, operation)
            if operation.kind == "merge" and "claimed_by" in operation.values:
                self.commits[operation.key[2:]].claims.append(task)
        return etags

    def _committed(self, task: Task, operation: Operation) -> None:
        ranges = tuple(OffsetRange(*each) for each in json.loads(str(operation.values["ranges"])))
        broker, now_ms = self.world.broker, self.world.scheduler.clock.ms
        segment_id = operation.key[2:]
        self.commits[segment_id] = Committed(segment_id, task, now_ms, ranges, broker.topic_id)

    def read(self, asked: Mapping[int, tuple[int, int]], answers: dict[int, Answer]) -> dict[int, Answer]:
        return answers

    def accepted(self, message: Message) -> None:
        pass

    def landed_late(self, what: str) -> None:
        pass

    def committed(self, partition: int, before: int, after: int) -> None:
        pass

    def reset(self, host: Host, partition: int, at: int) -> None:
        pass

    def batch(self, host: Host, batch: Batch) -> None:
        pass

    def skipped(self, host: Host, batch: Batch) -> None:
        pass

    def ended(self, task: Task) -> None:
        """An invocation has ended; with an error that is no SinkError, our code is wrong."""
        error = task.error
        outcome = "ok" if error is None else f"{type(error).__name__}: {error}"
        self.world.trace.add(task.name, "ends", outcome)
        if error is not None and not isinstance(error, Killed | SinkError):
            self.wrong(f"{task.name} ended with {type(error).__name__}: {error}")

    def says(self, task: Task, name: str, facts: dict[str, Any], message: str) -> None:
        """A line was logged."""
        self.world.trace.add(task.name, "says", message)
        self.said.append((name, facts))
        if name == "records_lost_to_retention":
            first, count = facts["first_offset"], facts["records"]
            self.lost.append((self.world.broker.topic_id, facts["partition"], first, first + count))
