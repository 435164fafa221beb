"""What the group stepped over and why. An interleaving counts when the ledger has made up for it.

The numbers are those of docs/simulation.md, "Interleavings".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sinkcore.ledger_rows import gap_of, segment_of
from sinkcore.segment import Segment
from sinkcore.table import Row
from sinkcore.transaction import Operation

GAP, TAIL, STUCK, FIRST, ADDED, EXPIRED, CRAWL, OUTAGE, WEEK, BACK, FORWARD, OTHER_APP = (*range(9, 20), 27)

Place = tuple[int, int]


@dataclass(eq=False)
class Passed:
    """Offsets that no host brings again by itself, by the interleavings that they are part of."""

    hit: Callable[[str], None]
    why: dict[Place, set[int]] = field(default_factory=dict)
    # What the next batches of a partition will show.
    awaited: dict[int, set[int]] = field(default_factory=dict)

    def add(self, places: Iterable[Place], *why: int) -> None:
        """The group has stepped over these."""
        for place in places:
            self.why.setdefault(place, set()).update(why)

    def moved_back(self, partition: int, first: int, end: int) -> None:
        """A late store has moved the committed offset from `end` to `first`: what was skipped there is hidden."""
        self.add(((partition, o) for o in range(first, end) if (partition, o) in self.why), STUCK)

    def expect(self, partition: int, number: int) -> None:
        """The partition's next batches will show the interleaving."""
        self.awaited.setdefault(partition, set()).add(number)

    def delivered(self, partition: int, first: int, last: int, position: int) -> None:
        """A batch with these offsets has come to Python, where the ledger expects `position`."""
        awaited = self.awaited.get(partition, set())
        if last < position:
            self._hit(awaited & {CRAWL, BACK})
        else:
            # The group's offsets were kept: it goes on where it was, and nothing is missing.
            self._hit(awaited & {WEEK} if first <= position else ())
            self.awaited[partition] = awaited & {BACK, CRAWL} if first < position else set()

    def committed(self, operations: Sequence[Operation], by: str) -> None:
        """A transaction is in the ledger, by an actor of this kind."""
        segment = _segment(operations)
        if segment is None:
            return
        if by == "deliver":
            made = [o for o in operations if (o.kind, o.key[:2]) == ("create", "g-")]
            gaps = [gap_of(Row(o.key, o.values, "", 0.0)) for o in made]
            around = {(gap.partition, o) for gap in gaps for o in range(gap.next_offset, gap.end_offset)}
            self._hit({GAP} if around & self.why.keys() else ())
            return
        taken = {(r.partition, o) for r in segment.ranges for o in range(r.first_offset, r.next_offset)}
        met: set[int] = set().union(*(self.why[place] for place in taken & self.why.keys()))
        if taken & self.why.keys() and any((o.kind, o.key[:2]) == ("replace", "p-") for o in operations):
            self._hit({TAIL})
        else:
            met.discard(STUCK)
        self._hit(met)

    def _hit(self, numbers: Iterable[int]) -> None:
        for number in sorted(numbers):
            self.hit(f"interleaving {number}")


def _segment(operations: Sequence[Operation]) -> Segment | None:
    for operation in operations:
        if (operation.kind, operation.key[:2]) == ("create", "s-"):
            return segment_of(Row(operation.key, operation.values, "", 0.0))
    return None
