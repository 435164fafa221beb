"""The Functions host alone: records from Kafka to a function that returns at once, with one core for the host."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.cases import Options
from bench.measure import Result
from localrunner import kafka
from localrunner.demo.cpu import cpu_seconds
from localrunner.plan import ROOT
from localrunner.processes import Child, free_ports, spawn, stop, wait_until

TOPIC = "flights"
PARTITIONS = 4
VALUE_BYTES = 256
BATCH_RECORDS = 5000
AHEAD_BATCHES = 3  # exist before the function is let go, and so do not count
WHOLE = 1_000_000
QUICK = 50_000
# 150,000 records a second.
MARK_US = 1e6 / 150_000
WAIT_S = 120.0
STOP_S = 20.0
LOOK_S = 0.5

APP = """
import json, time, typing
from pathlib import Path
import azure.functions as func

app = func.FunctionApp()
HERE = Path(__file__).parent

@app.function_name("take")
@app.kafka_trigger(arg_name="records", topic="flights", broker_list="%KAFKA%", consumer_group="bench",
                   cardinality="many", data_type="binary", key_data_type="binary")
def take(records: typing.List[func.KafkaEvent]) -> None:
    (HERE / "begun").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
    with open(HERE / "taken", "a") as taken:
        taken.write(json.dumps([len(records), time.monotonic()]) + "\\n")
"""


def run(options: Options) -> Iterator[Result]:
    """The rate from the first batch to the last, and CPU by process from then to then."""
    count = QUICK if options.quick else WHOLE
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _broker(Path(folder)) as (broker, address):
        _produce(address, count)
        app = Path(folder) / "app"
        app.mkdir()
        with _host(app, address) as (host, worker):
            pids = {"host": host.pid, "worker": worker, "kafka": broker.pid}
            _pin({"host": 0, "worker": 1, "kafka": 1}, pids)
            _wait_quiet(host.pid)
            before = _cpu(pids)
            (app / "go").touch()
            wait_until(
                "all records are taken", lambda: sum(n for n, _ in _taken(app)) >= count, WAIT_S, child=host
            )
            used = {name: after - before[name] for name, after in _cpu(pids).items()}
            taken = _taken(app)

    def result(what: str, value: float, unit: str, mark: float | None = None) -> Result:
        return Result("host", f"{VALUE_BYTES} B", BATCH_RECORDS, what, value, unit, mark)

    later = taken[AHEAD_BATCHES:]
    records = sum(number for number, _ in later)
    seconds = later[-1][1] - taken[AHEAD_BATCHES - 1][1]
    yield result("records/s", records / seconds, "")
    yield result("time", 1e6 * seconds / records, "us/record", MARK_US)
    for name, cpu_s in used.items():
        yield result(f"CPU {name}", 1e6 * cpu_s / records, "us/record")


@contextmanager
def _broker(folder: Path) -> Iterator[tuple[Child, str]]:
    port, controller_port = free_ports(2)
    child = kafka.start(folder / "kafka", folder / "kafka.log", port, controller_port)
    try:
        kafka.wait_ready(child, port)
        yield child, f"127.0.0.1:{port}"
    finally:
        stop(child, kafka.STOP_S)


def _produce(address: str, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(WAIT_S)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 50, "queue.buffering.max.messages": count + 1})
    value = (b'{"flight": 1545, "carrier": "UA"}' * VALUE_BYTES)[:VALUE_BYTES]
    for number in range(count):
        key = b"order-%08d" % number
        producer.produce(TOPIC, value, key, partition=number % PARTITIONS, headers=[("type", b"order")])
    left = producer.flush(WAIT_S)
    assert left == 0, f"{left} records were not taken within {WAIT_S:g} s"


@contextmanager
def _host(app: Path, address: str) -> Iterator[tuple[Child, int]]:
    """A host with the shipped host.json, whose function has begun its first batch; and its worker's process id."""
    (app / "function_app.py").write_text(APP)
    shutil.copy(ROOT / "host.json", app)
    status = app / "status.json"
    command = [sys.executable, "-m", "localrunner.host", f"--app={app}", f"--status-file={status}"]
    child = spawn("host", [*command, f"--set=KAFKA={address}"], app / "host.log", cwd=ROOT)
    try:
        wait_until("the function has begun", (app / "begun").exists, WAIT_S, child=child)
        yield child, int(json.loads(status.read_text())["worker"])
    finally:
        stop(child, STOP_S)


def _pin(cores: Mapping[str, int], pids: Mapping[str, int]) -> None:
    """Every thread of each process stays on its core, where the system can do that and has two."""
    if not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2:
        return
    for name, pid in pids.items():
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[name]})


def _wait_quiet(pid: int) -> None:
    """The process has nothing to do any more."""
    deadline = time.monotonic() + WAIT_S
    last_s = -1.0
    while (now_s := cpu_seconds(pid) or 0.0) - last_s > LOOK_S / 10 and time.monotonic() < deadline:
        last_s = now_s
        time.sleep(LOOK_S)


def _cpu(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) or 0.0 for name, pid in pids.items()}


def _taken(app: Path) -> list[tuple[int, float]]:
    """Size and end of each invocation, in their order."""
    file = app / "taken"
    if not file.exists():
        return []
    lines: list[Any] = [
        json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")
    ]
    return [(int(number), float(at)) for number, at in lines]
