"""A sink on memory, and what a test asks of it afterwards."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import azure.functions as func

from sinkcore.ledger import Ledger
from sinkcore.partitions import Seen
from sinkcore.segment import blob_path
from sinkcore.settings import Settings, read_settings
from sinkcore.sink import Sink
from sinkcore.sweep import Sweeper
from sinkcore.unfinished import CLAIM_MARGIN_S, REST_MAX_S
from tests.support.events import Sent, events_of
from tests.support.faults import SteppedBlobs, SteppedFailures, SteppedQueue, SteppedTable, Steps
from tests.support.kafka import MemoryKafka
from tests.support.memory import (
    ManualClock,
    MemoryBlobs,
    MemoryFailures,
    MemoryQueue,
    MemoryRows,
    MemoryTable,
    SameThread,
)

TOPIC = "flights"
# Of a topic, where a test says nothing else: each sweep looks at all of them.
PARTITIONS = 8
ROUTE = {"topic": TOPIC, "db": "db", "table": "Flights", "format": "json", "metadata": "_kafka"}


def settings_of(route: dict[str, Any] | None = None, *routes: dict[str, Any], **values: str) -> Settings:
    """Settings of an app that takes `flights` by one route or several, with `values` on top."""
    return read_settings(
        {
            "SINK_TOPICS_MAPPING": json.dumps([ROUTE | each for each in (route or {}, *routes)]),
            "KAFKA_BROKERS": "127.0.0.1:9092",
            "KUSTO_INGESTION_URL": "http://127.0.0.1:41004",
            "KUSTO_QUERY_URL": "http://127.0.0.1:41003",
            "KUSTO_AUTHENTICATION": "none",
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            **values,
        }
    )


@dataclass
class World:
    """What outlives a worker: the ledger's table, the containers, ADX's queue, and time."""

    settings: Settings = field(default_factory=settings_of)
    clock: ManualClock = field(default_factory=ManualClock)
    table: MemoryTable = field(init=False)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    queue: MemoryQueue = field(init=False)
    failures: MemoryFailures = field(init=False)
    landed: MemoryRows = field(init=False)
    kafka: MemoryKafka = field(default_factory=MemoryKafka)
    seen: Seen = field(default_factory=Seen)
    partitions: int = PARTITIONS

    def __post_init__(self) -> None:
        self.table = MemoryTable(self.clock)
        self.queue = MemoryQueue(self.clock)
        self.failures = MemoryFailures(self.clock)
        self.landed = MemoryRows(self.queue, failures=self.failures)
        for topic in self.settings.topics:
            self.kafka.create(topic, self.partitions)

    def sink(self, **parts: Any) -> Sink:
        """A new worker's sink; `parts` replaces some of what it stands on."""
        return Sink(
            **{
                "settings": self.settings,
                "table": self.table,
                "blobs": self.blobs,
                "queue": self.queue,
                "kafka": self.kafka,
                "clock": self.clock,
                "executor": SameThread(),
                **parts,
            }
        )

    def stepped_sink(self, steps: Steps) -> Sink:
        """A sink whose every call to the outside is a step."""
        return self.sink(
            table=SteppedTable(self.table, steps),
            blobs=SteppedBlobs(self.blobs, steps),
            queue=SteppedQueue(self.queue, steps),
        )

    def sweep(self, sink: Sink | None = None) -> int:
        """One run of the sweeper, of a worker of its own unless `sink` is given, after ADX has done its work."""
        self.landed.ingest()
        return Sweeper(sink or self.sink(), self.landed, self.failures, self.seen).sweep()

    def stepped_sweep(self, steps: Steps) -> int:
        """One run of the sweeper whose every call to the outside is a step."""
        self.landed.ingest()
        failures = SteppedFailures(self.failures, steps)
        return Sweeper(self.stepped_sink(steps), self.landed, failures, self.seen).sweep()

    def sweep_late(self) -> int:
        """One run once ADX has had its time for all that it was sent, and every rest is over."""
        self.clock.advance(max(self.landed.batching + self.settings.doubt_margin_s, REST_MAX_S) + 1)
        return self.sweep()

    def sweep_to_the_end(self, sink: Sink | None = None) -> int:
        """As many runs, at the times that matter, as it takes to finish whatever one worker left behind.

        The last one finds what has landed, and is not counted.
        """
        self.clock.advance(self.settings.invocation_max_s + CLAIM_MARGIN_S + 1)
        finished = self.sweep(sink)
        self.clock.advance(self.landed.batching + self.settings.doubt_margin_s + 1)
        finished += self.sweep(sink)
        self.clock.advance(self.landed.batching + self.settings.doubt_margin_s + 1)
        self.sweep()
        return finished

    def batch(self, records: Iterable[Sent], topic: str = TOPIC) -> list[func.KafkaEvent]:
        """The records as the trigger delivers them; Kafka has them too."""
        sent = list(records)
        self.kafka.hold(topic, sent)
        return events_of(sent, topic)

    @property
    def ledger(self) -> Ledger:
        """The ledger of `flights`."""
        return Ledger(self.table, self.settings.kafka.group_of(TOPIC))

    def queued_rows(self) -> list[dict[str, Any]]:
        """Every row that ADX was sent, as often as it was sent."""
        return [
            json.loads(line)
            for blob, _ in self.queue.queued
            for line in gzip.decompress(self.blobs.get(blob.container, blob.path)).splitlines()
        ]

    def queued_offsets(self) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) was sent to ADX."""
        return Counter((row["_kafka"]["partition"], row["_kafka"]["offset"]) for row in self.queued_rows())

    def landed_offsets(self) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) is in ADX's tables."""
        self.landed.ingest()
        rows = (
            json.loads(line)
            for blob in self.landed.landed
            for line in gzip.decompress(self.blobs.get(blob.container, blob.path)).splitlines()
        )
        return Counter((row["_kafka"]["partition"], row["_kafka"]["offset"]) for row in rows)

    def landed_rows(self) -> dict[str, list[Any]]:
        """What is in ADX's tables, without metadata, by database and table."""
        self.landed.ingest()
        found: dict[str, list[Any]] = {}
        for blob in self.landed.landed:
            for line in gzip.decompress(self.blobs.get(blob.container, blob.path)).splitlines():
                row = json.loads(line)
                row.pop("_kafka", None)
                found.setdefault(f"{blob.db}.{blob.table}", []).append(row)
        return found

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every dead letter in the users' container, its bytes decoded."""
        found = []
        for data in self.blobs.in_container(self.settings.dead_letters_container).values():
            for line in gzip.decompress(data).splitlines():
                letter = json.loads(line)
                for name in ("key", "value"):
                    letter[name] = None if letter[name] is None else base64.b64decode(letter[name])
                found.append(letter)
        return found

    def dead_offsets(self) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) is a dead letter."""
        return Counter((letter["partition"], letter["offset"]) for letter in self.dead_letters())

    def ledger_offsets(self) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) lies in a segment's ranges."""
        return Counter(
            (offsets.partition, offset)
            for segment in self.ledger.segments()
            for offsets in segment.ranges
            for offset in range(offsets.first_offset, offsets.next_offset)
        )

    def dead_letters_path(self, segment_id: str) -> str:
        """Where the segment's dead letters lie."""
        return blob_path(TOPIC, segment_id, ".jsonl.gz")
