"""Fixtures for tests of the Functions host: a broker's clients, and hosts that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.hosting import Broker, Hosts


@pytest.fixture(scope="session")
def broker(kafka: str) -> Broker:
    """The tests' Kafka and its clients."""
    return Broker(kafka)


@pytest.fixture
def group(topic_name: str) -> str:
    """A consumer group that no other test uses."""
    return f"group-{topic_name}"


@pytest.fixture
def hosts(tmp_path: Path, kafka: str, topic_name: str, group: str) -> Iterator[Hosts]:
    """Starts hosts whose apps know TOPIC, GROUP and KAFKA."""
    found = Hosts(tmp_path, {"KAFKA": kafka, "TOPIC": topic_name, "GROUP": group})
    yield found
    found.close()
