"""From a blob's URL to the bytes in it, with the rights that the message carries and no others.

Source: dataexplorer-docs, kusto/api/connection-strings/storage-connection-strings.md (SAS, `;managed_identity=`),
kusto/ingestion-supported-formats.md (compression by name suffix), data-explorer/error-codes.md (Download_*).
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import urllib3
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobServiceClient
from isal import igzip, isal_zlib

from localrunner.adx.errors import IngestionError
from localrunner.adx.messages import Request, blob_name, without_secrets

_IN_MEMORY_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_ATTEMPTS = 3
_PAUSE_S = 0.2
_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
# The version that azure-storage-blob 12.26.0 asks for.
_STORAGE_VERSION = "2025-07-05"
_BROKEN: tuple[type[Exception], ...] = (EOFError, cast(type[Exception], isal_zlib.error), igzip.BadGzipFile)


class Blobs:
    """Reads blobs over HTTP; the account's own key is used for `;managed_identity=` paths alone."""

    def __init__(self, storage: BlobServiceClient, spool: Path) -> None:
        self._storage = storage
        self._spool = spool
        self._http = urllib3.PoolManager(maxsize=8, timeout=_TIMEOUT, retries=False)

    def fetch(self, request: Request) -> BinaryIO:
        """The blob as it is stored, from its start; on disk where it is large.

        Raises:
            IngestionError: it is not there, may not be read, or storage fails again and again.
        """
        spooled = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=str(self._spool))  # noqa: SIM115 - the caller closes it
        body = cast(BinaryIO, spooled)
        url, semicolon, rest = request.blob_url.partition(";")
        try:
            if semicolon:
                self._by_identity(request, url, rest, body)
            else:
                self._by_sas(url, body)
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return body

    def _by_sas(self, url: str, body: BinaryIO) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                reply = self._http.request(
                    "GET", url, headers={"x-ms-version": _STORAGE_VERSION}, preload_content=False, redirect=False
                )
                with reply:
                    if reply.status == 200:
                        for piece in reply.stream(_PIECE_BYTES):
                            body.write(piece)
                        return
                    reply.drain_conn()
                    _refuse(reply.status)
                why = f"HTTP {reply.status}"
            except urllib3.exceptions.HTTPError as error:
                why = type(error).__name__
            body.seek(0)
            body.truncate()
            if attempt < _ATTEMPTS:
                time.sleep(_PAUSE_S * attempt)
        raise IngestionError(
            "General_RetryAttemptsExceeded", f"Storage could not be read in {_ATTEMPTS} attempts, last: {why}."
        )

    def _by_identity(self, request: Request, url: str, rest: str, body: BinaryIO) -> None:
        """There is no identity on this machine, so the double reads with the account's own key."""
        name, _, _ = rest.partition("=")
        if name.lower() != "managed_identity":
            raise IngestionError("BadRequest_InvalidBlobUri", "What follows the ';' is not 'managed_identity='.")
        if not request.raw_bytes:
            raise IngestionError(
                "BadRequest_InvalidManagedIdentity", "A blob with ';managed_identity=' needs its RawDataSize."
            )
        own, asked = urlsplit(self._storage.url), urlsplit(without_secrets(url))
        prefix = own.path.rstrip("/") + "/"
        if asked.netloc != own.netloc or not asked.path.startswith(prefix):
            raise IngestionError("BadRequest_InvalidManagedIdentity", "The blob is in another storage account.")
        container, _, name = asked.path.removeprefix(prefix).partition("/")
        try:
            self._storage.get_blob_client(container, name).download_blob().readinto(body)
        except HttpResponseError as error:
            _refuse(error.status_code or 500)
            raise IngestionError("Download_UnknownError", f"Storage answered {error.status_code}.") from None
        except AzureError as error:
            raise IngestionError("Download_UnknownError", f"Storage failed: {type(error).__name__}.") from None


def _refuse(status: int) -> None:
    """Raise for a status that trying again will not change."""
    if status in (401, 403):
        raise IngestionError(
            "Download_Forbidden", "Storage refuses: the SAS is expired or does not allow reading."
        )
    if status == 404:
        raise IngestionError("Download_SourceNotFound", "There is no such blob.")
    if 300 <= status < 500 and status not in (408, 429):
        raise IngestionError("Download_NotTransient", f"Storage answered {status}.")


@contextmanager
def opened(body: BinaryIO, url: str) -> Iterator[Iterator[BinaryIO]]:
    """The decompressed streams in a blob: one, or one for each file of a zip archive.

    Raises:
        IngestionError: while reading, where the compression is broken.
    """
    name = blob_name(url).lower()
    try:
        if name.endswith(".zip"):
            yield _unzipped(body)
        elif name.endswith(".gz"):
            with igzip.IGzipFile(fileobj=body, mode="rb") as stream:  # type: ignore[no-untyped-call]
                yield iter([cast(BinaryIO, stream)])
        else:
            yield iter([body])
    except _BROKEN as error:
        raise IngestionError(
            "BadRequest_InvalidBlob", f"The blob's compression is broken: {type(error).__name__}."
        ) from None


def _unzipped(body: BinaryIO) -> Iterator[BinaryIO]:
    try:
        with zipfile.ZipFile(body) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            if not files:
                raise IngestionError("BadRequest_EmptyArchive", "The archive holds no file.")
            for info in files:
                with archive.open(info) as stream:
                    yield cast(BinaryIO, stream)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise IngestionError(
            "BadRequest_InvalidArchive", f"The archive cannot be read: {type(error).__name__}."
        ) from None
