"""`localrunner demo`: one JSON object with the contract's names, and an exit code that follows the proof."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from localrunner.demo.cli import Result
from localrunner.plan import ROOT
from tests.localrunner.processes import eventually, family, living

DEMO_S = 180
# The contract's names; `sums_agree` is ours besides.
NAMES = {
    *("records", "rows", "dead_letters", "lost", "twice", "seconds", "records_per_s", "cpu_us_per_record"),
    *("blobs", "raw_bytes", "stored_bytes"),
}
PROVEN = Result(
    records=10,
    rows={"Flights": 7, "Weather": 2},
    dead_letters=1,
    lost=0,
    twice=0,
    sums_agree=True,
    seconds=1.0,
    records_per_s=10,
    cpu_us_per_record={},
    blobs=1,
    raw_bytes=100,
    stored_bytes=10,
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The mock broker keeps few records, which is enough for a host that is killed half way.

    SIGINT is ignored when it starts, as a script's `&` has it; its temporary files lie where a test can look.
    """
    ready_file, temporary = tmp_path_factory.mktemp("demo") / "ready.json", tmp_path_factory.mktemp("temporary")
    process = started(temporary, "--json", "--keep", "--ready-file", str(ready_file))
    timer = threading.Timer(DEMO_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        result = process.stdout.readline()
        lines = iter(process.stdout.readline, "")
        commands = [line.strip() for line in takewhile(lambda line: "/local/batches" not in line, lines)]
        yield Demo(process, json.loads(result), [each for each in commands if each], ready_file, temporary)
    finally:
        timer.cancel()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEMO_S)


def started(temporary: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "localrunner", "demo", "--kafka", "mock", *options]
    return subprocess.Popen(
        ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Demo:
    process: subprocess.Popen[str]
    found: dict[str, Any]
    commands: list[str]
    ready_file: Path
    temporary: Path


def test_the_demo_prints_one_object_with_the_contracts_names(demo: Demo) -> None:
    assert demo.found.keys() == NAMES | {"sums_agree"}
    assert (demo.found["lost"], demo.found["twice"]) == (0, 0)
    assert sum(demo.found["rows"].values()) + demo.found["dead_letters"] == demo.found["records"]
    assert demo.found["cpu_us_per_record"].keys() >= {"worker-0", "host-0", "adx", "azurite"}


def test_what_is_kept_up_answers_the_commands_as_they_are_printed(demo: Demo) -> None:
    queries = [command for command in demo.commands if "rest/query" in command]
    assert len(queries) == 2
    for command in queries:
        answer = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602
        primary = next(frame for frame in json.loads(answer.stdout) if frame.get("TableKind") == "PrimaryResult")
        assert sum(row[1 if "longest" in command else 2] for row in primary["Rows"]) > 0


def test_the_operators_audit_of_what_is_kept_up_finds_nothing_wrong(demo: Demo) -> None:
    for command in [command for command in demo.commands if "sinkctl" in command]:
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S602
        assert done.returncode == 0, done.stdout + done.stderr

    ends = re.findall(r"^\w+ \d: 0 to (\d+), 0 in gaps", done.stdout, re.MULTILINE)
    assert sum(map(int, ends)) == demo.found["records"]


def test_an_interrupt_ends_a_demo_that_was_kept_up_and_all_of_its_processes(demo: Demo) -> None:
    pids = json.loads(demo.ready_file.read_text())["pids"]

    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(DEMO_S) == 0, "the proof holds"
    assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()] == []
    assert list(demo.temporary.iterdir()) == []


def test_sigterm_ends_a_demo_on_its_way_with_all_that_it_has_put_into_the_temporary_directory(
    tmp_path: Path,
) -> None:
    """With a Kafka it is 180 MB a time, and what a script or a supervisor sends is SIGTERM."""
    process = started(tmp_path)
    eventually("the double is starting", lambda: list(tmp_path.glob("localrunner-*/logs/adx.log")) != [], DEMO_S)
    everyone = family(process.pid)

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEMO_S)

    assert process.returncode == 128 + signal.SIGTERM
    assert len(everyone) > 2
    assert living(everyone) == set()
    assert list(tmp_path.iterdir()) == []


UNLUCKY = """
import signal, sys
from localrunner.demo import cli
from localrunner.stops import Interrupt

class Parsed:
    @property
    def json(self):
        raise SystemError("a result with an exception set") from Interrupt(signal.SIGTERM)

sys.exit(cli.run(Parsed()))
"""


def test_a_signal_that_comes_up_inside_the_interpreters_own_code_is_a_signal_still() -> None:
    """Seen once in CPython 3.11: SIGTERM at the end of a property became a SystemError, and the exit code 1."""
    done = subprocess.run([sys.executable, "-c", UNLUCKY], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")


def test_without_java_and_docker_the_demo_takes_what_a_mock_broker_can_hold_and_says_so(tmp_path: Path) -> None:
    """More than that the mock drops without a word, and a loss would be proven that is none of the sink's."""
    for tool in ("node", "ps"):
        found = shutil.which(tool)
        assert found is not None, f"{tool}: the other tests need it too"
        (tmp_path / tool).symlink_to(found)
    command = [sys.executable, "-m", "localrunner", "demo", "--no-crash"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "kafka: the mock broker keeps about 5 MB a partition" in done.stdout
    assert "the demo takes 8,000 flights" in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"twice": 1},
        {"sums_agree": False},
        {"dead_letters": 0},
        {"rows": {"Flights": 8, "Weather": 2}},
    ],
)
def test_whatever_does_not_add_up_is_not_proven(wrong: dict[str, object]) -> None:
    assert PROVEN.proven
    assert not replace(PROVEN, **wrong).proven  # type: ignore[arg-type]
