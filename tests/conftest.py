"""Real parts for tests: one Kafka, one Azurite and one ADX double for a whole test run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from localrunner import azurite as azurite_process
from localrunner import kafka as kafka_process
from localrunner.processes import free_ports, stop


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a Kafka broker; use `topic_name`, since all tests share it."""
    port, controller_port = free_ports(2)
    directory = tmp_path_factory.mktemp("kafka")
    child = kafka_process.start(directory, directory / "kafka.log", port, controller_port)
    try:
        kafka_process.wait_ready(child, port)
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
        azurite_process.wait_ready(child, ports)
        yield azurite_process.connection_string(ports)
    finally:
        stop(child, azurite_process.STOP_S)
