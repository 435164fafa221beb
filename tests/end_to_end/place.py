"""One topic with ledger, containers and a table of its own, on Azurite and the ADX double, and what they hold."""

from __future__ import annotations

import base64
import gzip
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from azure.data.tables import TableServiceClient
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient, QueueServiceClient

from localrunner.processes import wait_until
from sinkcore.clients import App, build_app
from sinkcore.ledger import Ledger
from sinkcore.segment import Segment
from sinkcore.table import AzureTable
from tests.support.app import PARTITIONS, settings_of
from tests.support.events import Sent, events_of
from tests.support.kafka import MemoryKafka
from tests.support.proxy import FaultProxy

DB = "db"
LANDS_WITHIN_S = 60.0
SWEEPS_MAX = 5
# Beyond every age that a sweeper waits for, and within the life of a SAS.
LATER_S = 3600
# ADX's shortest, so that the double seals at once.
BATCHING = '{"MaximumBatchingTimeSpan": "00:00:10"}'


@dataclass
class Place:
    """Where one test's records go; `storage`, `dm` and `engine` may lead through a proxy."""

    azurite: str
    dm: str
    engine: str
    route: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:12]}")
    kafka: MemoryKafka = field(default_factory=MemoryKafka)

    def __post_init__(self) -> None:
        if self.topic not in self.kafka.topics:
            self.kafka.create(self.topic, PARTITIONS)

    @property
    def topic(self) -> str:
        return str(self.route.get("topic", self.name))

    @property
    def table(self) -> str:
        return str(self.route.get("table", self.name))

    def make_table(self, columns: str = "n: long, _kafka: dynamic") -> None:
        """The table is in ADX, and ingests what it is given at once."""
        self.command(f".create table {self.table} ({columns})")
        self.command(f".alter table {self.table} policy ingestionbatching @'{BATCHING}'")

    def app(self, **values: str) -> App:
        """A new worker's app, by the way that a host builds it, but for Kafka, which is in memory here."""
        app = build_app(
            settings_of(
                {"topic": self.topic, "table": self.table} | self.route,
                **{
                    "AzureWebJobsStorage": self.azurite,
                    "KUSTO_INGESTION_URL": self.dm,
                    "KUSTO_QUERY_URL": self.engine,
                    "SINK_LEDGER_TABLE": f"ledger{self.name}",
                    "SINK_STAGING_CONTAINER": f"staging-{self.name}",
                    "SINK_DEAD_LETTERS_CONTAINER": f"dead-{self.name}",
                    "SINK_INVOCATION_MAX_S": "20",
                    "SINK_DOUBT_MARGIN_S": "0",
                    **self.values,
                    **values,
                },
            )
        )
        app.sink.kafka = app.sweeper.sink.kafka = self.kafka
        return app

    def deliver(self, app: App, records: Iterable[Sent]) -> None:
        """The host hands a batch to the app."""
        sent = list(records)
        self.kafka.hold(self.topic, sent)
        app.sink.deliver(self.topic, events_of(sent, self.topic))

    def settle(self, ahead: FaultProxy, **values: str) -> None:
        """Sweepers, an hour apart by the service's clock, have finished whatever was left behind.

        `ahead` stands before the ledger's table.
        """
        app = self.through(table=ahead).app(**values)
        for _ in range(SWEEPS_MAX):
            ahead.ahead_s += LATER_S
            app.sweep()
            if not list(self.ledger.open_segments()):
                return
            wait_until("ADX has taken every message", self.nothing_is_queued, LANDS_WITHIN_S)
        raise AssertionError(f"{SWEEPS_MAX} sweeps left a segment open")

    def through(self, *, blob: FaultProxy | None = None, table: FaultProxy | None = None) -> Place:
        """The same place, reached by proxies."""
        storage = self.azurite
        for service, proxy in (("Blob", blob), ("Table", table)):
            if proxy is not None:
                storage = re.sub(f"{service}Endpoint=http://[^/]+", f"{service}Endpoint={proxy.url}", storage)
        return Place(storage, self.dm, self.engine, self.route, self.values, self.name, self.kafka)

    @cached_property
    def ledger(self) -> Ledger:
        """The topic's ledger, without a proxy."""
        service = TableServiceClient.from_connection_string(self.azurite)
        name = self.values.get("SINK_LEDGER_TABLE", f"ledger{self.name}")
        return Ledger(AzureTable(service.get_table_client(name)), f"adx-sink-{self.topic}")

    @cached_property
    def blobs(self) -> BlobServiceClient:
        """The storage account's blobs, without a proxy."""
        return BlobServiceClient.from_connection_string(self.azurite)

    @property
    def segment(self) -> Segment:
        """The topic's only segment."""
        (segment,) = self.ledger.segments()
        return segment

    @property
    def states(self) -> list[str]:
        """The state of every segment of the topic, oldest first."""
        return [segment.state for segment in self.ledger.segments()]

    def blob(self, container: str, path: str) -> bytes:
        """What a blob holds."""
        return self.blobs.get_blob_client(container, path).download_blob().readall()

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every dead letter in the users' container, its bytes decoded."""
        container = self.blobs.get_container_client(f"dead-{self.name}")
        found = []
        for blob in container.list_blobs():
            for line in gzip.decompress(self.blob(container.container_name, blob.name)).splitlines():
                letter = json.loads(line)
                for name in ("key", "value"):
                    letter[name] = None if letter[name] is None else base64.b64decode(letter[name])
                found.append(letter)
        return found

    def ledger_offsets(self) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) lies in a segment's ranges."""
        return Counter(
            (offsets.partition, offset)
            for segment in self.ledger.segments()
            for offsets in segment.ranges
            for offset in range(offsets.first_offset, offsets.next_offset)
        )

    def landed_offsets(self, at_least: int) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) is a row, once there are so many rows and no blob is on its way."""
        wait_until(f"{at_least} rows land", lambda: self.row_count() >= at_least, LANDS_WITHIN_S)
        wait_until("ADX has taken every message", self.nothing_is_queued, LANDS_WITHIN_S)
        rows = self.query(f"{self.table} | project p = toint(_kafka.partition), o = tolong(_kafka.offset)")
        return Counter((row["p"], row["o"]) for row in rows)

    def row_count(self) -> int:
        """The rows of the table now."""
        return int(self.query(f"{self.table} | count")[0]["Count"])

    def command(self, text: str) -> list[dict[str, Any]]:
        """What a management command returns."""
        return [row.to_dict() for row in self._engine.execute_mgmt(DB, text).primary_results[0]]

    def query(self, text: str) -> list[dict[str, Any]]:
        """What a query returns."""
        return [row.to_dict() for row in self._engine.execute_query(DB, text).primary_results[0]]

    @cached_property
    def _engine(self) -> KustoClient:
        return KustoClient(KustoConnectionStringBuilder.with_no_authentication(self.engine))

    def queue(self, kind: str) -> QueueClient:
        """ADX's queue of a kind, with the account's own key."""
        return adx_queue(self.dm, self.azurite, kind)

    @cached_property
    def _ready(self) -> QueueClient:
        return ready_queue(self.dm, self.azurite)

    def nothing_is_queued(self) -> bool:
        """Whether ADX has ingested, or refused, whatever it was sent."""
        return self._ready.get_queue_properties().approximate_message_count == 0


def adx_queue(dm: str, storage: str, kind: str) -> QueueClient:
    """The queue of a kind that a data-management endpoint offers, with the key of the storage account."""
    client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(dm))
    found = client.execute_mgmt("NetDefaultDB", ".get ingestion resources").primary_results[0]
    (url,) = [row["StorageRoot"] for row in found if row["ResourceTypeName"] == kind]
    name = urlsplit(url).path.rpartition("/")[2]
    return QueueServiceClient.from_connection_string(storage).get_queue_client(name)


def ready_queue(dm: str, storage: str) -> QueueClient:
    """The queue into which messages go; one that is there has not been ingested yet."""
    return adx_queue(dm, storage, "SecuredReadyForAggregationQueue")


def flights(*offsets: int, partition: int = 0) -> list[Sent]:
    """Sound records of these offsets."""
    return [Sent(json.dumps({"n": offset}).encode(), offset, partition, key=b"EWR") for offset in offsets]


def once(*offsets: int, partition: int = 0) -> dict[tuple[int, int], int]:
    """What the counters say of offsets that are there exactly once."""
    return dict.fromkeys([(partition, offset) for offset in offsets], 1)
