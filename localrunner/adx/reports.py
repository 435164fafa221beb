"""What clients are told about a blob: a message in the failed or the succeeded queue, if they asked for it.

Source: dataexplorer-docs, kusto/api/netfx/kusto-ingest-client-status.md; azure-kusto-ingest 6.0.4, status.py.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime

from localrunner.adx.errors import IngestionError
from localrunner.adx.messages import Request

_FAILURES_ONLY, _NONE, _ALL = 0, 1, 2


def failure(request: Request, error: IngestionError, operation_id: uuid.UUID) -> str | None:
    """The message for the failed queue, or None where the client wants none."""
    if request.report_level == _NONE:
        return None
    exhausted = error.code == "General_RetryAttemptsExceeded"
    return _encoded(
        {
            **_common(request, operation_id),
            "FailedOn": _now(),
            "Details": error.details,
            "ErrorCode": error.code,
            "FailureStatus": "Exhausted" if exhausted else "Permanent" if error.permanent else "Transient",
            "OriginatesFromUpdatePolicy": False,
            "ShouldRetry": not error.permanent,
        }
    )


def success(request: Request, operation_id: uuid.UUID) -> str | None:
    """The message for the succeeded queue, or None where the client wants none."""
    if request.report_level != _ALL:
        return None
    return _encoded({**_common(request, operation_id), "SucceededOn": _now()})


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
