"""What clients put into the ingestion queue, read with either spelling of its names.

Source: azure-kusto-ingest 6.0.4, ingestion_blob_info.py (PascalCase); the Java client writes camelCase, and report
levels as words (docs/adx-double.md, "Clients").
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from localrunner.adx.errors import IngestionError

_LEVELS = {"failuresonly": 0, "none": 1, "donotreport": 1, "failuresandsuccesses": 2}
_CONSTANT_COLUMNS = 1
# By their numbers; Java's client writes the words, and `validationPolicyType` (ValidationPolicy.java).
_OPTIONS = ("donotvalidate", "validatecsvinputconstantcolumns", "validatecsvinputcolumnlevelonly")
_IMPLICATIONS = ("fail", "besteffort")
QUEUE, TABLE, QUEUE_AND_TABLE = 0, 1, 2
_METHODS = {"queue": QUEUE, "table": TABLE, "queueandtable": QUEUE_AND_TABLE}
# Besides what the page lists (kusto-ingest-client-rest.md, "Ingestion message internal structure") those that the
# clients for Python, JavaScript and Java write.
_KNOWN_FIELDS = frozenset(
    {
        "additionalproperties",
        "applicationfortracing",
        "blobpath",
        "clientversionfortracing",
        "databasename",
        "flushimmediately",
        "id",
        "ignoresizelimit",
        "ingestionstatusintable",
        "rawdatasize",
        "reportlevel",
        "reportmethod",
        "retainblobonsuccess",
        "sourcemessagecreationtime",
        "tablename",
        "validationpolicy",
    }
)
_KNOWN_PROPERTIES = frozenset(
    {
        "authorizationcontext",
        "creationtime",
        "format",
        "ignorefirstrecord",
        "ingestifnotexists",
        "ingestionmapping",
        "ingestionmappingkind",
        "ingestionmappingreference",
        "ingestionmappingtype",
        "mappingreference",
        "tags",
        "validationpolicy",
    }
)


@dataclass(frozen=True, slots=True)
class StatusRow:
    """The row of the status table that the client wrote for its blob and now watches; `table` is its address.

    JavaScript's client, azure-kusto-ingest 7.0.1, gives the account's address alone.
    """

    table: str
    partition_key: str
    row_key: str


@dataclass(frozen=True, slots=True)
class Request:
    """One blob to ingest, as the client asked for it. `raw_bytes` is 0 where the client did not say."""

    source_id: str
    blob_url: str
    raw_bytes: int
    database: str
    table: str
    format: str
    mapping_reference: str
    mapping_kind: str
    inline_mapping: str
    tags: tuple[str, ...]
    ingest_if_not_exists: tuple[str, ...]
    creation_time: datetime | None
    ignore_first_record: bool
    even_lines: bool
    flush_immediately: bool
    retain_blob: bool
    report_level: int
    report_method: int
    status_row: StatusRow | None
    message_id: str
    fault: IngestionError | None

    @property
    def path(self) -> str:
        """The blob's address without anything secret: what two messages of one blob have in common."""
        return without_secrets(self.blob_url)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """What blobs must share to be in one batch: target and every property that shapes rows or extent."""
        shape = (self.format, self.mapping_reference, self.mapping_kind, self.inline_mapping)
        text = (self.ignore_first_record, self.even_lines)
        extent = (self.tags, self.ingest_if_not_exists, self.creation_time)
        return (self.database.lower(), self.table, *shape, *text, *extent)


def without_secrets(url: str) -> str:
    """`url` without its SAS, account key or identity."""
    return url.partition("?")[0].partition(";")[0]


def decode(text: str, message_id: str) -> Request:
    """The request in a queue message's text.

    A fault of a property that the message can be reported under is kept in `fault`.

    Raises:
        IngestionError: BadRequest_CorruptedMessage; nothing in it can be used.
    """
    try:
        body = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise IngestionError("BadRequest_CorruptedMessage", "The message is not JSON in base64.") from None
    if not isinstance(body, dict):
        raise IngestionError("BadRequest_CorruptedMessage", "The message is not a JSON object.")
    fields = {str(name).lower(): value for name, value in body.items()}
    extra = fields.get("additionalproperties") or {}
    if not isinstance(extra, dict):
        raise IngestionError("BadRequest_CorruptedMessage", "AdditionalProperties is not a JSON object.")
    properties = {str(name).lower(): value for name, value in extra.items()}
    reader = _Properties(fields, properties)
    request = Request(
        source_id=reader.text("id"),
        blob_url=reader.text("blobpath"),
        raw_bytes=reader.number("rawdatasize"),
        database=reader.text("databasename"),
        table=reader.text("tablename"),
        format=reader.property("format").lower(),
        # Source: kusto-ingest-client-rest.md posts the second of these names.
        mapping_reference=reader.property("ingestionmappingreference") or reader.property("mappingreference"),
        mapping_kind=(reader.property("ingestionmappingtype") or reader.property("ingestionmappingkind")).lower(),
        inline_mapping=reader.property("ingestionmapping"),
        tags=reader.strings("tags"),
        ingest_if_not_exists=reader.strings("ingestifnotexists"),
        creation_time=reader.time("creationtime"),
        ignore_first_record=reader.flag(properties.get("ignorefirstrecord"), "ignoreFirstRecord"),
        even_lines=reader.validates(),
        flush_immediately=reader.flag(fields.get("flushimmediately"), "FlushImmediately"),
        # Source: kusto-ingest-client-rest.md, "Default is `false`"; every client says which.
        retain_blob=reader.flag(fields.get("retainblobonsuccess"), "RetainBlobOnSuccess"),
        report_level=reader.choice("reportlevel", _LEVELS, 0),
        report_method=reader.choice("reportmethod", _METHODS, 0),
        status_row=reader.status_row(),
        message_id=message_id,
        fault=None,
    )
    unknown = [name for name in body if str(name).lower() not in _KNOWN_FIELDS]
    unknown += [name for name in extra if str(name).lower() not in _KNOWN_PROPERTIES]
    if unknown:
        reader.faulty(
            "BadRequest_IngestionPropertyNotSupportedInThisContext",
            f"Ingestion property '{min(unknown)[:60]}' is not known to this double.",
        )
    return _checked(request, reader)


def streamed(database: str, table: str, data_format: str, mapping_reference: str, blob_url: str) -> Request:
    """A request to ingest what comes with it, or one blob, at once; nobody reports on it."""
    return Request(
        source_id="",
        blob_url=blob_url,
        raw_bytes=0,
        database=database,
        table=table,
        format=data_format,
        mapping_reference=mapping_reference,
        mapping_kind="",
        inline_mapping="",
        tags=(),
        ingest_if_not_exists=(),
        creation_time=None,
        ignore_first_record=False,
        even_lines=True,
        flush_immediately=True,
        retain_blob=True,
        report_level=1,
        report_method=QUEUE,
        status_row=None,
        message_id="",
        fault=None,
    )


def _checked(request: Request, reader: _Properties) -> Request:
    if not request.blob_url:
        reader.faulty("BadRequest_EmptyBlobUri", "The message names no blob.")
    elif urlsplit(request.path).scheme not in ("http", "https"):
        reader.faulty("BadRequest_InvalidBlobUri", "The blob's address is not a URL of http or https.")
    if not request.database:
        reader.faulty("BadRequest_EmptyDatabaseName", "The message names no database.")
    if not request.table:
        reader.faulty("BadRequest_InvalidOrEmptyTableName", "The message names no table.")
    if request.inline_mapping and request.mapping_reference:
        reader.faulty(
            "BadRequest_DuplicateMapping", "Both ingestionMapping and ingestionMappingReference are given."
        )
    if request.report_method != QUEUE and request.status_row is None and request.report_level != 1:
        reader.malformed("IngestionStatusInTable")
    return replace(request, fault=reader.fault)


class _Properties:
    """Reads one property at a time and remembers the first fault."""

    def __init__(self, fields: dict[str, Any], properties: dict[str, Any]) -> None:
        self._fields = fields
        self._properties = properties
        self.fault: IngestionError | None = None

    def faulty(self, code: str, details: str) -> None:
        self.fault = self.fault or IngestionError(code, details)

    def malformed(self, name: str) -> None:
        self.faulty("BadRequest_MalformedIngestionProperty", f"Ingestion property '{name}' is malformed.")

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            self.malformed(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        value = self._fields.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            self.malformed(name)
            return 0
        return value or 0

    def property(self, name: str) -> str:
        value = self._properties.get(name)
        if value is not None and not isinstance(value, str):
            self.malformed(name)
        return value if isinstance(value, str) else ""

    def strings(self, name: str) -> tuple[str, ...]:
        """A JSON list of strings inside a string."""
        text = self.property(name)
        try:
            values = json.loads(text) if text else []
        except ValueError:
            values = None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.malformed(name)
            return ()
        return tuple(values)

    def time(self, name: str) -> datetime | None:
        text = self.property(name)
        try:
            value = datetime.fromisoformat(text) if text else None
        except ValueError:
            self.malformed(name)
            return None
        return value.astimezone(UTC).replace(tzinfo=None) if value and value.tzinfo else value

    def flag(self, value: Any, name: str) -> bool:
        if value is None:
            return False
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            self.malformed(name)
            return False
        return value

    def validates(self) -> bool:
        """Whether lines of different length refuse a text; only a ValidationPolicy can say no.

        Source: kusto/api/netfx/kusto-ingest-client-errors.md, "Fails only when validation policy is set to
        ValidateCsvInputConstantColumns"; that is the default (kusto/includes/ingestion-properties.md).
        """
        # Java's client writes it beside AdditionalProperties, and not in them.
        value = self._properties.get("validationpolicy", self._fields.get("validationpolicy"))
        try:
            policy = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            policy = ()
        if policy is None:
            return True
        given = {str(name).lower(): choice for name, choice in policy.items()} if isinstance(policy, dict) else {}
        options = _number_of(given.pop("validationoptions", 1), _OPTIONS)
        implications = given.pop("validationimplications", given.pop("validationpolicytype", 1))
        if (
            not isinstance(policy, dict)
            or given
            or options is None
            or _number_of(implications, _IMPLICATIONS) is None
        ):
            self.malformed("ValidationPolicy")
        return options in (_CONSTANT_COLUMNS, None)

    def status_row(self) -> StatusRow | None:
        """Where the client waits for the outcome; JavaScript's client writes these names in camelCase."""
        value = self._fields.get("ingestionstatusintable")
        if value is None:
            return None
        given = {str(name).lower(): part for name, part in value.items()} if isinstance(value, dict) else {}
        parts = [given.get(name) for name in ("tableconnectionstring", "partitionkey", "rowkey")]
        table, partition_key, row_key = (part if isinstance(part, str) else "" for part in parts)
        if not (table and partition_key and row_key):
            self.malformed("IngestionStatusInTable")
            return None
        return StatusRow(without_secrets(table), partition_key, row_key)

    def choice(self, name: str, words: dict[str, int], default: int) -> int:
        value = self._fields.get(name)
        if value is None:
            return default
        if isinstance(value, str):
            value = words.get(value.lower(), -1)
        if value not in words.values() or isinstance(value, bool):
            self.malformed(name)
            return default
        return int(value)


def _number_of(value: Any, words: tuple[str, ...]) -> int | None:
    """What a number, or the word for it, stands for; None where there is no such thing."""
    if isinstance(value, str):
        return words.index(value.lower()) if value.lower() in words else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words) else None


def blob_name(url: str) -> str:
    """The last part of the blob's path, by which its compression is known."""
    return unquote(urlsplit(without_secrets(url)).path.rpartition("/")[2])
