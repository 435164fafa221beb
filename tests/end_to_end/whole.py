"""The whole stack with topics of its own: what is sent into it, how its parts are killed, and what has arrived."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.storage.queue import QueueClient
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from localrunner.demo.kusto import BATCHING, DB, METADATA, Adx
from localrunner.demo.produce import end_offsets
from localrunner.demo.records import Feed
from localrunner.demo.storage import Storage
from localrunner.host.workers import EMULATED
from localrunner.plan import Options, make_plan
from localrunner.processes import wait_until
from localrunner.stack import Stack
from tests.end_to_end.place import ready_queue

# As short as Kafka and the sink's own waiting allow, so that what a killed host leaves behind is settled soon.
SETTINGS = (
    "SINK_INVOCATION_MAX_S=6",
    "SINK_DOUBT_MARGIN_S=0",
    "SINK_SWEEP_SCHEDULE=*/2 * * * * *",
    "AzureFunctionsJobHost__extensions__kafka__sessionTimeoutMs=6000",
    "AzureFunctionsJobHost__extensions__kafka__subscriberIntervalInSeconds=1",
)
OURS = ("SINK", "KAFKA_", "KUSTO_", "AZUREWEBJOBSSTORAGE", "AZUREFUNCTIONSJOBHOST", "SCHEMA_REGISTRY_")
RECORD_MAX_BYTES = 40 * 1024 * 1024
ANSWER_S = 60.0
SETTLES_WITHIN_S = 240.0
# Reading a whole ledger takes longer than this, and it is read by what the stack needs for itself.
LOOK_EVERY_S = 0.5
LOAD_PAUSE_S = 0.2
MAPPING = [{"column": name, "Properties": {"Path": path}} for name, path in (("n", "$.n"), ("kafka", "$._kafka"))]


@dataclass(frozen=True)
class Topic:
    """A topic and the table into which its records go."""

    name: str
    table: str
    partitions: int
    tombstones: str = "skip"

    @property
    def route(self) -> dict[str, str]:
        return {
            "topic": self.name,
            "db": DB,
            "table": self.table,
            "mapping": "m",
            "metadata": METADATA,
            "tombstones": self.tombstones,
        }

    @property
    def feed(self) -> Feed:
        """The topic as the demo's queries take it."""
        return Feed(self.name, self.table, [], 0, 0, "n", 0)


@dataclass
class Whole:
    """A running stack, and how many records its topics have been sent."""

    stack: Stack
    topics: list[Topic]
    producer: Producer
    sent: int = 0
    failed: list[str] = field(default_factory=list)

    def send(self, topic: Topic, partition: int, value: bytes | None, **more: Any) -> int:
        """The record is in Kafka; its offset."""
        offsets: list[int] = []
        self._produce(topic, partition, value, lambda _, message: offsets.append(message.offset()), **more)
        self.flush()
        return offsets[0]

    def flush(self) -> None:
        """Kafka has taken everything."""
        assert self.producer.flush(ANSWER_S) == 0
        assert self.failed == []

    @contextmanager
    def load(self, *topics: Topic) -> Iterator[None]:
        """Each partition of the topics gets a record, again and again, until the block ends."""
        ends = threading.Event()

        def run() -> None:
            while not ends.wait(LOAD_PAUSE_S):
                for topic in topics:
                    for partition in range(topic.partitions):
                        self._produce(topic, partition, b'{"n": 1}')
                self.producer.poll(0)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
        self.flush()

    def wait_quiet(self) -> None:
        """Every record is committed, and ADX has taken and ingested what it was sent.

        Source: a service that is killed between an ingestion's commit and the end of its message ingests the
        blob again (docs/adx-double.md); nothing that the sink could do would prevent that without a tag.
        """
        looks: list[int | None] = [None]

        def quiet() -> bool:
            time.sleep(LOOK_EVERY_S)
            stored = self.storage.stored()
            waiting = self._ready.get_queue_properties().approximate_message_count
            # Between its commit and its message a segment is unfinished, so that one look is not enough.
            looks.append(stored.unfinished if stored.records == self.sent and waiting == 0 else None)
            return looks[-1] is not None and looks[-1] == looks[-2]

        wait_until("nothing is on its way to ADX", quiet, SETTLES_WITHIN_S)

    def finish(self) -> None:
        """Every record is in a finished segment."""

        def finished() -> bool:
            time.sleep(LOOK_EVERY_S)
            stored = self.storage.stored()
            return stored.unfinished == 0 and stored.records == self.sent

        wait_until(f"{self.sent} records are in finished segments", finished, SETTLES_WITHIN_S)

    def settle(self) -> None:
        """Every record is in a finished segment, and dead letters are in a table of their own."""
        self.finish()
        letters = self.storage.stored().dead_letters
        self.storage.ingest_dead_letters(self.stack.addresses["dm"])
        wait_until(f"{letters} dead letters land", lambda: self.adx.dead_letters() >= letters, ANSWER_S)
        rows = self.sent - letters
        wait_until(f"{rows} rows land", lambda: self.row_count() >= rows, ANSWER_S)

    def row_count(self) -> int:
        """The rows of all tables."""
        return sum(self.adx.rows([topic.feed for topic in self.topics]).values())

    def end_offsets(self) -> dict[tuple[str, int], int]:
        """Where Kafka ends, by topic and partition."""
        return end_offsets(self.stack.addresses["kafka"], [topic.name for topic in self.topics])

    def query(self, text: str, db: str = DB) -> list[dict[str, Any]]:
        """What a query returns."""
        return [row.to_dict() for row in self._engine.execute_query(db, text).primary_results[0]]

    def make_tables(self) -> None:
        """The tables are in ADX, with mappings and the shortest batching policy."""
        self.adx.make_tables()
        for topic in self.topics:
            self.make_table(topic.table)

    def make_table(self, table: str, db: str = DB, columns: str = "n: long, kafka: dynamic") -> None:
        """The table is there, with a mapping of JSON and the shortest batching policy."""
        for text in (
            f".create table {table} ({columns})",
            f".alter table {table} policy ingestionbatching @'{BATCHING}'",
            f".create table {table} ingestion json mapping 'm' '{json.dumps(MAPPING)}'",
        ):
            self._engine.execute_mgmt(db, text)

    @cached_property
    def adx(self) -> Adx:
        """The demo's questions to ADX."""
        return Adx(self.stack.addresses["engine"])

    @cached_property
    def storage(self) -> Storage:
        """The demo's questions to the ledger."""
        return Storage(self.stack.plan.settings, self.stack.plan.storage)

    @cached_property
    def _ready(self) -> QueueClient:
        return ready_queue(self.stack.addresses["dm"], self.stack.plan.storage)

    @cached_property
    def _engine(self) -> KustoClient:
        url = self.stack.addresses["engine"]
        return KustoClient(KustoConnectionStringBuilder.with_no_authentication(url))

    def _produce(
        self, topic: Topic, partition: int, value: bytes | None, taken: Any = lambda *_: None, **more: Any
    ) -> None:
        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self.failed.append(str(error))
            taken(error, message)

        self.producer.produce(topic.name, value, partition=partition, on_delivery=delivered, **more)
        self.sent += 1


@contextmanager
def running(
    kafka: str,
    topics: list[Topic],
    directory: Path,
    hosts: int,
    worker: str = EMULATED,
    routes: list[dict[str, Any]] | None = None,
) -> Iterator[Whole]:
    """A stack with these topics on a Kafka that runs already; `routes` replaces the one of each."""
    # Records with old timestamps would otherwise be gone at the broker's next look at retention.
    config = {"max.message.bytes": str(RECORD_MAX_BYTES), "retention.ms": "-1"}
    admin = AdminClient({"bootstrap.servers": kafka})  # with it gone, its futures fail
    made = admin.create_topics([NewTopic(topic.name, topic.partitions, config=config) for topic in topics])
    for future in made.values():
        future.result(ANSWER_S)
    file = directory / "settings.json"
    mapping = json.dumps(routes or [topic.route for topic in topics])
    file.write_text(json.dumps({"Values": {"SINK_TOPICS_MAPPING": mapping}}))
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(OURS)}
    # Below the test's own directory, so that logs and data are there to be read when it has failed.
    data = directory / "stack"
    options = Options(settings_file=file, sets=SETTINGS, kafka=kafka, hosts=hosts, data=data, worker=worker)
    plan = make_plan(options, environment)
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": True,
            "message.max.bytes": RECORD_MAX_BYTES,
            "linger.ms": 5,
            "log_level": 3,
        }
    )
    with Stack(plan) as stack:
        whole = Whole(stack, topics, producer)
        whole.make_tables()
        yield whole
