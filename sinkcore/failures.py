"""ADX's queue of failed ingestions: what it says of a blob that it accepted and then did not ingest."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sinkcore.errors import TransientError

if TYPE_CHECKING:
    from azure.kusto.ingest import QueuedIngestClient
    from azure.storage.queue import QueueClient

# A message that was received comes back after this time, unless it is deleted.
HIDDEN_S = 30
# Source: "Get Messages": 32 at once are the most.
PAGE_MESSAGES = 32
OPTIONS: dict[str, Any] = {"retry_total": 1, "connection_timeout": 5, "read_timeout": 20}


@dataclass(frozen=True, slots=True)
class FailedIngestion:
    """One message; `url` is the blob's, empty where the message cannot be read. It belongs to whoever queued it.

    What ADX adds in words (`Details`) is left out, since it can quote a record.
    """

    url: str
    code: str
    status: str
    should_retry: bool
    handle: Any = field(repr=False)


class FailedIngestions(Protocol):
    """The queue, which all apps of a cluster share. Both calls raise TransientError where it does not answer."""

    def receive(self, most: int) -> list[FailedIngestion]:
        """Up to `most` messages, which nobody else receives for HIDDEN_S."""

    def delete(self, message: FailedIngestion) -> None:
        """The message is gone, or has been received again by somebody else."""


class AdxFailures:
    """The queues that data management names, by Microsoft's clients."""

    def __init__(self, connect: Callable[[], QueuedIngestClient]) -> None:
        self._client = cache(connect)

    def receive(self, most: int) -> list[FailedIngestion]:
        """See FailedIngestions."""
        from azure.core.exceptions import AzureError
        from azure.kusto.data.exceptions import KustoError

        found: list[FailedIngestion] = []
        try:
            for queue in self._queues():
                # What is received beyond `most` would be hidden, unread, from the apps that share the queues.
                if (left := most - len(found)) > 0:
                    messages = queue.receive_messages(
                        messages_per_page=min(PAGE_MESSAGES, left), max_messages=left, visibility_timeout=HIDDEN_S
                    )
                    found += [read_message(message.content, (queue, message)) for message in messages]
        except (AzureError, KustoError, LookupError, TypeError, ValueError, AttributeError) as error:
            # The client takes the shape of an answer for granted.
            raise TransientError(
                f"ADX failures queue: {type(error).__name__} and no messages; check KUSTO_INGESTION_URL and "
                "the identity's role Database Ingestor"
            ) from None
        return found

    def delete(self, message: FailedIngestion) -> None:
        """See FailedIngestions."""
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        queue, received = message.handle
        try:
            queue.delete_message(received)
        except ResourceNotFoundError:
            return
        except AzureError as error:
            raise TransientError(
                f"ADX failures queue: {type(error).__name__} on a deletion; it will be tried again"
            ) from None

    def _queues(self) -> list[QueueClient]:
        from azure.storage.queue import QueueClient

        # Source: azure-kusto-ingest 6.0.4 keeps the queues' URLs to itself; its own KustoIngestStatusQueues fails
        # on a message that is not base64, and does not say which queue a message is of.
        found = self._client()._resource_manager.get_failed_ingestions_queues()
        return [QueueClient.from_queue_url(each.url, **OPTIONS) for each in found]


def read_message(text: str, handle: Any) -> FailedIngestion:
    """The message, JSON in base64, as far as it can be read."""
    try:
        fields = msgspec.json.decode(base64.b64decode(text, validate=True), type=dict[str, Any])
    except (ValueError, msgspec.MsgspecError):
        fields = {}
    url, code, status = (str(fields.get(n) or "") for n in ("IngestionSourcePath", "ErrorCode", "FailureStatus"))
    return FailedIngestion(url, code, status, fields.get("ShouldRetry") is True, handle)
