"""What the double says when it refuses.

KustoError       a request over HTTP: becomes Kusto's error JSON
IngestionError   a blob: becomes a message in the failed-ingestions queue

Error messages of Kusto name what was asked for; they never hold a SAS token or a record's value.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

# Every code that the double may report for a blob, and whether Kusto calls it permanent.
# Source: dataexplorer-docs, data-explorer/error-codes.md ("Ingestion error codes"); a code that is not on that
# page must not be made up. docs/adx-double.md says when each is used.
INGESTION_CODES = {
    "BadRequest_CorruptedMessage": True,
    "BadRequest_DatabaseNotExist": True,
    "BadRequest_DuplicateMapping": True,
    "BadRequest_EmptyArchive": True,
    "BadRequest_EmptyBlobUri": True,
    "BadRequest_EmptyDatabaseName": True,
    "BadRequest_FormatNotSupported": True,
    "BadRequest_InconsistentMapping": True,
    "BadRequest_IngestionPropertyNotSupportedInThisContext": True,
    "BadRequest_InvalidArchive": True,
    "BadRequest_InvalidBlob": True,
    "BadRequest_InvalidBlobUri": True,
    "BadRequest_InvalidManagedIdentity": True,
    "BadRequest_InvalidMapping": True,
    "BadRequest_InvalidMappingReference": True,
    "BadRequest_InvalidOrEmptyTableName": True,
    "BadRequest_MalformedIngestionProperty": True,
    "BadRequest_MappingReferenceWasNotFound": True,
    "BadRequest_NoRecordsOrWrongFormat": True,
    "BadRequest_NotSupported": True,
    "BadRequest_TableNotExist": True,
    "BlobAlreadyReceived_BlobAlreadyFoundInBatch": True,
    "Download_Forbidden": True,
    "Download_NotTransient": True,
    "Download_SourceNotFound": True,
    "Download_UnknownError": False,
    "General_InternalServerError": False,
    "General_RetryAttemptsExceeded": True,
    "General_ThrottledIngestion": False,
    "Stream_ClosingQuoteMissing": True,
    "Stream_InputStreamTooLarge": True,
    "Stream_NoDataToIngest": True,
    "Stream_WrongNumberOfFields": True,
}


class IngestionError(Exception):
    """A blob cannot be ingested: `code` is one of Kusto's own, `details` a sentence without secrets."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details
        self.permanent = INGESTION_CODES[code]


class KustoError(Exception):
    """A request is refused: `status` is HTTP's, the rest is the body that Kusto's clients parse."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "General_BadRequest",
        kind: str = "Kusto.Data.Exceptions.KustoBadRequestException",
        status: int = 400,
        permanent: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.kind = kind
        self.status = status
        self.permanent = permanent

    def body(self, activity_id: str, client_request_id: str) -> dict[str, Any]:
        """The error as JSON. Source: dataexplorer-docs, kusto/api/rest/response-v2.md, "on request failure"."""
        return {
            "error": {
                "code": self.code,
                "message": "Request is invalid and cannot be executed."
                if self.permanent
                else "The request could not be processed now.",
                "@type": self.kind,
                "@message": self.message,
                "@context": {
                    "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                    "serviceAlias": "ADXDOUBLE",
                    "clientRequestId": client_request_id,
                    "activityId": activity_id,
                },
                "@permanent": self.permanent,
            }
        }


def where(error: BaseException) -> str:
    """The kind of an unexpected error and the line it came from, for the log: its text may quote a record."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "localrunner" in frame.filename] or frames
    line = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "unknown"
    return f"error={type(error).__name__} at={line}"


# Status -> subcode and exception. Source: kusto/api/rest/response.md, kusto/api/netfx/kusto-data-client-errors.md.
_BY_STATUS = {
    400: ("General_BadRequest", "KustoBadRequestException"),
    401: ("Unauthorized", "KustoRequestDeniedException"),
    403: ("Forbidden", "KustoRequestDeniedException"),
    404: ("NotFound", "KustoBadRequestException"),
    413: ("PayloadTooLarge", "KustoRequestPayloadTooLargeException"),
    429: ("TooManyRequests", "KustoRequestThrottledException"),
    504: ("Timeout", "KustoServiceTimeoutException"),
    520: ("ServiceError", "KustoServicePartialQueryFailureException"),
}


def of_status(status: int, message: str, *, code: str = "", permanent: bool | None = None) -> KustoError:
    """The error that goes with an HTTP status; permanent unless trying again can help."""
    if status in _BY_STATUS:
        usual, kind = _BY_STATUS[status]
    else:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "ServiceError"
        usual, kind = phrase.title().replace(" ", ""), "KustoBadRequestException"
    if permanent is None:
        permanent = status < 500 and status not in (408, 429)
    return KustoError(
        message, code=code or usual, kind=f"Kusto.Data.Exceptions.{kind}", status=status, permanent=permanent
    )


def syntax_error(message: str) -> KustoError:
    """The text of a command or query cannot be read."""
    return KustoError(
        f"Syntax error: {message}", code="BadRequest_SyntaxError", kind="Kusto.Data.Exceptions.SyntaxException"
    )


def semantic_error(message: str) -> KustoError:
    """The text can be read, but names something that is not there or asks for what is not supported."""
    return KustoError(
        f"Request is invalid and cannot be processed: Semantic error: {message}",
        kind="Kusto.Data.Exceptions.SemanticException",
    )


def not_found(kind: str, name: str) -> KustoError:
    """A database, table or mapping does not exist under exactly that name."""
    return KustoError(
        f"Entity ID '{name}' of kind '{kind}' was not found.",
        code="BadRequest_EntityNotFound",
        kind="Kusto.Data.Exceptions.EntityNotFoundException",
    )


def already_exists(kind: str, name: str) -> KustoError:
    """What is to be created is there already. No page of Microsoft's has a code of its own for that."""
    return KustoError(f"Entity ID '{name}' of kind '{kind}' already exists.")


def wrong_endpoint(what: str, right: str) -> KustoError:
    """A request for the engine came to the data-management endpoint, or the other way round."""
    return KustoError(
        f"Cannot run {what} on this service endpoint. The appropriate endpoint is the {right}.",
        kind="Kusto.Common.Svc.Exceptions.AdminCommandWrongEndpointException",
    )
