"""The blob container in which hosts of one app keep what they share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from azure.storage.blob import BlobServiceClient, ContainerClient, LinearRetry

from localrunner.host.logs import HOST, HostLog
from localrunner.host.settings import AppSettings

CONTAINER: Final = "azure-webjobs-hosts"
CONNECT_LIMIT_S: Final = 5
ANSWER_LIMIT_S: Final = 10
# Source: Azure's client for .NET tries three times more, after 0.8 s, 1.6 s and 3.2 s.
RETRIES: Final = 3
RETRY_PAUSE_S: Final = 2


@dataclass(frozen=True, slots=True)
class HostStorage:
    """The container of `AzureWebJobsStorage`, and the name under which all hosts of this app write there."""

    container: ContainerClient
    host_id: str


def open_storage(settings: AppSettings, app_dir: Path, log: HostLog) -> HostStorage | None:
    """The storage of the app's hosts; None where `AzureWebJobsStorage` is no connection string.

    Without it hosts know nothing of each other, and nothing of what they did before.
    """
    connection = settings.get("AzureWebJobsStorage") or ""
    if "=" not in connection:
        return None
    try:
        blobs = BlobServiceClient.from_connection_string(
            connection,
            connection_timeout=CONNECT_LIMIT_S,
            read_timeout=ANSWER_LIMIT_S,
            retry_policy=LinearRetry(backoff=RETRY_PAUSE_S, retry_total=RETRIES, random_jitter_range=1),
        )
    except ValueError:
        log.warning(
            HOST, "AzureWebJobsStorage: is no connection string; timers keep no status and run on each host"
        )
        return None
    return HostStorage(blobs.get_container_client(CONTAINER), host_id_of(settings, app_dir))


def host_id_of(settings: AppSettings, app_dir: Path) -> str:
    """The name that all hosts of this app have in common."""
    given = settings.get("AzureFunctionsWebHost__hostid") or settings.get("WEBSITE_SITE_NAME")
    return (given or hashlib.sha256(str(app_dir).encode()).hexdigest())[:32].lower()
