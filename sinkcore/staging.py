"""Blobs in the users' storage account: put, read, and the URL by which ADX may read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    UserDelegationKey,
    generate_blob_sas,
)

from sinkcore.clock import Clock
from sinkcore.errors import TransientError
from sinkcore.telemetry import event

# Long enough for an ADX that is behind by a weekend, short enough for a URL that lies in a queue.
SAS_LIFE_S = 3 * 24 * 3600
# A user delegation key lives seven days at the most; a fresh one is asked for well before a SAS would outlive it.
KEY_LIFE_S = 6 * 24 * 3600
# Clocks disagree; a SAS that starts in the service's future is refused.
CLOCK_SKEW_S = 15 * 60


class Blobs(Protocol):
    """The containers of one storage account. Every method raises TransientError where storage refuses."""

    def put(self, container: str, path: str, data: bytes) -> None:
        """The blob is there. One that was there before is kept: names depend on content, and are made once."""

    def get(self, container: str, path: str) -> bytes:
        """The blob's content."""

    def exists(self, container: str, path: str) -> bool:
        """Whether the blob is there; a container that is gone has none."""

    def url_for_adx(self, container: str, path: str) -> str:
        """A URL by which ADX may read this blob, and nothing else. It holds a secret: never log it."""

    def names(self, container: str, prefix: str) -> Iterator[str]:
        """The paths that begin with `prefix`, in order."""

    def delete(self, container: str, path: str) -> None:
        """The blob is not there."""

    def mark(self, container: str, path: str, marks: Mapping[str, str]) -> None:
        """The blob carries `marks`, and no others."""

    def marks(self, container: str, path: str) -> dict[str, str]:
        """What the blob carries."""


class AzureBlobs:
    """Containers of Azure Blob storage, or of Azurite."""

    def __init__(self, service: BlobServiceClient, sign: Callable[[str, str], str]) -> None:
        self._service = service
        self._sign = sign

    def put(self, container: str, path: str, data: bytes) -> None:
        """See Blobs.

        Source: with `overwrite=False` the SDK sends `If-None-Match: *`; a second sending after a lost reply then
        meets its own blob.
        """
        with _refusing(container):
            try:
                self._upload(container, path, data)
            except AzureError as error:
                if _code(error) != "ContainerNotFound":
                    raise
                # Somebody deleted it under the running app; the sweeper finds out what was in it.
                event("container_made_again", logging.ERROR, container=container)
                self.create_container_if_missing(container)
                self._upload(container, path, data)

    def _upload(self, container: str, path: str, data: bytes) -> None:
        try:
            self._service.get_blob_client(container, path).upload_blob(data, length=len(data), overwrite=False)
        except AzureError as error:
            # Source: the SDK calls it "exists", too, that the container is being deleted.
            if _code(error) != "BlobAlreadyExists":
                raise

    def get(self, container: str, path: str) -> bytes:
        """See Blobs."""
        with _refusing(container):
            return self._service.get_blob_client(container, path).download_blob().readall()

    def exists(self, container: str, path: str) -> bool:
        """See Blobs."""
        with _refusing(container):
            return self._service.get_blob_client(container, path).exists()

    def url_for_adx(self, container: str, path: str) -> str:
        """See Blobs."""
        return self._service.get_blob_client(container, path).url + self._sign(container, path)

    def names(self, container: str, prefix: str) -> Iterator[str]:
        """See Blobs."""
        with _refusing(container):
            yield from self._service.get_container_client(container).list_blob_names(name_starts_with=prefix)

    def delete(self, container: str, path: str) -> None:
        """See Blobs."""
        with _refusing(container), suppress(ResourceNotFoundError):
            self._service.get_blob_client(container, path).delete_blob()

    def mark(self, container: str, path: str, marks: Mapping[str, str]) -> None:
        """See Blobs. Marks are the blob's metadata."""
        with _refusing(container):
            self._service.get_blob_client(container, path).set_blob_metadata(dict(marks))

    def marks(self, container: str, path: str) -> dict[str, str]:
        """See Blobs."""
        with _refusing(container):
            return dict(self._service.get_blob_client(container, path).get_blob_properties().metadata)

    def has_container(self, container: str) -> bool:
        """Whether the container exists."""
        with _refusing(container):
            return self._service.get_container_client(container).exists()

    def create_container_if_missing(self, container: str) -> None:
        """The container exists."""
        with _refusing(container):
            try:
                self._service.create_container(container)
            except AzureError as error:
                if _code(error) != "ContainerAlreadyExists":
                    raise


def sign_with_account_key(account: str, key: str, clock: Clock) -> Callable[[str, str], str]:
    """SAS for single blobs, read only, by the account's key."""

    return lambda container, path: _sas(account, container, path, clock, key, None)


@dataclass(slots=True)
class SignWithDelegationKey:
    """SAS for single blobs, read only, by a user delegation key of the app's own identity.

    Source: the identity needs Storage Blob Delegator, and the SAS can do no more than the identity itself
    ("Create a user delegation SAS").
    """

    service: BlobServiceClient
    clock: Clock
    _key: UserDelegationKey | None = None
    _renew_at_ms: int = 0

    def __call__(self, container: str, path: str) -> str:
        """The query string that lets its bearer read the blob."""
        if self._key is None or self.clock.now_ms() >= self._renew_at_ms:
            begin, end = _utc(self.clock, -CLOCK_SKEW_S), _utc(self.clock, KEY_LIFE_S)
            with _refusing(container):
                self._key = self.service.get_user_delegation_key(begin, end)
            self._renew_at_ms = self.clock.now_ms() + (KEY_LIFE_S - SAS_LIFE_S - CLOCK_SKEW_S) * 1000
        account = str(self.service.account_name)
        return _sas(account, container, path, self.clock, None, self._key)


def read_by_managed_identity(access: str) -> Callable[[str, str], str]:
    """No SAS: ADX reads the blob by its own identity; `access` is `managed_identity=system` or `=<object id>`.

    Source: `;managed_identity=` works for queued ingestion only, needs the exact raw size, the NativeIngestion
    policy and Storage Blob Data Reader ("Ingest data using managed identity authentication").
    """
    return lambda _container, _path: ";" + access


def _sas(
    account: str, container: str, path: str, clock: Clock, key: str | None, delegated: UserDelegationKey | None
) -> str:
    """What lets its bearer read the blob, by one of the two keys."""
    return "?" + generate_blob_sas(
        account,
        container,
        path,
        account_key=key,
        user_delegation_key=delegated,
        permission=BlobSasPermissions(read=True),
        expiry=_utc(clock, SAS_LIFE_S),
    )


def _utc(clock: Clock, after_s: int) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC) + timedelta(seconds=after_s)


def _code(error: AzureError) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


@contextmanager
def _refusing(container: str) -> Iterator[None]:
    """What the SDK raises leaves as a TransientError that says what to do."""
    try:
        yield
    except AzureError as error:
        status = getattr(error, "status_code", None)
        advice = {
            403: "give the app's identity the role Storage Blob Data Contributor, or check key and firewall",
            404: "the container is missing; create it, or restart the app, which does",
        }.get(status or 0, "the call will be made again")
        what = f"{status} {_code(error)}".strip() if status else type(error).__name__
        raise TransientError(f"blob container {container}: storage answered {what}; {advice}") from None
