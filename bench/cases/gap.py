"""A gap of a million records drains while live traffic runs: what that costs the live records."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer

from bench.cases import Options
from bench.data import records
from bench.measure import Result
from bench.stack import stack
from localrunner.demo.kusto import DB, METADATA, Adx
from localrunner.demo.produce import PARTITIONS, produce
from localrunner.demo.records import Feed
from localrunner.processes import wait_until
from sinkcore.clients import build_app
from sinkcore.operate import replay
from sinkcore.sink import Topic

TOPIC = "live"
RATE = 5_000
GAP_RECORDS, QUICK_RECORDS = 1_000_000, 20_000
LIVE_S, QUICK_S = 15.0, 3.0
WAIT_S = 300.0
TICK_S = 0.02
MARK = 1.2

_QUEUED = re.compile(r"^(\S+)Z .*?\bsegment_queued (\{.*?\})(?: |$)", re.MULTILINE)


def run(options: Options) -> Iterator[Result]:
    """Both shares of one run: 15 s without a gap, then for as long as the gap drains. From produce to queued."""
    whole, live_s = (QUICK_RECORDS, QUICK_S) if options.quick else (GAP_RECORDS, LIVE_S)
    values = records("256 B", 5_000)
    keyed = [(b"%d" % (n % 97), value) for n, value in enumerate(islice(cycle(values), whole))]
    feed = Feed(TOPIC, "Flights", keyed, whole, 0, "distance", 0)
    route = {"topic": TOPIC, "db": DB, "table": "Flights", "mapping": "FlightsMapping", "metadata": METADATA}
    sets = ["SINK_SWEEP_SCHEDULE=*/5 * * * * *", "SINK_PENDING_MAX=100000"]
    with stack([route], sets) as running:
        Adx(running.addresses["engine"]).make_tables()
        sink = build_app(running.plan.settings).sink
        produce(running.addresses["kafka"], [feed])
        wait_until("the records are taken once", lambda: _taken(sink.topic(TOPIC)) >= whole, WAIT_S)
        ends = {p: position.next_offset for p, position in sink.topic(TOPIC).ledger.positions().items()}
        with _Live(running.addresses["kafka"], values) as live:
            time.sleep(live_s)
            gap_began = time.time()
            for partition, end in ends.items():
                replay(sink, sink.topic(TOPIC), partition, 0, end)
            began = time.monotonic()
            wait_until("the gap is drained", lambda: not sink.topic(TOPIC).ledger.gaps(), WAIT_S)
            drained_s = time.monotonic() - began
            gap_ended = time.time()
        wait_until("live records are taken", lambda: _taken(sink.topic(TOPIC)) >= whole + live.count, WAIT_S)
        queued = _queued(running.directory / "logs" / "host-0.log", ends)
    before = _latencies(live.sent, queued, live.began, gap_began)
    during = _latencies(live.sent, queued, gap_began, gap_ended)

    def result(what: str, value: float, unit: str, mark: float | None = None) -> Result:
        return Result("gap", "256 B", whole, what, value, unit, mark)

    yield result("gap drains at", whole / drained_s, "records/s")
    yield result("p95 without a gap", 1000 * _p95(before), "ms")
    yield result("p95 while it drains", 1000 * _p95(during), "ms")
    yield result("p95, with / without", _p95(during) / _p95(before), "", MARK)


class _Live:
    """RATE records a second, spread over the partitions, and when each was produced."""

    def __init__(self, brokers: str, values: list[bytes]) -> None:
        self.sent: dict[tuple[int, int], float] = {}
        self.began = time.time()
        self.count = 0
        self._values = values
        self._producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "log_level": 3})
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        assert self._producer.flush(WAIT_S) == 0

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ends.wait(TICK_S):
            due = int((time.monotonic() - began) * RATE)
            now = time.time()
            for n in range(self.count, due):
                self._producer.produce(
                    TOPIC,
                    self._values[n % len(self._values)],
                    partition=n % PARTITIONS,
                    on_delivery=partial(self._note, now),
                )
            self.count = due
            self._producer.poll(0)

    def _note(self, produced: float, error: Any, message: Any) -> None:
        assert error is None
        self.sent[message.partition(), message.offset()] = produced


def _taken(topic: Topic) -> int:
    return sum(position.next_offset for position in topic.ledger.positions().values())


def _queued(log: Path, ends: dict[int, int]) -> dict[tuple[int, int], float]:
    """When each live record was in ADX's queue, by the host's log."""
    found = {}
    for moment, facts in _QUEUED.findall(log.read_text(errors="replace")):
        at = datetime.fromisoformat(f"{moment}+00:00").timestamp()
        for partition, first, end in msgspec.json.decode(facts)["ranges"]:
            for offset in range(max(first, ends[partition]), end):
                found[partition, offset] = at
    return found


def _latencies(
    sent: dict[tuple[int, int], float], queued: dict[tuple[int, int], float], begin: float, end: float
) -> list[float]:
    return [queued[at] - produced for at, produced in sent.items() if begin <= produced < end and at in queued]


def _p95(latencies: list[float]) -> float:
    return sorted(latencies)[int(0.95 * (len(latencies) - 1))]
