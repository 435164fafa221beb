"""Real parts for tests: one Kafka, one Azurite and one ADX double for a whole test run."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis
import pytest

from localrunner import azurite as azurite_process
from localrunner import kafka as kafka_process
from localrunner.components import is_healthy
from localrunner.plan import ROOT
from localrunner.processes import PORTS, PORTS_VARIABLE, free_ports, spawn, stop, wait_until

START_S = 90.0  # of any of them, on a busy machine
STOP_S = 20.0
ADX_TIME_SCALE = "0.001"  # the default batching policy's 5 minutes are 0.3 s

# The same examples in every run: what a run finds is of the change that is tested, and not of its luck.
# A busy machine is no failure.
# `make test ARGS=--hypothesis-profile=default` looks elsewhere each time.
hypothesis.settings.register_profile(
    "fixed", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("fixed")

# Each process of a test run, and what it starts, has ports of its own.
PORTS_OF_A_PROCESS = 1_000
_first_port = PORTS.start + PORTS_OF_A_PROCESS * int(
    os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
)
os.environ.setdefault(PORTS_VARIABLE, f"{_first_port}-{_first_port + PORTS_OF_A_PROCESS}")


@dataclass(frozen=True, slots=True)
class Adx:
    """Where the ADX double listens."""

    dm: str
    engine: str


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a Kafka broker; use `topic_name`, since all tests share it."""
    port, controller_port = free_ports(2)
    directory = tmp_path_factory.mktemp("kafka")
    child = kafka_process.start(directory, directory / "kafka.log", port, controller_port)
    try:
        kafka_process.wait_ready(child, port, START_S)
        yield f"127.0.0.1:{port}"
    finally:
        stop(child, kafka_process.STOP_S)


@pytest.fixture
def topic_name() -> str:
    """The name of a topic that no other test uses; the topic is not made."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of an Azurite; containers, queues and tables need names of their own."""
    ports = free_ports(3)
    directory = tmp_path_factory.mktemp("azurite")
    child = azurite_process.start(directory, directory / "azurite.log", ports, in_memory=True)
    try:
        azurite_process.wait_ready(child, ports, START_S)
        yield azurite_process.connection_string(ports)
    finally:
        stop(child, azurite_process.STOP_S)


@pytest.fixture(scope="session")
def adx(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adx]:
    """The addresses of an ADX double with the database `db`; tables need names of their own."""
    directory = tmp_path_factory.mktemp("adx")
    dm, engine = free_ports(2)
    command = [sys.executable, "-m", "localrunner", "adx", "--data", str(directory), "--storage", azurite]
    command += ["--dm-port", str(dm), "--engine-port", str(engine), "--time-scale", ADX_TIME_SCALE]
    child = spawn("adx", command, directory / "adx.log", cwd=ROOT)
    try:
        wait_until(
            "the ADX double answers",
            lambda: is_healthy(dm) and is_healthy(engine),
            START_S,
            child=child,
        )
        yield Adx(f"http://127.0.0.1:{dm}", f"http://127.0.0.1:{engine}")
    finally:
        stop(child, STOP_S)
