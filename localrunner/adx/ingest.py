"""A sealed batch to rows in a table: one transaction for the rows, the extent and the record of the batch."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import duckdb

from localrunner.adx import convert, mapping, records
from localrunner.adx.blobs import Blobs, opened
from localrunner.adx.catalog import EXTENT, INGESTION_TIME, Catalog, Mapping, Table
from localrunner.adx.columns import literal, quoted
from localrunner.adx.errors import IngestionError, KustoError
from localrunner.adx.messages import Request
from localrunner.adx.store import next_id

_LOG = logging.getLogger(__name__)

# Which mapping a format takes. Source: kusto/management/mappings.md, "Supported mapping types". `singlejson` is
# not on that page; the SDKs send it with JSON mappings.
MAPPING_KINDS = {"json": "json", "multijson": "json", "singlejson": "json", "csv": "csv"}
_PREFETCH = 4
_INGEST_BY = "ingest-by:"
# DuckDB's reader refuses lines over 2 MB; larger rows are inserted one by one.
_LINE_MAX_BYTES = 1_500_000


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch that takes no more blobs."""

    requests: tuple[Request, ...]
    reason: str
    opened_at: datetime
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: `failures` by the place of the request in it."""

    number: int
    rows: int
    failures: dict[int, IngestionError]
    operation_id: uuid.UUID


@dataclass(slots=True)
class _Plan:
    """How records become rows of one table."""

    table: Table
    format: str
    sources: tuple[mapping.Source, ...]
    kinds: tuple[str, ...]
    skip_first: bool


@dataclass(slots=True)
class _RowsFile:
    """Rows as tokens, on disk; `large` are those that DuckDB's reader would refuse."""

    path: Path
    rows: int = 0
    large: list[list[bytes]] = field(default_factory=list)


class Ingestor:
    """Ingests batches, one after another."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._pool = ThreadPoolExecutor(_PREFETCH, thread_name_prefix="fetch")

    def ingest(self, batch: Sealed) -> Outcome:
        """The rows of every good blob of the batch are in the table, and the batch is on record."""
        first = batch.requests[0]
        failures: dict[int, IngestionError] = {}
        try:
            plan: _Plan | None = self._plan(first)
        except IngestionError as error:
            failures = dict.fromkeys(range(len(batch.requests)), error)
            plan = None
        path = Path(tempfile.mkstemp(dir=self._catalog.store.spool)[1])
        try:
            rows = _RowsFile(path)
            if plan is not None:
                self._read(plan, batch.requests, rows, failures)
            return self._commit(batch, plan, rows, failures)
        finally:
            path.unlink()

    def refuse(self, request: Request, error: IngestionError) -> uuid.UUID:
        """The failure of a blob that never came into a batch is on record; the id to report it under."""
        operation_id = uuid.uuid4()
        with self._catalog.store.writing() as cursor:
            _record_failure(cursor, request, error, operation_id, _now())
        return operation_id

    def ingest_inline(self, table: Table, data: bytes) -> uuid.UUID | None:
        """The CSV rows in `data` are in the table; the extent's id, or None if there were none."""
        sources = mapping.identity("csv", table.columns)
        plan = _Plan(table, "csv", sources, tuple(column.type for column in table.columns), skip_first=False)
        path = Path(tempfile.mkstemp(dir=self._catalog.store.spool)[1])
        try:
            rows = _RowsFile(path)
            with path.open("wb") as file:
                _append(plan, io.BytesIO(data), file, rows)
            if not rows.rows:
                return None
            with self._catalog.store.writing() as cursor:
                return _insert(cursor, plan, rows, (), None, len(data))
        finally:
            path.unlink()

    def close(self) -> None:
        """No thread is left."""
        self._pool.shutdown(cancel_futures=True)

    def _plan(self, request: Request) -> _Plan:
        """How the blobs of a batch are read; all share the request's properties.

        Raises:
            IngestionError: the target, the format or the mapping is not there or does not fit.
        """
        try:
            database = self._catalog.database(request.database)
        except KustoError:
            raise IngestionError(
                "BadRequest_DatabaseNotExist", f"Database '{request.database}' does not exist."
            ) from None
        table = database.tables.get(request.table)
        if table is None:
            raise IngestionError("BadRequest_TableNotExist", f"Table '{request.table}' does not exist.")
        kind = MAPPING_KINDS.get(request.format)
        if kind is None:
            raise IngestionError(
                "BadRequest_FormatNotSupported", f"Format '{request.format}' is not known to this double."
            )
        if request.ignore_first_record and kind != "csv":
            raise IngestionError(
                "BadRequest_IngestionPropertyNotSupportedInThisContext",
                f"ignoreFirstRecord is not known to this double for format '{request.format}'.",
            )
        sources = self._sources(request, kind, table, database.mappings)
        types = {column.name: column.type for column in table.columns}
        unknown = [source.column for source in sources if source.column not in types]
        if unknown:
            raise IngestionError(
                "BadRequest_InconsistentMapping",
                f"The mapping names column '{unknown[0]}', which table '{table.name}' does not have.",
            )
        kinds = tuple(types[source.column] for source in sources)
        return _Plan(table, request.format, sources, kinds, request.ignore_first_record)

    @staticmethod
    def _sources(
        request: Request, kind: str, table: Table, shared: dict[tuple[str, str], Mapping]
    ) -> tuple[mapping.Source, ...]:
        if request.mapping_kind and request.mapping_kind != kind:
            raise IngestionError(
                "BadRequest_InvalidMappingReference",
                f"A mapping of kind '{request.mapping_kind}' does not go with format '{request.format}'.",
            )
        if request.inline_mapping:
            return mapping.parse(kind, request.inline_mapping)
        if not request.mapping_reference:
            return mapping.identity(kind, table.columns)
        key = (kind, request.mapping_reference)
        # A table's mapping comes before its database's. Source: create-ingestion-mapping-command.md.
        found = table.mappings.get(key) or shared.get(key)
        if found is None:
            raise IngestionError(
                "BadRequest_MappingReferenceWasNotFound",
                f"There is no {kind} mapping '{request.mapping_reference}' for table '{table.name}'.",
            )
        return mapping.parse(kind, found.body)

    def _read(
        self, plan: _Plan, requests: Sequence[Request], rows: _RowsFile, failures: dict[int, IngestionError]
    ) -> None:
        """Append every good blob to the rows file; a blob that fails leaves nothing in it."""
        with rows.path.open("wb") as file:
            for index, (request, body) in enumerate(self._fetched(requests)):
                start, before = file.tell(), (rows.rows, len(rows.large))
                try:
                    if isinstance(body, IngestionError):
                        raise body
                    with closing(body), opened(body, request.blob_url) as streams:
                        for stream in streams:
                            _append(plan, stream, file, rows)
                    if rows.rows == before[0]:
                        raise IngestionError(
                            "BadRequest_NoRecordsOrWrongFormat",
                            f"No record of format '{plan.format}' was found in the blob.",
                        )
                except IngestionError as error:
                    failures[index] = error
                    file.seek(start)
                    file.truncate()
                    rows.rows = before[0]
                    del rows.large[before[1] :]

    def _fetched(self, requests: Sequence[Request]) -> Iterator[tuple[Request, BinaryIO | IngestionError]]:
        """The blobs in order, a few of them fetched ahead."""
        ahead: list[Future[BinaryIO]] = []
        for index, request in enumerate(requests):
            while len(ahead) < _PREFETCH and index + len(ahead) < len(requests):
                ahead.append(self._pool.submit(self._blobs.fetch, requests[index + len(ahead)]))
            try:
                yield request, ahead.pop(0).result()
            except IngestionError as error:
                yield request, error

    def _commit(
        self, batch: Sealed, plan: _Plan | None, rows: _RowsFile, failures: dict[int, IngestionError]
    ) -> Outcome:
        first = batch.requests[0]
        operation_id = uuid.uuid4()
        good = [request for index, request in enumerate(batch.requests) if index not in failures]
        raw_bytes = sum(request.raw_bytes for request in batch.requests)
        with self._catalog.store.writing() as cursor:
            number = next_id(cursor)
            extent: uuid.UUID | None = None
            outcome = "failed"
            if plan is not None and good:
                if _is_there(cursor, plan.table, first.ingest_if_not_exists):
                    outcome, rows.rows = "skipped", 0
                else:
                    extent = _insert(cursor, plan, rows, first.tags, first.creation_time, raw_bytes)
                    outcome = "partly_failed" if failures else "succeeded"
            now = _now()
            for index, error in failures.items():
                _record_failure(cursor, batch.requests[index], error, operation_id, now)
            cursor.execute(
                "INSERT INTO meta.batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    number,
                    first.database,
                    first.table,
                    len(batch.requests),
                    len(failures),
                    rows.rows if extent else 0,
                    raw_bytes,
                    batch.reason,
                    outcome,
                    batch.opened_at,
                    batch.sealed_at,
                    now,
                    extent,
                ],
            )
        _LOG.info(
            "batch_sealed number=%d reason=%s blobs=%d failed=%d rows=%d outcome=%s",
            number, batch.reason, len(batch.requests), len(failures), rows.rows if extent else 0, outcome,
        )  # fmt: skip
        return Outcome(number, rows.rows if extent else 0, failures, operation_id)


def _append(plan: _Plan, stream: BinaryIO, file: BinaryIO, rows: _RowsFile) -> None:
    """Add the rows of one stream to the file.

    Each row starts with one more token, because DuckDB takes an empty line for no line.
    """
    for chunk in _decoded(plan, stream):
        lines = [records.DELIMITER.join((b"0", *row)) for row in chunk]
        if any(len(line) > convert.VALUE_MAX_BYTES for line in lines):
            lines = []
            for row in chunk:
                short = records.limited(row, plan.kinds)
                line = records.DELIMITER.join((b"0", *short))
                if len(line) > _LINE_MAX_BYTES:
                    rows.large.append(short)
                else:
                    lines.append(line)
        if lines:
            file.write(b"\n".join(lines))
            file.write(b"\n")
        rows.rows += len(chunk)


def _decoded(plan: _Plan, stream: BinaryIO) -> Iterator[list[records.Tokens]]:
    if plan.format == "csv":
        dynamic = [kind == "dynamic" for kind in plan.kinds]
        return records.csv_rows(stream, plan.sources, dynamic, skip_first=plan.skip_first)
    paths = [source.path for source in plan.sources if source.path is not None]
    extract: Callable[[bytes], records.Tokens] = records.extractor(paths)
    if len(paths) != len(plan.sources):
        inner = extract

        def extract(record: bytes) -> records.Tokens:
            tokens = iter(inner(record))
            return [b"" if source.path is None else next(tokens) for source in plan.sources]

    return (records.json_lines if plan.format == "json" else records.multi_json)(stream, extract)


def _insert(
    cursor: duckdb.DuckDBPyConnection,
    plan: _Plan,
    rows: _RowsFile,
    tags: tuple[str, ...],
    created_at: datetime | None,
    raw_bytes: int,
) -> uuid.UUID:
    """The rows are in the table, in one new extent."""
    number, identity, now = next_id(cursor), uuid.uuid4(), _now()
    names = [quoted(column.name) for column in plan.table.columns]
    by_column = {source.column: index for index, source in enumerate(plan.sources)}
    values = []
    for column in plan.table.columns:
        index = by_column.get(column.name)
        constant = None if index is None else plan.sources[index].constant
        if constant is not None:
            values.append(convert.expression(f"({literal(_quoted_json(constant))})", column.type))
        elif index is None:
            values.append("''" if column.type == "string" else "NULL")
        else:
            values.append(convert.expression(f"c{index}", column.type))
    target = f"INSERT INTO {plan.table.rows_name} ({', '.join([*names, quoted(INGESTION_TIME), quoted(EXTENT)])})"
    select = f"SELECT {', '.join(values)}, TIMESTAMP '{now}', {number} FROM "  # noqa: S608 - names are quoted, the rest is ours
    spec = ", ".join(["'none': 'VARCHAR'", *(f"'c{index}': 'VARCHAR'" for index in range(len(plan.sources)))])
    if os.path.getsize(rows.path):
        cursor.execute(
            f"{target} {select} read_csv({literal(str(rows.path))}, delim = chr(31), quote = '', escape = '',"
            f" new_line = '\\n', header = false, auto_detect = false, nullstr = '', comment = '',"
            f" columns = {{{spec}}})"
        )
    for row in rows.large:
        places = ", ".join(f"CAST(nullif(?, '') AS VARCHAR) AS c{index}" for index in range(len(row)))
        cursor.execute(f"{target} {select} (SELECT {places})", [token.decode() for token in row])
    cursor.execute(
        "INSERT INTO meta.extents VALUES (?, ?, ?, ?, ?, ?, ?)",
        [number, identity, plan.table.id, rows.rows, raw_bytes, created_at or now, list(tags)],
    )
    return identity


def _quoted_json(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _is_there(cursor: duckdb.DuckDBPyConnection, table: Table, values: tuple[str, ...]) -> bool:
    """True if an extent of the table has an `ingest-by:` tag with one of these values.

    Source: kusto/management/extent-tags.md.
    """
    if not values:
        return False
    tags = [value if value.startswith(_INGEST_BY) else _INGEST_BY + value for value in values]
    row = cursor.execute(
        "SELECT count(*) FROM meta.extents WHERE table_id = ? AND list_has_any(tags, ?::VARCHAR[])",
        [table.id, tags],
    ).fetchone()
    return bool(row and row[0])


def _record_failure(
    cursor: duckdb.DuckDBPyConnection,
    request: Request,
    error: IngestionError,
    operation_id: uuid.UUID,
    now: datetime,
) -> None:
    cursor.execute(
        "INSERT INTO meta.failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            operation_id,
            request.database,
            request.table,
            now,
            request.path,
            request.source_id,
            error.details,
            "Permanent" if error.permanent else "Transient",
            error.code,
            not error.permanent,
        ],
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
