"""The ledger's storage: the three things that we ask of a table, and Azure Table storage doing them.

The seam is this low on purpose: conflicts, lost replies and the limits of a transaction are seen by the same
ledger code on Azure, on Azurite and in a simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.core.rest import HttpRequest
from azure.data.tables import EntityProperty, TableClient

from sinkcore.errors import ConflictError, OutcomeUnknownError, TransientError
from sinkcore.transaction import CONTENT_TYPE, Operation, Reply, code_in, content_of, read_reply

# Source: "Understanding the Table service data model": 64 KiB of UTF-16.
PROPERTY_MAX_CHARS = 32_000


@dataclass(frozen=True, slots=True)
class Row:
    """One entity: its key within the partition, its properties, and the ETag under which it was read.

    `age_s` is the time since its last write by the service's own clock, so that instances whose clocks
    disagree agree on it.
    """

    key: str
    values: Mapping[str, Any]
    etag: str
    age_s: float


class Table(Protocol):
    """A table of entities with ETags and transactions within one partition.

    Every method raises TransientError where no answer can be had and nothing was written.
    """

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        """All of `operations` happen and their new ETags are returned ("" for a delete), or none does.

        Raises:
            ConflictError: a precondition failed.
            OutcomeUnknownError: the reply was lost, or was a 5xx.
        """

    def get(self, partition: str, key: str) -> Row | None:
        """The entity, None if there is none. A missing table is not a missing entity: TransientError."""

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        """The partition's entities whose key starts with `prefix`, in order of key; only those below `before`."""


class AzureTable:
    """A table of Azure Table storage, or of Azurite."""

    def __init__(self, client: TableClient) -> None:
        self._client = client
        self._endpoint = f"{client.scheme}://{client._primary_hostname}"

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        """See Table.

        Source: a transaction is atomic within one PartitionKey (entity group transactions). The SDK sends a
        POST again on 503, so that our own success can come back as a conflict (docs/ledger.md, "Doubtful
        replies"): its client is built without retries.
        """
        content = content_of(f"{self._endpoint}/{self._client.table_name}", partition, operations)
        headers = {
            "Content-Type": CONTENT_TYPE,
            "x-ms-version": self._client.api_version,
            "DataServiceVersion": "3.0",
            "Accept": "application/json",
        }
        request = HttpRequest("POST", f"{self._endpoint}/$batch", headers=headers, content=content)
        try:
            # The generated client beneath signs and sends what it is given; unless streamed, it refuses multipart.
            response = self._client._client.send_request(request, stream=True)
            body = response.read()
        except (ServiceRequestError, ClientAuthenticationError) as error:
            raise TransientError(
                f"ledger: the transaction could not be sent ({type(error).__name__}); "
                "check the storage connection and its identity"
            ) from None
        except AzureError as error:
            raise _unclear(getattr(error, "status_code", None)) from None
        if response.status_code == 202:
            reply = read_reply(body, len(operations))
        else:
            reply = Reply(response.status_code, [], code_in(body))
        if reply.etags:
            return reply.etags
        raise _write_error(reply)

    def get(self, partition: str, key: str) -> Row | None:
        """See Table."""
        date = _ServerDate()
        with _refusing():
            try:
                entity = self._client.get_entity(partition, key, raw_response_hook=date.note, **_READ)
            except ResourceNotFoundError as error:
                if _code(error) != "ResourceNotFound":
                    raise
                return None
        return _row(entity, date)

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        """See Table."""
        date = _ServerDate()
        with _refusing():
            for entity in self._client.query_entities(
                "PartitionKey eq @partition and RowKey ge @first and RowKey lt @after",
                # "~" is above every character that our keys use.
                parameters={"partition": partition, "first": prefix, "after": before or prefix + "~"},
                raw_response_hook=date.note,
                **_READ,
            ):
                yield _row(entity, date)

    def check(self) -> None:
        """The table exists.

        Raises:
            TransientError: it does not, or storage did not answer.
        """
        self.get("=", "=")

    def create_if_missing(self) -> None:
        """The table exists."""
        with _refusing(), suppress(ResourceExistsError):
            self._client.create_table(**_READ)


# Reading twice does no harm, so the SDK may repeat it; writes are never repeated behind the ledger's back
# (sinkcore.clients sets no retries for the rest).
_READ: dict[str, Any] = {"retry_total": 3, "retry_status": 3, "retry_connect": 3, "retry_read": 3}


class _ServerDate:
    """The `Date` of the last reply."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: datetime | None = None

    def note(self, response: Any) -> None:
        date = response.http_response.headers.get("Date")
        # What stands between us and the service answers without one at times.
        self.at = parsedate_to_datetime(date) if date else None


def _row(entity: Any, date: _ServerDate) -> Row:
    values = {
        name: value.value if isinstance(value, EntityProperty) else value
        for name, value in entity.items()
        if name not in ("PartitionKey", "RowKey")
    }
    written: datetime = entity.metadata["timestamp"]
    age_s = (date.at - written).total_seconds() if date.at else 0.0
    return Row(entity["RowKey"], values, entity.metadata["etag"], max(age_s, 0.0))


def _code(error: AzureError) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _unclear(status: int | None) -> OutcomeUnknownError:
    return OutcomeUnknownError(f"ledger: a transaction ended without a clear answer ({status}); ask it")


def _write_error(reply: Reply) -> Exception:
    """What a refused write means. The service's own text is left out: it can hold an entity's values."""
    status, code = reply.status, reply.code
    if status in (409, 412):
        return ConflictError(f"ledger: {status} {code} on a transaction; read the segment row")
    return _refused(status, f"{status} {code}") if 400 <= status < 500 else _unclear(status)


@contextmanager
def _refusing() -> Iterator[None]:
    """What the SDK raises leaves as a TransientError that says what to do."""
    try:
        yield
    except AzureError as error:
        status = getattr(error, "status_code", None)
        what = f"{status} {_code(error)}" if status else type(error).__name__
        raise _refused(status or 0, what) from None


def _refused(status: int, what: str) -> TransientError:
    advice = {
        403: "give the app's identity the role Storage Table Data Contributor, or check key and firewall",
        404: "the ledger table is missing; if it was dropped, restore it, and for a new one run sinkctl start",
    }.get(status, "the call will be made again")
    return TransientError(f"ledger: storage answered {what}; {advice}")
