"""A staged blob becomes a message in ADX's ingestion queue."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cache
from typing import TYPE_CHECKING, Protocol

from azure.core.exceptions import ServiceRequestError

from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.segment import Blob

if TYPE_CHECKING:
    from azure.kusto.ingest import BlobDescriptor, IngestionProperties, QueuedIngestClient

# The SDK takes up to 4 minutes to say that a storage account does not answer, and an hour for a command, so a call
# gets this much at the most.
QUEUE_TIMEOUT_S = 30.0
# Calls that were given up may hang on in their threads; past this many of them nothing more is tried.
CALLS_MAX = 16


class IngestionQueue(Protocol):
    """ADX's ingestion queue."""

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        """ADX has accepted the blob's ingestion message, within `timeout_s`. Accepted is not ingested.

        Raises:
            TransientError: nothing was sent.
            OutcomeUnknownError: a message may have been sent.
        """


class AdxQueue:
    """The queue behind a data-management endpoint, by Microsoft's client."""

    def __init__(self, connect: Callable[[], QueuedIngestClient], *, ingest_by: bool) -> None:
        self._client = cache(connect)
        self._connecting = threading.Lock()
        self._ingest_by = ingest_by
        self._calls = threading.Semaphore(CALLS_MAX)

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        """See IngestionQueue.

        The call runs in a thread of its own, because the SDK offers no deadline; one that is past is given up.
        """
        from azure.kusto.ingest import BlobDescriptor

        # The client refuses a string that is no UUID of version 4, and changes one that is of another version.
        source = BlobDescriptor(url, blob.raw_size_bytes, uuid.UUID(blob.source_id))
        if not self._calls.acquire(blocking=False):
            raise TransientError(
                f"ADX queue: {CALLS_MAX} earlier calls still hang; check that the app reaches KUSTO_INGESTION_URL"
            )
        done: Future[None] = Future()
        threading.Thread(target=self._run, args=(blob, source, done), name="adx-queue", daemon=True).start()
        try:
            done.result(timeout_s)
        except FutureTimeoutError:
            self._client.cache_clear()  # its sockets hang; the next call makes new ones
            # Source: the client writes the message once it has its answers from data management, and cannot do so
            # without a path. One that was written late would repeat rows: the sweeper may have found none by then.
            del source.path
            raise OutcomeUnknownError(
                f"ADX queue: no answer within {timeout_s:.0f} s; the sweeper will find out"
            ) from None

    def _run(self, blob: Blob, source: BlobDescriptor, done: Future[None]) -> None:
        try:
            self._send(blob, source)
        except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread, whatever it is
            done.set_exception(error)
        else:
            done.set_result(None)
        finally:
            self._calls.release()

    def _send(self, blob: Blob, source: BlobDescriptor) -> None:
        from azure.kusto.data.exceptions import KustoError
        from azure.kusto.ingest.exceptions import KustoQueueError

        with self._connecting:
            client = self._client()
        properties = self._properties(blob)
        try:
            result = client.ingest_from_blob(source, properties)
        except KustoQueueError as error:
            raise _send_error(error.__cause__) from None
        except KustoError as error:
            self._client.cache_clear()
            raise TransientError(
                f"ADX queue: {type(error).__name__} ({_status(error)}) before anything was sent; check "
                "KUSTO_INGESTION_URL, the identity's role Database Ingestor, and whether ADX throttles"
            ) from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # The client takes the shape of an answer for granted, and asks before it sends.
            raise TransientError(
                f"ADX queue: an answer that is not Kusto's ({type(error).__name__}) before anything was sent; "
                "check KUSTO_INGESTION_URL"
            ) from None
        if result is None:
            # Source: ingest_from_blob falls through to None when the service lists no queue.
            raise TransientError("ADX queue: the service offers no ingestion queue; try again later")

    def _properties(self, blob: Blob) -> IngestionProperties:
        from azure.kusto.data.data_format import DataFormat
        from azure.kusto.ingest import IngestionProperties, ReportLevel, ReportMethod

        tags = [blob.source_id] if self._ingest_by else None
        return IngestionProperties(
            database=blob.db,
            table=blob.table,
            data_format=DataFormat[blob.format.upper()],
            ingestion_mapping_reference=blob.mapping,
            ingest_by_tags=tags,
            ingest_if_not_exists=tags,
            report_level=ReportLevel.FailuresOnly,
            report_method=ReportMethod.Queue,
            # The client writes into this dictionary: a shared one would carry one call's tags into the next.
            additional_properties={},
        )


def _send_error(cause: BaseException | None) -> Exception:
    """What it means that the message's only sending failed."""
    status = getattr(cause, "status_code", None)
    if isinstance(cause, ServiceRequestError) or (status is not None and status < 500):
        return TransientError(
            f"ADX queue: the message was refused ({status or 'no answer'}); it will be sent again"
        )
    return OutcomeUnknownError(
        f"ADX queue: a send ended without a clear answer ({status}); the sweeper will find out"
    )


def _status(error: Exception) -> str:
    response = getattr(error, "http_response", None)
    return f"HTTP {response.status_code}" if response is not None else "no answer"
