"""What the ledger and holes cost: batches with everything on, and with a ledger in memory and no holes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import median

import azure.functions as func
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.cases import Options
from bench.data import payload, records
from bench.measure import Result
from bench.stack import stack
from localrunner.demo.kusto import DB, METADATA
from sinkcore.clients import build_app
from sinkcore.reading import NARROW
from sinkcore.settings import read_settings
from sinkcore.sink import Sink
from sinkcore.table import Row
from sinkcore.transaction import Operation

BATCH_RECORDS = 5_000
ROUNDS, QUICK_ROUNDS = 15, 1
ANSWER_S = 60.0
# At most 5 % more CPU a record; at least 70 % of the throughput.
CPU_MARK, TIME_MARK = 1.05, 1 / 0.7


@dataclass(frozen=True, slots=True)
class Lane:
    """A topic, and how its batches are delivered. With `holes` each partition has a marker between two batches."""

    name: str
    partitions: int
    holes: bool
    in_memory: bool = False
    size: str = "256 B"

    @property
    def topic(self) -> str:
        """A name for each size."""
        return f"{self.name}-{self.size.replace(' ', '-')}"


# Few partitions for the CPU, many for the throughput.
BARE = Lane("bare", 4, holes=False, in_memory=True)
LEDGER = Lane("ledger", 4, holes=False)
WHOLE = Lane("whole", 4, holes=True)
PLAIN = Lane("plain", 50, holes=False)
MARKED = Lane("marked", 50, holes=True)
SIZES = ("256 B", "1 KB")
LANES = (*(replace(lane, size=size) for size in SIZES for lane in (BARE, LEDGER, WHOLE)), PLAIN, MARKED)


@dataclass
class _MemoryTable:
    """A table without conditions: one writer needs none."""

    rows_by_key: dict[tuple[str, str], Row] = field(default_factory=dict)
    etags: Iterator[int] = field(default_factory=count)

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        etags = []
        for operation in operations:
            at = (partition, operation.key)
            before = self.rows_by_key.pop(at, None)
            etags.append("" if operation.kind == "delete" else str(next(self.etags)))
            if operation.kind != "delete":
                kept = dict(before.values) if before is not None and operation.kind == "merge" else {}
                self.rows_by_key[at] = Row(operation.key, {**kept, **operation.values}, etags[-1], 0.0)
        return etags

    def get(self, partition: str, key: str) -> Row | None:
        return self.rows_by_key.get((partition, key))

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        for (group, key), row in sorted(self.rows_by_key.items()):
            if group == partition and key.startswith(prefix) and (not before or key < before):
                yield row


def run(options: Options) -> Iterator[Result]:
    """Batches to Azurite, Kafka and the double from this process, all kinds in turns; CPU of all its threads."""
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    routes = [{"topic": lane.topic, "db": DB, "table": "Flights", "metadata": METADATA} for lane in LANES]
    # The stack's own host has another topic and another ledger, and so nothing to do.
    with stack([{"topic": "idle", "db": DB, "table": "Flights"}]) as running:
        brokers = running.addresses["kafka"]
        batches = {lane: _batches(brokers, lane, rounds + 1) for lane in LANES}
        values = {**running.plan.values, "SINK_TOPICS_MAPPING": json.dumps(routes), "SINK_LEDGER_TABLE": "bench"}
        sink = build_app(read_settings(values), new_ledger=True).sink
        work: dict[Lane | str, Callable[[], None]] = {
            lane: _deliveries(sink, lane, batches[lane]) for lane in LANES
        }
        consumer = Consumer(NARROW | {"bootstrap.servers": brokers, "log_level": 3})
        for size in SIZES:
            work[size] = _questions(consumer, replace(WHOLE, size=size))
        cpu_s: dict[Lane | str, list[float]] = {each: [] for each in work}
        took_s: dict[Lane | str, list[float]] = {each: [] for each in work}
        for number in range(rounds + 1):
            for each, run_once in work.items():
                began, cpu_began = time.monotonic(), time.process_time()
                run_once()
                if number:
                    cpu_s[each].append(time.process_time() - cpu_began)
                    took_s[each].append(time.monotonic() - began)
        consumer.close()
    cpu, took = ({each: median(times) for each, times in all_s.items()} for all_s in (cpu_s, took_s))
    for size in SIZES:
        bare, ledger, whole = (cpu[replace(lane, size=size)] for lane in (BARE, LEDGER, WHOLE))
        yield from _cpu(size, bare, ledger, whole, cpu[size])

    def result(what: str, value: float, unit: str, mark: float | None = None) -> Result:
        return Result("delivery", f"256 B, {MARKED.partitions} p.", BATCH_RECORDS, what, value, unit, mark)

    for lane, what in ((PLAIN, "plain"), (MARKED, "markers at each boundary")):
        yield result(what, BATCH_RECORDS / took[lane], "records/s")
    yield result("time, markers / plain", took[MARKED] / took[PLAIN], "", TIME_MARK)


def _cpu(size: str, bare: float, ledger: float, whole: float, question: float) -> Iterator[Result]:
    """The seconds of CPU of a batch, as figures."""

    def result(what: str, value: float, unit: str, mark: float | None = None) -> Result:
        return Result("delivery", f"{size}, {BARE.partitions} p.", BATCH_RECORDS, what, value, unit, mark)

    yield result("CPU bare", 1e6 * bare / BATCH_RECORDS, "us/record")
    yield result("CPU of the ledger", 1e3 * (ledger - bare), "ms/batch")
    yield result("CPU of the holes", 1e3 * (whole - ledger), "ms/batch")
    yield result("CPU of librdkafka's question", 1e3 * question, "ms/batch")
    yield result("ledger / bare", ledger / bare, "")
    yield result("ledger and holes / bare", whole / bare, "", CPU_MARK)
    yield result("least: (bare + question) / bare", (bare + question) / bare, "")


def _batches(brokers: str, lane: Lane, number: int) -> list[list[func.KafkaEvent]]:
    """The batches are in Kafka, and are as the trigger would deliver them."""
    admin = AdminClient({"bootstrap.servers": brokers})  # with it gone, its futures fail
    admin.create_topics([NewTopic(lane.topic, lane.partitions)])[lane.topic].result(ANSWER_S)
    config: dict[str, object] = {"bootstrap.servers": brokers, "linger.ms": 20, "log_level": 3}
    producer = Producer(config | ({"transactional.id": lane.topic} if lane.holes else {}))
    if lane.holes:
        producer.init_transactions(ANSWER_S)
    events = payload(records(lane.size, BATCH_RECORDS)).decode()
    each = BATCH_RECORDS // lane.partitions
    batches = []
    for batch in range(number):
        if lane.holes:
            producer.begin_transaction()
        first = batch * (each + lane.holes)  # the marker takes an offset
        moved = [
            func.KafkaEvent(
                body=event.get_body(),
                partition=n // each,
                offset=first + n % each,
                topic=lane.topic,
                timestamp=event.timestamp,
                key=event.key,
                headers=event.headers,
            )
            for n, event in enumerate(events)
        ]
        for event in moved:
            producer.produce(lane.topic, event.get_body(), partition=int(event.partition or 0))
        if lane.holes:
            producer.commit_transaction(ANSWER_S)
        assert producer.flush(ANSWER_S) == 0
        batches.append(moved)
    return batches


def _deliveries(sink: Sink, lane: Lane, batches: list[list[func.KafkaEvent]]) -> Callable[[], None]:
    """Each call delivers the next batch, by a worker that has the topic in memory."""
    table = _MemoryTable() if lane.in_memory else sink.table
    own = replace(sink, table=table, _topics={})
    if lane.holes:
        own.mark_sparse(own.topic(lane.topic))
    left = iter(batches)
    return lambda: own.deliver(lane.topic, next(left))


def _questions(consumer: Consumer, lane: Lane) -> Callable[[], None]:
    """Each call asks Kafka about the markers behind the next batch, with librdkafka alone and none of the sink."""
    each = BATCH_RECORDS // lane.partitions
    markers = count(each, each + 1)

    def ask() -> None:
        marker = next(markers)
        consumer.assign([TopicPartition(lane.topic, p, marker) for p in range(lane.partitions)])
        left = set(range(lane.partitions))
        while left:
            message = consumer.poll(ANSWER_S)
            assert message is not None
            partition = message.partition()
            if partition in left:
                left.remove(partition)
                consumer.incremental_unassign([TopicPartition(lane.topic, partition)])

    return ask
