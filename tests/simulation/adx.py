"""ADX: takes messages, ingests each blob within the batching time, and says what is in the table."""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sinkcore.segment import Blob
from tests.simulation.outside import short

if TYPE_CHECKING:
    from tests.simulation.schedule import Task
    from tests.simulation.world import World

_decode = msgspec.json.Decoder().decode
# Of a message that was taken and not finished: another worker of ADX's takes it after so long.
REDELIVERY_MS = 120_000


@dataclass
class Message:
    """A blob that ADX was told about: by whom, when, and when its rows fell into the table."""

    blob: Blob
    segment_id: str
    by: Task
    sent_ms: int
    landed_ms: int | None = None


@dataclass
class Adx:
    """One table, and the queue before it."""

    world: World
    batching_s: float
    messages: list[Message] = field(default_factory=list)
    rows: Counter[int] = field(default_factory=Counter)
    of_segment: Counter[str] = field(default_factory=Counter)
    landed_of: dict[int, list[str]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    waiting: int = 0

    def accept(self, blob: Blob, by: Task) -> None:
        """The message is in the queue, and the blob's rows will be in the table."""
        world = self.world
        segment_id = blob.path.split("/")[4]
        message = Message(blob, segment_id, by, world.scheduler.clock.ms)
        self.messages.append(message)
        self.waiting += 1
        delay_ms = int(self.batching_s * 1000 * world.rng.random()) + world.rng.randint(500, 20_000)
        if world.faults.on and world.rng.random() < world.faults.rate:
            world.faults.met["ADX takes a message again"] += 1
            delay_ms += REDELIVERY_MS
        if world.faults.on and world.rng.random() < world.faults.rate / 4:
            world.faults.met["ADX is far behind"] += 1
            delay_ms += world.rng.randint(600_000, 7_200_000)
        world.scheduler.after(delay_ms, lambda: self._ingest(message))
        world.witness.accepted(message)

    def count(self, segment_id: str) -> int | None:
        """The segment's rows in the table."""
        return self.of_segment[segment_id]

    def _ingest(self, message: Message) -> None:
        world, blob = self.world, message.blob
        self.waiting -= 1
        message.landed_ms = world.scheduler.clock.ms
        if world.config.delivery == "exactly_once":
            if blob.source_id in self.tags:
                world.trace.add("ADX", f"ignores {short(blob.path)}", "its tag is there")
                return
            self.tags.add(blob.source_id)
        data = world.store.blobs.get((blob.container, blob.path))
        if data is None:
            world.witness.wrong(f"ADX was sent {short(blob.path)}, which is gone")
            return
        rows: list[dict[str, Any]] = [_decode(line) for line in gzip.decompress(data).splitlines()]
        for row in rows:
            self.rows[row["id"]] += 1
            self.landed_of.setdefault(row["id"], []).append(message.segment_id)
            if "_kafka" in row:
                self.of_segment[row["_kafka"]["segment"]] += 1
        world.trace.add("ADX", f"ingests {short(blob.path)}", f"{len(rows)} rows")
