"""Azurite as the stack runs it: what it has acknowledged is still there after SIGKILL, as in Azure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient, TransactionOperation
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from localrunner import azurite
from localrunner.processes import Child, free_ports, kill
from tests.conftest import START_S


@dataclass
class Storage:
    """An Azurite that can be killed and started again on its data."""

    directory: Path
    ports: list[int]
    child: Child

    def restart(self) -> None:
        kill(self.child)
        self.child = azurite.start(self.directory, self.directory / "azurite.log", self.ports)
        azurite.wait_ready(self.child, self.ports, START_S)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    ports = free_ports(3)
    found = Storage(tmp_path, ports, azurite.start(tmp_path, tmp_path / "azurite.log", ports))
    try:
        azurite.wait_ready(found.child, ports, START_S)
        yield found
    finally:
        kill(found.child)


def test_what_azurite_acknowledged_survives_sigkill(storage: Storage) -> None:
    """By itself it writes its state every 5 s, and a ledger that goes back by 5 s looks like lost records."""
    connection = azurite.connection_string(storage.ports)
    with (
        BlobServiceClient.from_connection_string(connection) as blobs,
        QueueServiceClient.from_connection_string(connection) as queues,
        TableServiceClient.from_connection_string(connection) as tables,
    ):
        container, queue, table = (
            blobs.create_container("container"),
            queues.create_queue("queue"),
            tables.create_table("table1"),
        )
        for round_number in range(3):
            container.upload_blob(f"blob-{round_number}", b"x" * 1000)
            queue.send_message(f"message-{round_number}")
            rows = [{"PartitionKey": "p", "RowKey": f"r{n}", "n": round_number} for n in range(5)]
            table.submit_transaction([(TransactionOperation.UPSERT, row) for row in rows])
            table.upsert_entity({"PartitionKey": "p", "RowKey": f"round-{round_number}"})
            table.delete_entity("p", f"round-{round_number - 1}")
            storage.restart()

        assert sorted(blob.name for blob in container.list_blobs()) == ["blob-0", "blob-1", "blob-2"]
        assert container.download_blob("blob-2").readall() == b"x" * 1000
        assert sorted(item["content"] for item in queue.peek_messages(5)) == [f"message-{n}" for n in range(3)]
        found = {entity["RowKey"]: entity.get("n") for entity in table.list_entities()}
        assert found == {"round-2": None} | {f"r{n}": 2 for n in range(5)}


def test_etags_hold_over_a_restart_of_azurite(storage: Storage) -> None:
    """The ledger's positions are guarded by ETags that workers hold while Azurite is started again."""
    with TableServiceClient.from_connection_string(azurite.connection_string(storage.ports)) as tables:
        table = tables.create_table("table1")
        table.create_entity({"PartitionKey": "p", "RowKey": "r", "n": 1})
        before = table.get_entity("p", "r").metadata["etag"]
        storage.restart()
        assert table.get_entity("p", "r").metadata["etag"] == before
