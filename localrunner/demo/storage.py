"""What the demo reads from storage: the ledger's segments and the dead letters, by the contract's own names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from azure.data.tables import TableServiceClient
from azure.kusto.data import KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest import BlobDescriptor, IngestionProperties, QueuedIngestClient
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas

from localrunner.demo.kusto import DB, DEAD_LETTERS
from sinkcore.settings import Settings

SAS_LIFE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Stored:
    """The segments of the ledger: how many are unfinished, and what the blobs of the finished ones hold."""

    unfinished: int
    records: int
    dead_letters: int
    blobs: int
    raw_bytes: int
    stored_bytes: int


class Storage:
    """The storage account of the stack."""

    def __init__(self, settings: Settings, connection_string: str) -> None:
        self._settings = settings
        self._tables = TableServiceClient.from_connection_string(connection_string)
        self._blobs = BlobServiceClient.from_connection_string(connection_string)

    def stored(self) -> Stored:
        """What the ledger says now."""
        table = self._tables.get_table_client(self._settings.ledger_table)
        segments: list[dict[str, Any]] = [
            dict(row)
            for topic in self._settings.topics
            for row in table.query_entities(
                "PartitionKey eq @group and RowKey ge 's-' and RowKey lt 's.'",
                parameters={"group": self._settings.kafka.group_of(topic)},
            )
        ]
        blobs = [blob for segment in segments for blob in json.loads(segment["blobs"])]
        rows = [blob for blob in blobs if blob["kind"] == "rows"]
        return Stored(
            unfinished=sum(segment["state"] == "staged" for segment in segments),
            records=sum(segment["records"].value for segment in segments),
            dead_letters=sum(segment["dead_letters"].value for segment in segments),
            blobs=len(rows),
            raw_bytes=sum(blob["raw_size_bytes"] for blob in rows),
            stored_bytes=sum(blob["stored_size_bytes"] for blob in rows),
        )

    def ingest_dead_letters(self, dm: str) -> int:
        """The dead letters are queued as they lie for a table of their own, as a person would; how many blobs."""
        client = QueuedIngestClient(KustoConnectionStringBuilder.with_no_authentication(dm))
        container = self._blobs.get_container_client(self._settings.dead_letters_container)
        credential = self._blobs.credential
        queued = 0
        for blob in container.list_blobs():
            sas = generate_blob_sas(
                credential.account_name,
                container.container_name,
                blob.name,
                account_key=credential.account_key,
                permission=BlobSasPermissions(read=True),
                expiry=datetime.now(UTC) + SAS_LIFE,
            )
            url = f"{container.get_blob_client(blob.name).url}?{sas}"
            properties = IngestionProperties(
                DB,
                DEAD_LETTERS,
                data_format=DataFormat.JSON,
                ingestion_mapping_reference=f"{DEAD_LETTERS}Mapping",
                additional_properties={},
            )
            client.ingest_from_blob(BlobDescriptor(url, blob.size, uuid4()), properties)
            queued += 1
        return queued
