"""From the start of a worker's process to its first staged batch, beside importing the SDKs alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from bench.cases import Options
from bench.measure import Result
from bench.stack import stack
from localrunner.demo.kusto import DB

_MARK = 1.5
_BATCH = 500
_ROUNDS = 7
_TIMEOUT_S = 60
# The five packages that the app is built on, as an app would import them.
_SDKS = "import azure.functions, azure.identity, azure.storage.blob, azure.kusto.ingest, confluent_kafka"
_FIRST_BATCH = """
import json, sys
from azure.functions import KafkaEvent
import function_app
from sinkcore.settings import read_settings
import os
app = function_app._app(read_settings(os.environ))

class Staged(BaseException):
    pass

class Blobs:
    def put(self, *args):
        inner.put(*args)
        raise Staged

inner, app.sink.blobs = app.sink.blobs, Blobs()
events = [
    KafkaEvent(body=b'{"flight":%d}' % n, partition=0, offset=n, topic="flights", timestamp="2013-01-01T10:00:00Z")
    for n in range(int(sys.argv[1]))
]
try:
    app.sink.deliver("flights", events)
except Staged:
    sys.exit(0)
sys.exit("nothing was staged")
"""


def run(options: Options) -> Iterator[Result]:
    """Processes in turns, after one round that compiles and warms the file cache."""
    with stack([{"topic": "flights", "db": DB, "table": "Flights"}]) as running:
        environment = {**running.plan.values, "PYTHONPATH": "."}
        commands = {
            "SDK imports": [sys.executable, "-c", _SDKS],
            "first staged batch": [sys.executable, "-c", _FIRST_BATCH, str(_BATCH)],
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(2 if options.quick else _ROUNDS + 1):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, env=environment, timeout=_TIMEOUT_S, capture_output=True)
                if number:
                    took[name].append(time.perf_counter() - began)
    medians = {name: median(times) for name, times in took.items()}
    for name, seconds in medians.items():
        yield Result("start", "first batch", _BATCH, name, seconds * 1000, "ms")
    ratio = medians["first staged batch"] / medians["SDK imports"]
    yield Result("start", "first batch", _BATCH, "first staged batch / SDK imports", ratio, "", _MARK)
