"""The ledger's storage: the three things that we ask of a table, and Azure Table storage doing them.

The seam is this low on purpose: conflicts, lost replies and the limits of a transaction are seen by the same
ledger code on Azure, on Azurite and in a simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.data.tables import EntityProperty, TableClient, UpdateMode

from sinkcore.errors import ConflictError, OutcomeUnknownError, TransientError

# Source: "Performing entity group transactions"; 101 operations end in a garbled reply, not in an error.
OPERATIONS_MAX = 100
# Source: "Understanding the Table service data model": 64 KiB of UTF-16.
PROPERTY_MAX_CHARS = 32_000

Value = str | int | bool


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


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a transaction. Made by `create`, `replace`, `merge` and `delete`, never directly: a match
    condition left out would overwrite silently."""

    kind: Literal["create", "replace", "merge", "delete"]
    key: str
    values: Mapping[str, Value] = field(default_factory=dict)
    etag: str = ""


def create(key: str, values: Mapping[str, Value]) -> Operation:
    """Add an entity; a conflict if there is one."""
    return Operation("create", key, values)


def replace(key: str, values: Mapping[str, Value], etag: str) -> Operation:
    """Put `values` in the place of all properties; a conflict unless the entity still has `etag`."""
    return Operation("replace", key, values, etag)


def merge(key: str, values: Mapping[str, Value], etag: str) -> Operation:
    """Set `values` and leave other properties; a conflict unless the entity still has `etag`."""
    return Operation("merge", key, values, etag)


def delete(key: str, etag: str) -> Operation:
    """Remove an entity; a conflict unless it still has `etag`."""
    return Operation("delete", key, {}, etag)


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

    def transact(self, partition: str, operations: Sequence[Operation]) -> list[str]:
        """See Table.

        Source: a transaction is atomic within one PartitionKey (entity group transactions). The SDK sends a
        POST again on 503, so that our own success can come back as a conflict (docs/ledger.md, "Doubtful
        replies").
        """
        assert 0 < len(operations) <= OPERATIONS_MAX, len(operations)
        try:
            replies = self._client.submit_transaction([_sdk_operation(partition, op) for op in operations])
        except AzureError as error:
            raise _write_error(error) from None
        return [str(reply.get("etag") or "") for reply in replies]

    def get(self, partition: str, key: str) -> Row | None:
        """See Table."""
        date = _ServerDate()
        try:
            entity = self._client.get_entity(partition, key, raw_response_hook=date.note, **_READ)
        except ResourceNotFoundError as error:
            if _code(error) == "ResourceNotFound":
                return None
            raise _refusal(error) from None
        except AzureError as error:
            raise _refusal(error) from None
        return _row(entity, date)

    def rows(self, partition: str, prefix: str, before: str = "") -> Iterator[Row]:
        """See Table."""
        date = _ServerDate()
        try:
            for entity in self._client.query_entities(
                "PartitionKey eq @partition and RowKey ge @first and RowKey lt @after",
                # "~" is above every character that our keys use.
                parameters={"partition": partition, "first": prefix, "after": before or prefix + "~"},
                raw_response_hook=date.note,
                **_READ,
            ):
                yield _row(entity, date)
        except AzureError as error:
            raise _refusal(error) from None

    def check(self) -> None:
        """The table exists.

        Raises:
            TransientError: it does not, or storage did not answer.
        """
        self.get("=", "=")

    def create_if_missing(self) -> None:
        """The table exists."""
        try:
            self._client.create_table(**_READ)
        except ResourceExistsError:
            return
        except AzureError as error:
            raise _refusal(error) from None


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


def _sdk_operation(partition: str, operation: Operation) -> tuple[str, dict[str, Any], dict[str, Any]]:
    entity: dict[str, Any] = {"PartitionKey": partition, "RowKey": operation.key}
    for name, value in operation.values.items():
        # A plain int is sent as Int32, and one above its range raises a TypeError that names no property.
        is_number = isinstance(value, int) and not isinstance(value, bool)
        entity[name] = EntityProperty(value, "Edm.Int64") if is_number else value
    if operation.kind == "create":
        return "create", entity, {}
    options = {"etag": operation.etag, "match_condition": MatchConditions.IfNotModified}
    if operation.kind == "delete":
        return "delete", entity, options
    mode = UpdateMode.REPLACE if operation.kind == "replace" else UpdateMode.MERGE
    return "update", entity, {"mode": mode, **options}


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


def _write_error(error: AzureError) -> Exception:
    """What a failed write means. The service's own text is left out: it can hold an entity's values."""
    status = getattr(error, "status_code", None)
    if status in (409, 412):
        return ConflictError(f"ledger: {status} {_code(error)} on a transaction; read the segment row")
    if isinstance(error, ServiceRequestError):
        return TransientError("ledger: the transaction could not be sent; check the storage connection")
    if status is None or status >= 500:
        return OutcomeUnknownError(f"ledger: a transaction ended without a clear answer ({status}); ask it")
    return _refusal(error)


def _refusal(error: AzureError) -> TransientError:
    status = getattr(error, "status_code", None)
    advice = {
        403: "give the app's identity the role Storage Table Data Contributor, or check key and firewall",
        404: "the ledger table is missing; if it was dropped, restore it, and for a new one run sinkctl start",
    }.get(status or 0, "the call will be made again")
    what = f"{status} {_code(error)}" if status else type(error).__name__
    return TransientError(f"ledger: storage answered {what}; {advice}")
