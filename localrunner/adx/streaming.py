"""Streaming ingestion: the body of one request, or one blob, becomes rows before the reply.

Source: dataexplorer-docs, kusto/api/rest/streaming-ingest.md and data-explorer/ingest-data-streaming.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import BinaryIO
from urllib.parse import urlsplit

from localrunner.adx import policy
from localrunner.adx.catalog import Catalog
from localrunner.adx.errors import IngestionError, KustoError, of_status
from localrunner.adx.frames import Result, result
from localrunner.adx.ingest import Ingestor
from localrunner.adx.messages import streamed

# Source: ingest-data-streaming.md, "Data size limit"; as the clients count it, before decompression.
BODY_MAX_BYTES = 4 * 1024 * 1024
FORMATS = frozenset({"csv", "tsv", "scsv", "sohsv", "psv", "json", "multijson", "avro"})
_KNOWN = frozenset({"streamformat", "mappingname", "sourcekind"})
# Documented as limits of streaming; every other name is one that the double does not know.
_NEVER = frozenset({"tags", "ingestionmapping", "ingestifnotexists", "creationtime"})
_REPLY = "ConsumedRecordsCount:long,UpdatePolicyStatus,UpdatePolicyFailureCode,UpdatePolicyFailureReason"


def ingest(
    catalog: Catalog, ingestor: Ingestor, database: str, table: str, parameters: Mapping[str, str], body: bytes
) -> Result:
    """The rows are in the table; the reply that azure-kusto-ingest's own tests show.

    `body` is without the compression that its header names.

    Raises:
        KustoError: the table may not be streamed into, or the data cannot be ingested.
    """
    given = _checked(parameters)
    owner = catalog.database(database)
    if table not in owner.tables:
        raise KustoError(
            f"Table '{table}' does not exist.",
            code="BadRequest_TableNotExist",
            kind="Kusto.Data.Exceptions.TableNotFoundException",
        )
    if not policy.may_stream(owner, table):
        # Source: azure-kusto-java, ingest-v2, falls back to queued ingestion on this subcode.
        raise KustoError(
            f"Streaming ingestion policy is not enabled for table '{table}'.",
            code="BadRequest_StreamingIngestionPolicyNotEnabled",
        )
    data_format = given["streamformat"].lower()
    from_blob = given.get("sourcekind", "").lower() == "uri"
    address = _address(body) if from_blob else ""
    request = streamed(owner.name, table, data_format, given.get("mappingname", ""), address)
    try:
        stream: BinaryIO = ingestor.small_blob(request, BODY_MAX_BYTES) if from_blob else io.BytesIO(body)
        rows = ingestor.ingest_streamed(request, stream)
    except IngestionError as error:
        raise of_status(400, error.details, code=error.code, permanent=error.permanent) from None
    return result(_REPLY, [(rows, "Inactive", "Unknown", None)])


def _checked(parameters: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower(): value for name, value in parameters.items()}
    for name in parameters:
        if name.lower() in _NEVER:
            raise KustoError(
                f"Ingestion property '{name}' is not supported in streaming ingestion.",
                code="BadRequest_IngestionPropertyNotSupportedInThisContext",
            )
        if name.lower() not in _KNOWN:
            raise KustoError(f"parameter '{name[:60]}' of streaming ingestion is not known to this double")
    if given.get("streamformat", "").lower() not in FORMATS:
        raise KustoError(
            f"streamFormat is none of {', '.join(sorted(FORMATS))}, which can be streamed",
            code="BadRequest_FormatNotSupported",
            kind="Kusto.Data.Exceptions.FormatNotSupportedException",
        )
    if given.get("sourcekind", "uri").lower() != "uri":
        raise KustoError("sourceKind can only be 'uri' in this double")
    return given


def _address(body: bytes) -> str:
    """The blob's address in a body such as `{"sourceUri": "..."}`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise KustoError("The body is not JSON") from None
    address = value.get("sourceUri") if isinstance(value, dict) else None
    if not isinstance(address, str) or urlsplit(address).scheme not in ("http", "https"):
        raise KustoError("The body has no address of a blob in 'sourceUri'", code="BadRequest_InvalidBlobUri")
    return address
