"""Credentials and SDK clients, built once and from settings alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from azure.core.credentials import TokenCredential
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient

from sinkcore.clock import Clock, SystemClock
from sinkcore.connections import Kusto
from sinkcore.failures import AdxFailures
from sinkcore.ingest import QUEUE_TIMEOUT_S, AdxQueue
from sinkcore.kafkalog import ConfluentLog
from sinkcore.landed import AdxRows
from sinkcore.schemas import Schemas
from sinkcore.settings import Settings
from sinkcore.sink import Sink
from sinkcore.staging import AzureBlobs, SignWithDelegationKey, read_by_managed_identity, sign_with_account_key
from sinkcore.storage import Storage
from sinkcore.sweep import Sweeper
from sinkcore.table import AzureTable

if TYPE_CHECKING:
    from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
    from azure.kusto.ingest import QueuedIngestClient

# A socket that hangs must not eat the invocation's time: it is given up after an eighth of it, or after this at
# the most, and the call made again.
CONNECT_TIMEOUT_MAX_S = 5.0
READ_TIMEOUT_MAX_S = 20.0
TIMEOUT_MIN_S = 1.0
TRY_SHARE = 1 / 8
# After 2 s, then after 4 more. Source: by itself the SDK waits for 15 s and more, which most invocations have not.
BLOB_RETRIES: dict[str, Any] = {
    "retry_total": 2,
    "initial_backoff": 0,
    "increment_base": 2,
    "random_jitter_range": 1,
}
# A larger body goes in blocks of 4 MiB. Source: the SDK gives a whole send no more time than a connect, so that
# one of 64 MiB, its own limit, would never get through a slow line.
SINGLE_PUT_MAX_BYTES = 8 << 20
UPLOAD_THREADS = 8


@dataclass(frozen=True, slots=True)
class App:
    """What a worker process keeps: the sink, and the sweeper with a sink of its own."""

    sink: Sink
    sweeper: Sweeper

    def sweep(self) -> int:
        """What was left undone is done; how many segments were finished."""
        return self.sweeper.sweep()


def build_app(settings: Settings, clock: Clock | None = None, *, new_ledger: bool = False) -> App:
    """An app on Azure's clients (or the local ones, by the same settings), with its table and containers made.

    Raises:
        TransientError: storage did not answer, or the table is missing where the app has run before: it was
            dropped, and only a person may begin with a new one (`new_ledger`).
    """
    clock = clock or SystemClock()
    blob_service, table_service = _storage_services(settings.storage, settings.invocation_max_s)
    table = AzureTable(table_service.get_table_client(settings.ledger_table))
    blobs = AzureBlobs(blob_service, _signer(settings, blob_service, clock))
    if new_ledger or not blobs.has_container(settings.staging_container):
        table.create_if_missing()
    table.check()
    blobs.create_container_if_missing(settings.staging_container)
    blobs.create_container_if_missing(settings.dead_letters_container)
    schemas: Schemas | None = None
    if settings.registry.url is not None:
        from sinkcore.registry import Registry

        schemas = Registry(settings.registry, clock)
    kusto = settings.kusto
    sink = Sink(
        settings=settings,
        table=table,
        blobs=blobs,
        kafka=ConfluentLog(settings.kafka, clock),
        queue=AdxQueue(lambda: _ingest_client(kusto), ingest_by=settings.delivery == "exactly_once"),
        clock=clock,
        executor=ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="sink"),
        schemas=schemas,
    )
    landed = AdxRows(lambda: _query_client(kusto), clock)
    failures = AdxFailures(lambda: _ingest_client(kusto))
    return App(sink, Sweeper(replace(sink, _topics={}), landed, failures))


def _storage_services(storage: Storage, invocation_max_s: int) -> tuple[BlobServiceClient, TableServiceClient]:
    try_s = max(TIMEOUT_MIN_S, invocation_max_s * TRY_SHARE)
    options: dict[str, Any] = {
        "connection_timeout": min(CONNECT_TIMEOUT_MAX_S, try_s),
        "read_timeout": min(READ_TIMEOUT_MAX_S, try_s),
        "use_env_settings": _has_proxy(),
    }
    credential = _storage_credential(storage) if storage.connection_string is None else None

    def client(kind: Any, uri: str | None, **more: Any) -> Any:
        if storage.connection_string is not None:
            return kind.from_connection_string(storage.connection_string, **options, **more)
        return kind(uri, credential=credential, **options, **more)

    return (
        client(
            BlobServiceClient, storage.blob_service_uri, **BLOB_RETRIES, max_single_put_size=SINGLE_PUT_MAX_BYTES
        ),
        # A transaction is never sent twice behind the ledger's back; sinkcore.table reads with retries of its own.
        client(TableServiceClient, storage.table_service_uri, retry_total=0),
    )


def _has_proxy() -> bool:
    """Whether the environment says anything about the way out: with each request, `requests` would otherwise look
    through all of it for nothing."""
    return bool(getproxies()) or any(os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))


def _signer(settings: Settings, service: BlobServiceClient, clock: Clock) -> Callable[[str, str], str]:
    if settings.staged_blob_access != "sas":
        return read_by_managed_identity(settings.staged_blob_access)
    if settings.storage.connection_string is None:
        return SignWithDelegationKey(service, clock)
    return sign_with_account_key(service.credential.account_name, service.credential.account_key, clock)


def _storage_credential(storage: Storage) -> TokenCredential:
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    # Source: "managedidentity" and a client id are how Functions names an identity in a connection's settings.
    if storage.credential is not None:
        return ManagedIdentityCredential(client_id=storage.client_id)
    return DefaultAzureCredential()


def _ingest_client(kusto: Kusto) -> QueuedIngestClient:
    """A client that sends a message once at the most, and does not wait for an hour.

    Source: azure-kusto-ingest 6.0.4 has no settings for these. Whatever its first failure was, even a lost reply,
    it sends the message again: four times to one queue, then to two others.
    """
    from azure.kusto.ingest import QueuedIngestClient, ingest_client
    from azure.storage.queue import QueueServiceClient

    once = partial(QueueServiceClient, retry_total=0, use_env_settings=_has_proxy())
    ingest_client.QueueServiceClient = once  # type: ignore[assignment,attr-defined]
    client = QueuedIngestClient(_connection(kusto.ingestion_url, kusto))
    client._MAX_RETRIES = 1
    # Calls that were given up would hang on for an hour, and hold back those after them.
    manager = client._resource_manager._kusto_client
    manager._mgmt_default_timeout = timedelta(seconds=QUEUE_TIMEOUT_S)  # type: ignore[misc]
    return client


def _query_client(kusto: Kusto) -> KustoClient:
    from azure.kusto.data import KustoClient

    return KustoClient(_connection(kusto.query_url, kusto))


def _connection(url: str, kusto: Kusto) -> KustoConnectionStringBuilder:
    from azure.kusto.data import KustoConnectionStringBuilder

    if kusto.authentication == "none":
        return KustoConnectionStringBuilder.with_no_authentication(url)
    return KustoConnectionStringBuilder.with_azure_token_credential(url, _kusto_credential(kusto))


def _kusto_credential(kusto: Kusto) -> TokenCredential:
    from azure import identity

    if kusto.authentication == "application":
        return identity.ClientSecretCredential(
            str(kusto.tenant_id), str(kusto.client_id), str(kusto.client_secret)
        )
    if kusto.authentication == "azure_cli":
        return identity.AzureCliCredential()
    if kusto.authentication == "workload_identity":
        return identity.WorkloadIdentityCredential(tenant_id=kusto.tenant_id, client_id=kusto.client_id)
    return identity.ManagedIdentityCredential(client_id=kusto.client_id)
