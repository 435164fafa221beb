"""ADX is asked whether a doubtful segment's rows are in the table: rows with metadata carry its id."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sinkcore.clock import Clock
from sinkcore.errors import TransientError
from sinkcore.segment import Blob

if TYPE_CHECKING:
    from azure.kusto.data import KustoClient

ASK_TIMEOUT_S = 20
# Source: "IngestionBatching policy": 5 minutes where no policy says otherwise.
BATCHING_DEFAULT_S = 300.0
BATCHING_READ_EVERY_S = 3600
SEGMENT_ORDINAL = 4
"""Where text has the segment's id: `sinkcore.encode.textmetadata.COLUMNS`."""
# Source: "Ingestion mappings": both kinds of Avro have one kind of mapping, and all kinds of text another.
_KINDS = {"json": "json", "avro": "avro", "apacheavro": "avro"}


class LandedRows(Protocol):
    """What the tables of ADX say of a segment."""

    def batching_s(self, blob: Blob) -> float:
        """For how long ADX may hold the blob's rows back before it ingests them."""

    def count(self, blob: Blob, segment_id: str) -> int | None:
        """The segment's rows in the blob's table; None if the table does not tell segments apart.

        Raises:
            TransientError: ADX did not answer.
        """


@dataclass(frozen=True, slots=True)
class _Batching:
    seconds: float
    read_at_s: float


class AdxRows:
    """The tables behind an engine endpoint, by Microsoft's client."""

    def __init__(self, connect: Callable[[], KustoClient], clock: Clock) -> None:
        self._connect = connect
        self._client: KustoClient | None = None
        self._connecting = threading.Lock()
        self._clock = clock
        self._batching: dict[tuple[str, str], _Batching] = {}

    def batching_s(self, blob: Blob) -> float:
        """See LandedRows. Read once an hour; 5 minutes, or what it was, where the policy cannot be read."""
        known = self._batching.get((blob.db, blob.table))
        now_s = self._clock.monotonic_s()
        if known is None or now_s - known.read_at_s > BATCHING_READ_EVERY_S:
            try:
                known = _Batching(self._read_batching_s(blob), now_s)
            except TransientError:
                # Not remembered: it may be much longer, and rows that are still held back would be sent again.
                return BATCHING_DEFAULT_S if known is None else known.seconds
            self._batching[blob.db, blob.table] = known
        return known.seconds

    def count(self, blob: Blob, segment_id: str) -> int | None:
        """See LandedRows."""
        segment = self._segment_expression(blob)
        if segment is None:
            return None
        (row,) = self._ask(
            blob.db, f"{_quoted(blob.table)} | where {segment} == '{segment_id}' | summarize rows = count()"
        )
        return int(row["rows"])

    def _segment_expression(self, blob: Blob) -> str | None:
        """KQL for the segment's id in a row; None if no column of the table holds it."""
        column, whole = self._column(blob)
        if column is None or not self._ask(
            blob.db, f"{_quoted(blob.table)} | getschema | where ColumnName == {_text(column)}"
        ):
            return None
        return f"tostring({_quoted(column)}{'.segment' if whole else ''})"

    def _column(self, blob: Blob) -> tuple[str | None, bool]:
        """The column that holds the segment's id, or (True) the whole metadata field."""
        kind = _KINDS.get(blob.format, "csv")
        if blob.mapping is None:
            return (blob.metadata, True) if kind != "csv" else (self._column_at(blob, SEGMENT_ORDINAL), False)
        for row in self._ask(blob.db, f".show table {_quoted(blob.table)} ingestion {kind} mappings"):
            if row["Name"] == blob.mapping:
                columns = _columns_by_place(row["Mapping"])
                inner = columns.get(f"$.{blob.metadata}.segment")
                if kind == "csv":
                    return columns.get(str(SEGMENT_ORDINAL)), False
                return inner or columns.get(f"$.{blob.metadata}"), inner is None
        # Nothing can have landed by it, and whether its rows will tell their segment is not known yet.
        raise TransientError(
            f"ADX engine: table {blob.table} in database {blob.db} has no {kind.upper()} mapping {blob.mapping}; "
            "create it"
        )

    def _column_at(self, blob: Blob, ordinal: int) -> str | None:
        """Without a mapping a field of text goes to the column in its place."""
        found = self._ask(blob.db, f"{_quoted(blob.table)} | getschema | where ColumnOrdinal == {ordinal}")
        return found[0]["ColumnName"] if found else None

    def _read_batching_s(self, blob: Blob) -> float:
        for entity in (f"table {_quoted(blob.table)}", f"database {_quoted(blob.db)}"):
            rows = self._ask(blob.db, f".show {entity} policy ingestionbatching")
            policy = msgspec.json.decode(rows[0]["Policy"] or "null") if rows else None
            if policy and policy.get("MaximumBatchingTimeSpan"):
                return _seconds(policy["MaximumBatchingTimeSpan"])
        return BATCHING_DEFAULT_S

    def _ask(self, db: str, text: str) -> list[dict[str, Any]]:
        from azure.kusto.data import ClientRequestProperties
        from azure.kusto.data.exceptions import KustoError

        properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
        properties.set_option(properties.request_timeout_option_name, timedelta(seconds=ASK_TIMEOUT_S))
        try:
            found = self._connected().execute(db, text, properties).primary_results[0]
            return [row.to_dict() for row in found]
        except (KustoError, LookupError, TypeError, ValueError, AttributeError) as error:
            # The client takes the shape of an answer for granted.
            raise TransientError(
                f"ADX engine: {type(error).__name__} on a question about database {db}; check KUSTO_QUERY_URL and "
                "the identity's role Database Viewer"
            ) from None

    def _connected(self) -> KustoClient:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client


def _quoted(name: str) -> str:
    """A name as KQL takes it whatever is in it."""
    return f"[{_text(name)}]"


def _text(text: str) -> str:
    """A string literal of KQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _columns_by_place(mapping: str) -> dict[str, str]:
    """The columns of a mapping by the path that fills them, with dots only, or by the ordinal.

    Source: the names of its fields are taken and shown in any case of letters, and the place in one of two places
    ("JSON mapping"); in Avro a field of the record may be named without a path ("Avro mapping").
    """
    found: dict[str, str] = {}
    for element in msgspec.json.decode(mapping):
        fields = {name.lower(): value for name, value in element.items()}
        properties = {name.lower(): value for name, value in (fields.get("properties") or {}).items()}
        path, field, ordinal = (properties.get(key, fields.get(key)) for key in ("path", "field", "ordinal"))
        place = path or (f"$.{field}" if field else ordinal)
        if place is not None:
            column = str(fields.get("column") or fields.get("name"))
            found[re.sub(r"""\[(['"])(.*?)\1\]""", r".\2", str(place))] = column
    return found


def _seconds(span: str) -> float:
    """Seconds of a timespan as ADX prints it, `[d.]hh:mm:ss[.fffffff]`."""
    first, minutes, seconds = span.split(":")
    days, _, hours = first.rpartition(".")
    return ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)
