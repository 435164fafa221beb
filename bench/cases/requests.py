"""How many requests a batch costs, by its partitions: what the SDKs themselves say that they sent."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import azure.functions as func

from bench.cases import Options
from bench.data import payload, records
from bench.measure import Result
from bench.stack import stack
from localrunner.demo.kusto import DB
from sinkcore.clients import build_app
from sinkcore.settings import Settings

_TOPIC = "flights"
_PARTITIONS = (1, 10, 45, 100)
_RECORDS = 900  # divides by every number of partitions, so that no offset is missing
_SDK_LOG = "azure.core.pipeline.policies.http_logging_policy"


class _Requests(logging.Handler):
    """Counts the requests that the Azure SDKs log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """One request is one line that begins so, whatever follows it."""
        self.count += str(record.msg).startswith("Request URL")


def run(options: Options) -> Iterator[Result]:  # noqa: ARG001 - counts need no repetition
    """Two batches of each kind to Azurite and the double; the second one is counted, when positions are known."""
    log, requests = logging.getLogger(_SDK_LOG), _Requests()
    log.addHandler(requests)
    log.setLevel(logging.INFO)
    log.propagate = False
    counts = {}
    try:
        with stack([{"topic": _TOPIC, "db": DB, "table": "Flights"}]) as running:
            for partitions in _PARTITIONS:
                counts[partitions] = _count(running.plan.settings, partitions, requests)
    finally:
        log.removeHandler(requests)
    for partitions, count in counts.items():
        mark = counts[1] if partitions <= 45 else None
        yield Result("requests", f"{partitions} partitions", _RECORDS, "storage requests", count, "", mark)


def _count(settings: Settings, partitions: int, requests: _Requests) -> int:
    """A worker of its own, so that what it remembers of other batches does not count."""
    app = build_app(settings)
    for _ in range(2):
        requests.count = 0
        app.sink.deliver(_TOPIC, _batch(partitions))
    return requests.count


_next = 0


def _batch(partitions: int) -> list[func.KafkaEvent]:
    """Flights over so many partitions, each beginning where the batch before ended."""
    global _next
    events = payload(records("256 B", _RECORDS)).decode()
    first, each = _next, -(-_RECORDS // partitions)
    _next += each
    return [
        func.KafkaEvent(
            body=event.get_body(),
            partition=number % partitions + 1000 * partitions,
            offset=first + number // partitions,
            topic=_TOPIC,
            timestamp=event.timestamp,
            key=event.key,
            headers=event.headers,
        )
        for number, event in enumerate(events)
    ]
