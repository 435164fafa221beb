"""The queues, the container and the table that clients of queued ingestion use, in the storage account given."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.data.tables import TableSasPermissions, TableServiceClient, UpdateMode, generate_table_sas
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, LinearRetry, generate_container_sas
from azure.storage.queue import QueueClient, QueueSasPermissions, QueueServiceClient, generate_queue_sas

_SAS_LIFE = timedelta(hours=24)
_RETRIES = 2


class Resources:
    """Clients for one storage account, with its key.

    Names end in `instance`, so that several doubles can use one account without taking each other's messages.
    """

    def __init__(self, connection_string: str, instance: str, identity_token: str) -> None:
        self.ready_queue = f"adx-ready-{instance}"
        self.failed_queue = f"adx-failed-{instance}"
        self.succeeded_queue = f"adx-succeeded-{instance}"
        self._container = f"adx-temp-{instance}"
        self.status_table = f"adxstatus{instance}"
        self.identity_token = identity_token
        # The SDK's own retries wait 15 s and more, in which no batch would go on.
        again = LinearRetry(backoff=1, retry_total=_RETRIES, random_jitter_range=0)
        self.blobs = BlobServiceClient.from_connection_string(connection_string, retry_policy=again)
        self._queues = QueueServiceClient.from_connection_string(connection_string, retry_total=_RETRIES)
        self._tables = TableServiceClient.from_connection_string(connection_string, retry_total=_RETRIES)
        parts = dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)
        self._account, self._key = parts["AccountName"], parts["AccountKey"]

    def create(self) -> None:
        """Everything exists. Raises: AzureError if storage cannot be reached."""
        for name in (self.ready_queue, self.failed_queue, self.succeeded_queue):
            with contextlib.suppress(ResourceExistsError):
                self._queues.create_queue(name)
        with contextlib.suppress(ResourceExistsError):
            self.blobs.create_container(self._container)
        self._tables.create_table_if_not_exists(self.status_table)

    def queue(self, name: str) -> QueueClient:
        """A client of one queue, whose messages are passed on as the text they are."""
        return self._queues.get_queue_client(name)

    def is_status_table(self, address: str) -> bool:
        """Whether this is the address of the status table, or of the account that it is in."""
        own, asked = urlsplit(str(self._tables.url)), urlsplit(address)
        return asked.netloc == own.netloc and asked.path.strip("/").rpartition("/")[2] in ("", self.status_table)

    def report(self, row: dict[str, object]) -> None:
        """The row of the status table has these properties besides its own.

        Raises:
            AzureError: the table cannot be reached.
        """
        self._tables.get_table_client(self.status_table).upsert_entity(row, UpdateMode.MERGE)

    def delete_blob(self, url: str) -> bool:
        """The blob is gone; False where it is not this account's. A client's SAS need not allow it.

        Raises:
            AzureError: storage cannot be reached.
        """
        own, asked = urlsplit(str(self.blobs.url)), urlsplit(url)
        prefix = own.path.rstrip("/") + "/"
        if asked.netloc != own.netloc or not asked.path.startswith(prefix):
            return False
        container, _, name = unquote(asked.path.removeprefix(prefix)).partition("/")
        with contextlib.suppress(ResourceNotFoundError):
            self.blobs.get_blob_client(container, name).delete_blob()
        return True

    def listed(self) -> list[tuple[str, str]]:
        """Type and address of each resource, as `.get ingestion resources` gives them.

        Source: azure-kusto-ingest 6.0.4 asks again before every ingestion while any of ready queue, failed queue,
        container and status table is missing. Clients may add to the ready queue and take from the other two; the
        container's SAS cannot delete.
        """
        expiry = datetime.now(UTC) + _SAS_LIFE
        container = generate_container_sas(
            self._account,
            self._container,
            account_key=self._key,
            permission=ContainerSasPermissions(read=True, write=True, list=True),
            expiry=expiry,
        )
        table = generate_table_sas(
            AzureNamedKeyCredential(self._account, self._key),
            self.status_table,
            permission=TableSasPermissions(read=True, add=True, update=True),
            expiry=expiry,
        )
        ready = QueueSasPermissions(add=True)
        taken = QueueSasPermissions(read=True, process=True)
        blobs, queues, tables = (str(c.url).rstrip("/") for c in (self.blobs, self._queues, self._tables))
        return [
            (
                "SecuredReadyForAggregationQueue",
                f"{queues}/{self.ready_queue}?{self._queue_sas(self.ready_queue, ready, expiry)}",
            ),
            (
                "FailedIngestionsQueue",
                f"{queues}/{self.failed_queue}?{self._queue_sas(self.failed_queue, taken, expiry)}",
            ),
            (
                "SuccessfulIngestionsQueue",
                f"{queues}/{self.succeeded_queue}?{self._queue_sas(self.succeeded_queue, taken, expiry)}",
            ),
            ("TempStorage", f"{blobs}/{self._container}?{container}"),
            ("IngestionsStatusTable", f"{tables}/{self.status_table}?{table}"),
        ]

    def _queue_sas(self, name: str, permission: QueueSasPermissions, expiry: datetime) -> str:
        return generate_queue_sas(self._account, name, account_key=self._key, permission=permission, expiry=expiry)
