"""ADX is asked whether segments' rows are in their tables: rows with metadata carry their segment's id."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sinkcore.clock import Clock
from sinkcore.errors import TransientError
from sinkcore.segment import Blob, started_ms
from sinkcore.telemetry import event

if TYPE_CHECKING:
    from azure.kusto.data import KustoClient

ASK_TIMEOUT_S = 20
# Source: "IngestionBatching policy": 5 minutes where no policy says otherwise.
BATCHING_DEFAULT_S = 300.0
LOOK_UP_EVERY_S = 3600
# Segments in one question, the oldest first; a busy table has the rest asked about at the next sweep.
ASKED_MAX = 1000
# Our clocks give segments their ids, and ADX's clock gives rows their ingestion time.
CLOCK_SKEW_S = 2 * 3600
FORBIDDEN = 403
SEGMENT_ORDINAL = 4
"""Where text has the segment's id: `sinkcore.encode.textmetadata.COLUMNS`."""
# Source: "Ingestion mappings": both kinds of Avro have one kind of mapping, and all kinds of text another.
_KINDS = {"json": "json", "avro": "avro", "apacheavro": "avro"}


class NotAllowedError(TransientError):
    """ADX answered that this identity may not ask: it lacks the role Database Viewer."""


class LandedRows(Protocol):
    """What the tables of ADX say of a segment."""

    def batching_s(self, blob: Blob) -> float:
        """For how long ADX may hold the blob's rows back before it ingests them."""

    def counts(self, blob: Blob, segment_ids: Sequence[str]) -> Mapping[str, int] | None:
        """How many rows the blob's table has of each segment that has some; None if it does not tell them apart.

        Raises:
            NotAllowedError: this identity may not ask.
            TransientError: ADX did not answer.
        """

    def takes(self, blob: Blob) -> bool:
        """Whether the blob's table is there, and the mapping by which it is ingested.

        Raises:
            TransientError: ADX did not answer, or has no such database.
        """


_Question = tuple[str, str, str | None, str | None]


@dataclass(slots=True)
class Answers:
    """What one sweep knows of a topic's segments in ADX: one question a table, for all of them together."""

    topic: str
    landed: LandedRows
    _forbidden: dict[_Question, str] = field(default_factory=dict)
    _found: dict[_Question, Mapping[str, int] | None] = field(default_factory=dict)
    _takes: dict[_Question, bool] = field(default_factory=dict)
    _batching_s: dict[_Question, float] = field(default_factory=dict)

    def ask(self, wanted: Iterable[tuple[Blob, str]]) -> None:
        """Each segment (by its id) is asked about in its blob's table; where ADX is silent nothing is known."""
        tables: dict[_Question, tuple[Blob, list[str]]] = {}
        for blob, segment_id in wanted:
            asked = tables.setdefault(_question_of(blob), (blob, []))[1]
            if segment_id not in asked[-1:] and len(asked) < ASKED_MAX:
                asked.append(segment_id)
        for question, (blob, asked) in tables.items():
            try:
                found = self.landed.counts(blob, asked)
            except NotAllowedError as error:
                self._forbidden[question] = str(error)
            except TransientError as error:
                event("adx_silent", logging.WARNING, topic=self.topic, error=str(error))
            else:
                self._found[question] = None if found is None else dict.fromkeys(asked, 0) | dict(found)

    def know(self, blob: Blob, segment_id: str) -> bool:
        """Whether there is an answer about the segment in the blob's table, be it that nobody can tell."""
        found = self._found.get(_question_of(blob), {})
        return found is None or segment_id in found

    def rows(self, blob: Blob, segment_id: str) -> int | None:
        """The segment's rows in the blob's table; None if it does not tell segments apart."""
        found = self._found[_question_of(blob)]
        return None if found is None else found[segment_id]

    def cannot_tell(self, blob: Blob) -> bool:
        """Whether it is known that the blob's table does not tell segments apart, or may not be asked."""
        question = _question_of(blob)
        return question in self._forbidden or self._found.get(question, {}) is None

    def refusal(self, blob: Blob) -> str:
        """What ADX said where the blob's table may not be asked; empty where it may."""
        return self._forbidden.get(_question_of(blob), "")

    def batching_s(self, blob: Blob) -> float:
        """For how long ADX may hold the blob's rows back. An ADX that does not answer is asked once a sweep."""
        question = _question_of(blob)
        if question not in self._batching_s:
            self._batching_s[question] = self.landed.batching_s(blob)
        return self._batching_s[question]

    def takes(self, blob: Blob) -> bool:
        """Whether ADX has the blob's table and mapping; False if it does not answer."""
        question = _question_of(blob)
        if question not in self._takes:
            try:
                self._takes[question] = self.landed.takes(blob)
            except TransientError as error:
                event("adx_silent", logging.WARNING, topic=self.topic, error=str(error))
                self._takes[question] = False
        return self._takes[question]


def _question_of(blob: Blob) -> _Question:
    """What blobs have in common about which ADX is asked together."""
    return blob.db, blob.table, blob.mapping, blob.metadata


class AdxRows:
    """The tables behind an engine endpoint, by Microsoft's client."""

    def __init__(self, connect: Callable[[], KustoClient], clock: Clock) -> None:
        self._client = cache(connect)
        self._clock = clock
        # What was looked up, and when.
        self._batching: dict[tuple[str, str], tuple[float, float]] = {}
        self._segments: dict[_Question, tuple[str | None, float]] = {}

    def batching_s(self, blob: Blob) -> float:
        """See LandedRows. Read once an hour; 5 minutes, or what it was, where the policy cannot be read."""
        table, now_s = (blob.db, blob.table), self._clock.monotonic_s()
        known_s, read_at_s = self._batching.get(table, (BATCHING_DEFAULT_S, -inf))
        if now_s - read_at_s <= LOOK_UP_EVERY_S:
            return known_s
        try:
            read_s = self._read_batching_s(blob)
        except TransientError:
            # Not remembered: it may be much longer, and rows that are still held back would be sent again.
            return known_s
        self._batching[table] = read_s, now_s
        return read_s

    def counts(self, blob: Blob, segment_ids: Sequence[str]) -> Mapping[str, int] | None:
        """See LandedRows.

        What was ingested before the oldest of them is not looked at. Source: ingestion_time() is null where the
        table's ingestion time policy is off.
        """
        segment = self._segment(blob)
        if segment is None:
            return None
        ids = ", ".join(map(_text, segment_ids))
        since = datetime.fromtimestamp(min(map(started_ms, segment_ids)) / 1000 - CLOCK_SKEW_S, UTC)
        rows = self._ask(
            blob.db,
            f"{_quoted(blob.table)} | where isnull(ingestion_time()) or ingestion_time() > "
            f"datetime({since:%Y-%m-%dT%H:%M:%S}) | where {segment} in ({ids}) "
            f"| summarize rows = count() by segment = {segment}",
        )
        return {row["segment"]: int(row["rows"]) for row in rows}

    def takes(self, blob: Blob) -> bool:
        """See LandedRows."""
        tables = self._ask(blob.db, f".show tables | where TableName == {_text(blob.table)}")
        return bool(tables) and (blob.mapping is None or any(self._mappings(blob)))

    def _segment(self, blob: Blob) -> str | None:
        """KQL for the segment's id in a row; None if no column of the table holds it. Looked up once an hour."""
        question, now_s = _question_of(blob), self._clock.monotonic_s()
        known, read_at_s = self._segments.get(question, (None, -inf))
        if now_s - read_at_s > LOOK_UP_EVERY_S:
            known = self._look_up_segment(blob)
            self._segments[question] = known, now_s
        return known

    def _look_up_segment(self, blob: Blob) -> str | None:
        by_place: dict[str, Any]
        kind, whole = _kind_of(blob), f"$.{blob.metadata}"
        schema = self._ask(blob.db, f"{_quoted(blob.table)} | getschema")
        if blob.mapping is None:
            # A field goes to the column of its name, and one of text to the column in its place.
            by_place = {str(row["ColumnOrdinal"]): row["ColumnName"] for row in schema} | {whole: blob.metadata}
        elif mapping := next(self._mappings(blob), None):
            by_place = _columns_by_place(mapping)
        else:
            # Nothing can have landed by it, and whether its rows will tell their segment is not known yet.
            raise TransientError(
                f"ADX engine: table {blob.table} in database {blob.db} has no {kind.upper()} mapping "
                f"{blob.mapping}; create it"
            )
        places = [str(SEGMENT_ORDINAL)] if kind == "csv" else [f"{whole}.segment", whole]
        place = next((each for each in places if each in by_place), None)
        if place is None or by_place[place] not in {row["ColumnName"] for row in schema}:
            return None
        return f"tostring({_quoted(by_place[place])}{'.segment' if place == whole else ''})"

    def _mappings(self, blob: Blob) -> Iterator[str]:
        """The blob's mapping by its name: the table's own comes before its database's."""
        for row in self._ask_of_both(blob, f"ingestion {_kind_of(blob)} mappings"):
            if row["Name"] == blob.mapping:
                yield row["Mapping"]

    def _read_batching_s(self, blob: Blob) -> float:
        for row in self._ask_of_both(blob, "policy ingestionbatching"):
            policy = msgspec.json.decode(row["Policy"] or "null")
            if policy and policy.get("MaximumBatchingTimeSpan"):
                return _seconds(policy["MaximumBatchingTimeSpan"])
        return BATCHING_DEFAULT_S

    def _ask_of_both(self, blob: Blob, what: str) -> Iterator[dict[str, Any]]:
        """What ADX shows of the blob's table, and then of its database."""
        for entity in (f"table {_quoted(blob.table)}", f"database {_quoted(blob.db)}"):
            yield from self._ask(blob.db, f".show {entity} {what}")

    def _ask(self, db: str, text: str) -> list[dict[str, Any]]:
        from azure.kusto.data import ClientRequestProperties
        from azure.kusto.data.exceptions import KustoError

        properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
        properties.set_option(properties.request_timeout_option_name, timedelta(seconds=ASK_TIMEOUT_S))
        try:
            found = self._client().execute(db, text, properties).primary_results[0]
            return [row.to_dict() for row in found]
        except (KustoError, LookupError, TypeError, ValueError, AttributeError) as error:
            # The client takes the shape of an answer for granted.
            status = getattr(getattr(error, "http_response", None), "status_code", None)
            raise (NotAllowedError if status == FORBIDDEN else TransientError)(
                f"ADX engine: {type(error).__name__} on a question about database {db}; check KUSTO_QUERY_URL and "
                "the identity's role Database Viewer"
            ) from None


def _kind_of(blob: Blob) -> str:
    return _KINDS.get(blob.format, "csv")


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
