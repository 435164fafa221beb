"""A small app, and `up` run on it as somebody would at a prompt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from localrunner.plan import ROOT
from localrunner.processes import log_tail
from tests.localrunner.processes import eventually, family, living

# Two stacks side by side with other work on two cores take longer than the 4 s that one takes alone.
READY_S = 90.0
END_S = 60.0

TOPIC, GROUP, DATABASE = "small.topic", "small-group", "smalldb"
MAPPING = json.dumps([{"topic": TOPIC, "db": DATABASE, "table": "Rows"}])
FUNCTION_APP = """\
import logging
import azure.functions as func

app = func.FunctionApp()


@app.function_name("take")
@app.generic_trigger(arg_name="records", type="kafkaTrigger", topic="small.topic", brokerList="%KAFKA_BROKERS%",
                     consumerGroup="small-group", cardinality="MANY", dataType="binary")
def take(records):
    logging.info("took %d", len(records))
"""


@pytest.fixture(scope="session")
def small_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with one function, which only counts what it is given."""
    directory = tmp_path_factory.mktemp("app")
    host = json.loads((ROOT / "host.json").read_text())
    host["extensions"]["kafka"] |= {"subscriberIntervalInSeconds": 1, "sessionTimeoutMs": 10_000}
    (directory / "host.json").write_text(json.dumps(host))
    (directory / "function_app.py").write_text(FUNCTION_APP)
    return directory


@dataclass
class Up:
    """A running `up`, and what its ready file says."""

    process: subprocess.Popen[bytes]
    ready_file: Path
    screen: Path
    output: IO[bytes]

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def pid(self, name: str) -> int:
        found: int = self.ready()["pids"][name]
        return found

    def wait_ready(self) -> dict[str, Any]:
        def written() -> bool:
            assert self.process.poll() is None, log_tail(self.screen)
            return self.ready_file.exists()

        eventually("the ready file is there", written, READY_S)
        return self.ready()

    def end(self, number: int) -> tuple[int, set[int]]:
        """Its exit code after that signal, and the processes of it that are left once it is gone."""
        everyone = family(self.process.pid)
        self.process.send_signal(number)
        code = self.process.wait(timeout=END_S)
        if number == signal.SIGKILL:
            eventually("nothing of it is left", lambda: not living(everyone), END_S)
        return code, living(everyone)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=END_S)
        self.output.close()


class Starter:
    """Starts any number of `up`, and ends those that are left."""

    def __init__(self, app: Path, directory: Path) -> None:
        self.app, self.directory, self.started = app, directory, list[Up]()

    def start(self, *options: str, environment: Mapping[str, str] = os.environ) -> Up:
        number = len(self.started)
        screen, ready = self.directory / f"screen-{number}.txt", self.directory / f"ready-{number}.json"
        command = [sys.executable, "-m", "localrunner", "up", "--app", str(self.app), "--ready-file", str(ready)]
        output = screen.open("wb")
        process = subprocess.Popen(
            [*command, "--set", f"SINK_TOPICS_MAPPING={MAPPING}", *options],
            cwd=ROOT,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        self.started.append(Up(process, ready, screen, output))
        return self.started[-1]


@pytest.fixture(scope="module")
def starter(small_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts `up` on the small app."""
    found = Starter(small_app, tmp_path_factory.mktemp("up"))
    try:
        yield found
    finally:
        for up in found.started:
            up.close()
