"""Fixtures for the app on real storage and the ADX double, and proxies that fail between them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tenacity import wait_none

from sinkcore import clients
from tests.conftest import Adx
from tests.end_to_end.place import Place
from tests.support.proxy import FaultProxy, proxy_to


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage and a throttling ADX are asked again at once; a test whose matter the pauses are undoes it."""
    monkeypatch.setitem(clients.BLOB_RETRIES, "increment_base", 0)
    monkeypatch.setitem(clients.BLOB_RETRIES, "random_jitter_range", 0)
    # By itself Kusto's client draws its pauses, of up to 30 s each.
    monkeypatch.setattr("azure.kusto.ingest._resource_manager.wait_random_exponential", lambda **_: wait_none())


@pytest.fixture
def place(azurite: str, adx: Adx) -> Place:
    """A topic with its table in ADX."""
    found = Place(azurite, adx.dm, adx.engine)
    found.make_table()
    return found


@pytest.fixture
def blob_proxy(azurite: str) -> Iterator[FaultProxy]:
    """Stands before Azurite's blobs."""
    with proxy_to(_endpoint(azurite, "Blob")) as proxy:
        yield proxy


@pytest.fixture
def table_proxy(azurite: str) -> Iterator[FaultProxy]:
    """Stands before Azurite's tables."""
    with proxy_to(_endpoint(azurite, "Table")) as proxy:
        yield proxy


@pytest.fixture
def queue_proxy(azurite: str) -> Iterator[FaultProxy]:
    """Stands before Azurite's queues."""
    with proxy_to(_endpoint(azurite, "Queue")) as proxy:
        yield proxy


@pytest.fixture
def dm_proxy(adx: Adx) -> Iterator[FaultProxy]:
    """Stands before the double's data-management endpoint."""
    with proxy_to(adx.dm) as proxy:
        yield proxy


def _endpoint(connection_string: str, service: str) -> str:
    found = re.search(f"{service}Endpoint=([^;]+)", connection_string)
    assert found is not None
    return found[1]
