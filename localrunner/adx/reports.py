"""What clients are told about a blob: a message in a queue, a row of the status table, or both, if they asked.

Source: dataexplorer-docs, kusto/api/netfx/kusto-ingest-client-status.md; azure-kusto-ingest 6.0.4, status.py.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime

from localrunner.adx.errors import IngestionError
from localrunner.adx.messages import QUEUE, TABLE, Request

_FAILURES_ONLY, _ALL = 0, 2


def wanted(request: Request, error: IngestionError | None) -> tuple[bool, bool]:
    """Whether the client wants this outcome in a queue, and whether in its row of the status table."""
    heard = request.report_level == _ALL or (error is not None and request.report_level == _FAILURES_ONLY)
    return heard and request.report_method != TABLE, heard and request.report_method != QUEUE


def message(request: Request, error: IngestionError | None, operation_id: uuid.UUID) -> str:
    """The message for the failed or, without an error, the succeeded queue."""
    if error is None:
        return _encoded({**_common(request, operation_id), "SucceededOn": _now()})
    outcome = {**_outcome(error), "ShouldRetry": not error.permanent}
    return _encoded({**_common(request, operation_id), "FailedOn": _now(), **outcome})


def row(request: Request, error: IngestionError | None, operation_id: uuid.UUID) -> dict[str, object]:
    """The properties that the blob's row of the status table gets.

    Source: kusto-ingest-client-status.md, "Class IngestionStatus"; kusto-ingest for Java 7.0.5 reads
    `UpdatedOn` as a date and fails on text.
    """
    assert request.status_row is not None
    common = _common(request, operation_id)
    return {
        "PartitionKey": request.status_row.partition_key,
        "RowKey": request.status_row.row_key,
        "Status": "Succeeded" if error is None else "Failed",
        "UpdatedOn": datetime.now(UTC),
        "ActivityId": common.pop("RootActivityId"),
        **common,
        **(_outcome(error) if error is not None else {"Details": ""}),
    }


def _outcome(error: IngestionError) -> dict[str, object]:
    exhausted = error.code == "General_RetryAttemptsExceeded"
    return {
        "Details": error.details,
        "ErrorCode": error.code,
        "FailureStatus": "Exhausted" if exhausted else "Permanent" if error.permanent else "Transient",
        "OriginatesFromUpdatePolicy": False,
    }


def _common(request: Request, operation_id: uuid.UUID) -> dict[str, object]:
    return {
        "OperationId": str(operation_id),
        "Database": request.database,
        "Table": request.table,
        "IngestionSourceId": request.source_id,
        "IngestionSourcePath": request.path,
        "RootActivityId": str(operation_id),
    }


def _encoded(body: dict[str, object]) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
