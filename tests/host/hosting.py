"""Hosts for tests, as processes, with small apps that note what they get into a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 90.0  # six hosts at once on a busy machine take a while
POLL_S = 0.02

PRELUDE = """
import json, logging, os, sys, time, typing
from pathlib import Path
import azure.functions as func

app = func.FunctionApp()
HERE = Path(__file__).parent

def note(what, **facts):
    line = json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid(), **facts})
    with open(HERE / "notes.jsonl", "a") as notes:
        notes.write(line + "\\n")

def seen(what):
    path = HERE / "notes.jsonl"
    return sum(json.loads(line)["what"] == what for line in path.read_text().splitlines()) if path.exists() else 0

def until(name):
    while not (HERE / name).exists():
        time.sleep(0.01)

def places(records):
    return [[record.partition, record.offset] for record in records]

def trigger(name="take", **attributes):
    options = {"arg_name": "records", "topic": "%TOPIC%", "broker_list": "%KAFKA%", "consumer_group": "%GROUP%",
               "cardinality": "many", "data_type": "binary", "key_data_type": "binary", **attributes}
    return lambda function: app.function_name(name)(app.kafka_trigger(**options)(function))
"""


def eventually(what: str, look: Callable[[], T | None], timeout_s: float = WAIT_S) -> T:
    """What `look` returns once that is something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not within {timeout_s:g} s")


def never(what: str, look: Callable[[], object], for_s: float = 0.5) -> None:
    """`look` found nothing all the time: what must not happen would have happened at once."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert not look(), what
        time.sleep(POLL_S)


@dataclass
class Broker:
    """The tests' Kafka, with clients that are made once."""

    bootstrap: str
    admin: AdminClient = field(init=False)
    producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self.producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 0, "log_level": 0})

    def create(self, topic: str, partitions: int = 1) -> None:
        # Records with old timestamps would otherwise be gone at the broker's next look at retention.
        topic_as_made = NewTopic(topic, partitions, config={"retention.ms": "-1"})
        self.admin.create_topics([topic_as_made])[topic].result(WAIT_S)

    def produce(self, topic: str, count: int, partition: int = 0) -> None:
        for number in range(count):
            self.producer.produce(topic, f"{partition}-{number}".encode(), partition=partition)
        assert self.producer.flush(WAIT_S) == 0

    def committed(self, group: str) -> dict[int, int]:
        """The group's committed offsets by partition, of its one topic."""
        asked = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        answer = asked[group].result(WAIT_S)
        positions: Sequence[TopicPartition] = answer.topic_partitions or ()
        return {position.partition: position.offset for position in positions if position.offset >= 0}

    def members(self, group: str) -> int:
        """How many consumers the group has."""
        described = self.admin.describe_consumer_groups([group])[group].result(WAIT_S)
        return len(described.members)


@dataclass
class RunningHost:
    """A host process and the app it runs."""

    app: Path
    process: subprocess.Popen[bytes]
    status_file: Path
    log_file: Path

    def status(self) -> dict[str, Any]:
        if not self.status_file.exists():
            return {"state": "none", "worker": None, "functions": [], "error": None}
        content: dict[str, Any] = json.loads(self.status_file.read_text())
        return content

    def log(self) -> str:
        return self.log_file.read_text()

    def notes(self, what: str) -> list[dict[str, Any]]:
        path = self.app / "notes.jsonl"
        if not path.exists():
            return []
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [note for note in map(json.loads, lines) if note["what"] == what]

    def wait_notes(self, what: str, count: int) -> list[dict[str, Any]]:
        def look() -> list[dict[str, Any]] | None:
            found = self.notes(what)
            return found if len(found) >= count else None

        try:
            return eventually(f"{count} notes '{what}'", look)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.log()}") from None

    def wait_running(self) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            status = self.status()
            return status if status["state"] == "running" else None

        return eventually("the host runs", look)

    def wait_log(self, text: str) -> None:
        eventually(f"the log says {text!r}", lambda: text in self.log())

    def release(self, name: str) -> None:
        (self.app / name).touch()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


@dataclass
class Hosts:
    """Starts hosts for one test and ends all of them after it."""

    directory: Path
    settings: Mapping[str, str]
    running: list[RunningHost] = field(default_factory=list)

    def app(self, code: str, kafka: Mapping[str, object] | None = None, **host: object) -> Path:
        """The directory of an app: `kafka` is host.json's `extensions.kafka`, `host` its other options."""
        app = self.directory / f"app-{len(list(self.directory.iterdir()))}"
        app.mkdir()
        options = {
            "subscriberIntervalInSeconds": 1,
            "channelFullRetryIntervalInMs": 5,
            "autoCommitIntervalMs": 50,
            "sessionTimeoutMs": 6000,
            **(kafka or {}),
        }
        document = {"version": "2.0", "extensions": {"kafka": options}, **host}
        (app / "host.json").write_text(json.dumps(document))
        (app / "function_app.py").write_text(PRELUDE + code)
        return app

    def start(self, app: Path, *options: str, **settings: str) -> RunningHost:
        """A host of `app` is starting; `options` are those of its command line."""
        number = len(self.running)
        status_file, log_file = self.directory / f"status-{number}.json", self.directory / f"host-{number}.log"
        sets = [f"--set={name}={value}" for name, value in {**self.settings, **settings}.items()]
        command = [sys.executable, "-m", "localrunner.host", f"--app={app}", f"--status-file={status_file}"]
        command += [*options, *sets]
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        host = RunningHost(app, process, status_file, log_file)
        self.running.append(host)
        return host

    def close(self) -> None:
        for host in self.running:
            if host.process.poll() is None:
                host.process.kill()
            host.process.wait(WAIT_S)


def alive(pid: int) -> bool:
    """Whether a process of this id runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return sys.platform != "linux"
    return state != "Z"
