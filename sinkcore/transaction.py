"""A table transaction as the bytes of a batch request, and what its reply says.

Azure's SDK makes and reads both through the `email` package, which is most of a transaction's CPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

import msgspec

# Source: "Performing entity group transactions"; 101 operations end in a garbled reply, not in an error.
OPERATIONS_MAX = 100

Value = str | int | bool


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


CONTENT_TYPE = "multipart/mixed; boundary=batch_0"
# Entities are JSON on one line, which begins with a brace: no boundary can be in them.
_BEGIN = b"--batch_0\r\nContent-Type: multipart/mixed; boundary=changeset_0\r\n\r\n"
_PART = ("--changeset_0", "Content-Type: application/http", "Content-Transfer-Encoding: binary")
_END = b"--changeset_0--\r\n\r\n--batch_0--\r\n"
_METHODS = {"replace": "PUT", "merge": "PATCH", "delete": "DELETE"}
_VERSION = "DataServiceVersion: 3.0"


def content_of(table_url: str, partition: str, operations: Sequence[Operation]) -> bytes:
    """The body of the POST to `$batch` that does all of `operations` on the table at `table_url`, or none.

    Source: "Performing entity group transactions" and "Payload format for Table service operations"; a test holds
    it against what the SDK sends.
    """
    assert 0 < len(operations) <= OPERATIONS_MAX, len(operations)
    parts = [_part(n, table_url, partition, operation) for n, operation in enumerate(operations)]
    return _BEGIN + b"".join(parts) + _END


def _part(number: int, table_url: str, partition: str, operation: Operation) -> bytes:
    entity = b"" if operation.kind == "delete" else _entity(partition, operation)
    lines = [*_PART, f"Content-ID: {number}", ""]
    if operation.kind == "create":
        # What was written comes back otherwise.
        lines += [f"POST {table_url} HTTP/1.1", "Prefer: return-no-content"]
    else:
        at = f"PartitionKey='{_quoted(partition)}',RowKey='{_quoted(operation.key)}'"
        lines += [f"{_METHODS[operation.kind]} {table_url}({at}) HTTP/1.1", f"If-Match: {operation.etag}"]
    lines += [_VERSION, "Accept: application/json;odata=minimalmetadata"]
    if entity:
        lines += ["Content-Type: application/json", f"Content-Length: {len(entity)}"]
    return "\r\n".join([*lines, "", ""]).encode() + entity + b"\r\n"


def _entity(partition: str, operation: Operation) -> bytes:
    entity: dict[str, Value] = {"PartitionKey": partition, "RowKey": operation.key}
    for name, value in operation.values.items():
        # A plain number in JSON is an Int32.
        if isinstance(value, int) and not isinstance(value, bool):
            entity[name], entity[f"{name}@odata.type"] = str(value), "Edm.Int64"
        else:
            entity[name] = value
    return msgspec.json.encode(entity)


def _quoted(key: str) -> str:
    return quote(key.replace("'", "''"), safe="")


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a transaction: all of it happened, and there is an ETag for each operation ("" for a delete);
    or there are none, and `status` and `code`, the service's word for it, say why."""

    status: int
    etags: list[str]
    code: str = ""


# At the start of a line there is no such text but a part's own: errors are JSON on one line.
_STATUS = re.compile(rb"^HTTP/1\.1 ([0-9]{3})\b", re.MULTILINE)
_ETAG = re.compile(rb"^ETag: *([^\r\n]+)", re.MULTILINE | re.IGNORECASE)
_CODE = re.compile(rb'"code": *"([A-Za-z]{1,64})"')


def read_reply(body: bytes, operations: int) -> Reply:
    """What a batch's reply of 202 says of its `operations`; without an answer to each it has no ETags."""
    # What is before the first status, then a status and its part in turns.
    _, *found = _STATUS.split(body)
    etags = []
    for status, part in zip(found[::2], found[1::2], strict=True):
        if not status.startswith(b"2"):
            return Reply(int(status), [], code_in(part))
        etag = _ETAG.search(part)
        etags.append(etag[1].decode("ascii", "replace") if etag else "")
    is_whole = body.rstrip().endswith(b"--") and len(etags) == operations
    return Reply(202, etags if is_whole else [])


def code_in(body: bytes) -> str:
    """The error code in a reply's body."""
    code = _CODE.search(body)
    return code[1].decode() if code else ""
