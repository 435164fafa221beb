"""What ADX refused is noted in the ledger, blob by blob; what follows is for the sweep that finds it there."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from urllib.parse import unquote

from sinkcore.clock import Deadline
from sinkcore.errors import LedgerError
from sinkcore.failures import FailedIngestion, FailedIngestions
from sinkcore.ledger import Ledger, topics
from sinkcore.ledger_rows import OpenSegment
from sinkcore.segment import ERROR_MAX_CHARS, Blob, BlobState, topic_of_folder
from sinkcore.staging import Blobs
from sinkcore.table import Table
from sinkcore.telemetry import event

MESSAGES_MAX = 256
# A sweep that received so many messages and owned less than this share of them is held up by other apps'.
OWNED_SHARE_MIN = 0.5
# With waits that double up to an hour, the last one comes most of a day after the first.
RETRIES_MAX = 20

_PATH = re.compile(r"/(?P<folder>[^/]+)/\d{4}/\d\d/\d\d/(?P<id>[0-9a-f]{32})/[^/]+\Z")

# Source: "Ingestion error codes in Azure Data Explorer", and for the identity of `;managed_identity=` "Ingest data
# using managed identity authentication".
ALREADY_TAKEN = {"BlobAlreadyReceived_BlobAlreadyFoundInBatch", "Skipped_IngestByTagAlreadyExists"}
SET_UP = {
    *("BadRequest_DatabaseNotExist", "BadRequest_TableNotExist", "BadRequest_EntityNotFound"),
    *("BadRequest_MappingReferenceWasNotFound", "BadRequest_InvalidMappingReference", "BadRequest_InvalidMapping"),
    *("BadRequest_InconsistentMapping", "BadRequest_MissingMappingtFailure", "BadRequest_TableAccessDenied"),
    *("BadRequest_DatabaseAccessDenied", "BadRequest_InvalidKustoIdentityToken", "Forbidden"),
    *("BadRequest_InvalidManagedIdentity", "BadRequest_ZeroRetentionPolicyWithNoUpdatePolicy"),
    *("UpdatePolicy_QuerySchemaDoesNotMatchTableSchema", "UpdatePolicy_Cyclic_Update_Not_Allowed"),
}
DATA = {
    *("Stream_WrongNumberOfFields", "Stream_ClosingQuoteMissing", "Stream_InputStreamTooLarge"),
    *("Stream_NoDataToIngest", "Stream_DynamicPropertyBagTooLarge", "BadRequest_FileTooLarge"),
    *("BadRequest_InvalidBlob", "BadRequest_EmptyBlob", "BadRequest_NoRecordsOrWrongFormat"),
    *("BadRequest_UnexpectedCharacterInInputStream", "BadRequest_InvalidArchive", "BadRequest_EmptyArchive"),
    "Download_SourceNotFound",
}
# Permanent by the page, but each queueing makes a new URL, and storage may answer otherwise by then.
ANOTHER_TRY = {
    *("Download_Forbidden", "Download_AccessConditionNotSatisfied", "Download_NotTransient"),
    *("Download_BadRequest", "General_RetryAttemptsExceeded", "BadRequest_MessageExhausted"),
}


def note_refusals(table: Table, blobs: Blobs, queue: FailedIngestions, deadline: Deadline) -> None:
    """Every message about a blob of ours that could be received is in the ledger, and then deleted.

    A message that names no blob of a segment in this ledger is somebody else's and left alone.

    Raises:
        TransientError: the queue or the ledger did not answer; messages that are left come again.
    """
    received = queue.receive(MESSAGES_MAX)
    groups = dict(topics(table)) if received else {}
    owned = 0
    for message in received:
        if deadline.is_past():
            return
        match = _PATH.search(_bare(message.url))
        group = groups.get(topic_of_folder(match["folder"])) if match else None
        if match is None or group is None:
            continue
        ledger = Ledger(table, group)
        try:
            opened = ledger.opened(match["id"])
        except LedgerError as error:
            event("ledger_row_unreadable", logging.ERROR, error=str(error))
            continue  # The message stays until somebody has mended the row.
        blob = _named_by(message, opened, blobs) if opened else None
        if opened and blob:
            owned += 1
            if _note(ledger, opened, blob, message):
                queue.delete(message)
    if len(received) >= MESSAGES_MAX and owned < OWNED_SHARE_MIN * len(received):
        event("failures_queue_crowded", logging.ERROR, received=len(received), owned=owned)


def _named_by(message: FailedIngestion, opened: OpenSegment, blobs: Blobs) -> Blob | None:
    """The segment's blob that the message is about, known by account, container and path."""
    url = _bare(message.url)
    named = (blob for blob in opened.segment.blobs if url.endswith(blob.path))
    return next((b for b in named if url == _bare(blobs.url_for_adx(b.container, b.path))), None)


def _note(ledger: Ledger, opened: OpenSegment, blob: Blob, message: FailedIngestion) -> bool:
    """The ledger holds what the message says; False if it changed meanwhile, and the message must come again."""
    segment = opened.segment
    state = state_after(message, blob)
    # What has landed is there, and a blob that was refused before is on its way: a message can come twice.
    if segment.state == "landed" or state is None or blob.state not in ("queued", "staged"):
        return True
    refused = replace(
        blob, state=state, error=message.code[:ERROR_MAX_CHARS], failures=min(blob.failures + 1, RETRIES_MAX + 1)
    )
    changed = segment.with_blob(refused)
    if not ledger.reopen(opened, replace(changed, state=changed.outcome)):
        return False
    event(
        "ingestion_failed",
        logging.ERROR if state == "failed" else logging.WARNING,
        topic=segment.topic,
        segment=segment.id,
        db=blob.db,
        table=blob.table,
        code=refused.error,
        status=message.status[:ERROR_MAX_CHARS],
        should_retry=message.should_retry,
        failures=refused.failures,
        now=state,
    )
    return True


def state_after(message: FailedIngestion, blob: Blob) -> BlobState | None:
    """What becomes of a blob that was refused so; None where ADX has it already.

    A permanent code that is on none of the lists is for a person: nobody knows what would help.
    """
    if message.code in ALREADY_TAKEN:
        return None
    if message.code in SET_UP:
        return "set_up"
    if message.code in DATA:
        return "refused"
    if message.should_retry or message.status in ("Transient", "Exhausted") or message.code in ANOTHER_TRY:
        return "again" if blob.failures < RETRIES_MAX else "failed"
    return "failed"


def _bare(url: str) -> str:
    """The blob's address without SAS or identity, as it reads."""
    return unquote(url.partition("?")[0].partition(";")[0])
