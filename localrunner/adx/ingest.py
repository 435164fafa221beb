"""A sealed batch to rows in a table: one transaction for the rows, the extent and the record of the batch."""

from __future__ import annotations

import io
import logging
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import duckdb

from localrunner.adx import plans
from localrunner.adx.blobs import Blobs, opened
from localrunner.adx.catalog import Catalog, Table
from localrunner.adx.errors import IngestionError
from localrunner.adx.messages import Request
from localrunner.adx.observer import Observer
from localrunner.adx.plans import Plan
from localrunner.adx.rowsfile import RowsFile
from localrunner.adx.store import next_id

_LOG = logging.getLogger(__name__)

_PREFETCH = 4
_INGEST_BY = "ingest-by:"


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


class Ingestor:
    """Ingests batches, one after another."""

    def __init__(self, catalog: Catalog, blobs: Blobs, observer: Observer) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._faults = observer.faults
        self._counters = observer.counters
        self._pool = ThreadPoolExecutor(_PREFETCH, thread_name_prefix="fetch")

    def ingest(self, batch: Sealed) -> Outcome:
        """The rows of every good blob of the batch are in the table, and the batch is on record."""
        failures: dict[int, IngestionError] = {}
        plan: Plan | None = None
        try:
            plan = plans.plan(self._catalog, batch.requests[0])
        except IngestionError as error:
            failures = dict.fromkeys(range(len(batch.requests)), error)
        with self._rows_file() as rows:
            if plan is not None:
                self._read(plan, batch.requests, rows, failures)
            return self._commit(batch, plan, rows, failures)

    @contextmanager
    def _rows_file(self) -> Iterator[RowsFile]:
        with tempfile.NamedTemporaryFile(dir=self._catalog.store.spool) as file:
            yield RowsFile(Path(file.name), cast(BinaryIO, file))

    def refuse(self, request: Request, error: IngestionError) -> uuid.UUID:
        """The failure of a blob that never came into a batch is on record; the id to report it under."""
        operation_id = uuid.uuid4()
        with self._catalog.store.writing() as cursor:
            _record_failure(cursor, request, error, operation_id, _now())
        self._counters.add(f"blobs.refused.{error.code}")
        return operation_id

    def ingest_inline(self, table: Table, data: bytes) -> uuid.UUID | None:
        """The CSV rows in `data` are in the table; the extent's id, or None if there were none."""
        plan = plans.inline(table)
        with self._rows_file() as rows:
            if not rows.append(plan, [io.BytesIO(data)]):
                return None
            with self._catalog.store.writing() as cursor:
                return rows.insert(cursor, plan, (), None, len(data))

    def small_blob(self, request: Request, max_bytes: int) -> BinaryIO:
        """The blob of a streaming request as it is stored.

        Raises:
            IngestionError: it is larger than that, or cannot be read.
        """
        body = self._blobs.fetch(request)
        size = body.seek(0, io.SEEK_END)
        body.seek(0)
        if size > max_bytes:
            body.close()
            raise IngestionError("Stream_InputStreamTooLarge", f"The blob has more than {max_bytes} bytes.")
        return body

    def ingest_streamed(self, request: Request, body: BinaryIO) -> int:
        """The rows in `body` are in the table, outside any extent; how many. Raises: IngestionError."""
        plan = plans.plan(self._catalog, request)
        with self._rows_file() as rows, closing(body), opened(body, request.blob_url) as streams:
            if not rows.append(plan, streams, request.path):
                raise IngestionError("Stream_NoDataToIngest", "Found no data to ingest.")
            with self._catalog.store.writing() as cursor:
                rows.insert_streamed(cursor, plan)
            self._counters.add("rows.streamed", rows.rows)
            return rows.rows

    def close(self) -> None:
        """No thread is left."""
        self._pool.shutdown(cancel_futures=True)

    def _read(
        self, plan: Plan, requests: Sequence[Request], rows: RowsFile, failures: dict[int, IngestionError]
    ) -> None:
        """Append every good blob to the rows file; a blob that fails leaves nothing in it."""
        for index, (request, body) in enumerate(self._fetched(requests)):
            try:
                if isinstance(body, IngestionError):
                    raise body
                self._faults.refuse(request)
                with closing(body), opened(body, request.blob_url) as streams:
                    if not rows.append(plan, streams, request.path):
                        raise IngestionError(
                            "BadRequest_NoRecordsOrWrongFormat",
                            f"No record of format '{plan.format}' was found in the blob.",
                        )
            except IngestionError as error:
                failures[index] = error

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
        self, batch: Sealed, plan: Plan | None, rows: RowsFile, failures: dict[int, IngestionError]
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
                    extent = rows.insert(cursor, plan, first.tags, first.creation_time, raw_bytes)
                    _record_messages(cursor, good)
                    outcome = "partly_failed" if failures else "succeeded"
            self._faults.pass_point("after_rows", first.table)
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
            self._faults.pass_point("after_seal_record", first.table)
        self._faults.pass_point("after_commit", first.table)
        self._count(batch, rows.rows if extent else 0, failures, outcome)
        _LOG.info(
            "batch_sealed number=%d reason=%s blobs=%d failed=%d rows=%d outcome=%s",
            number, batch.reason, len(batch.requests), len(failures), rows.rows if extent else 0, outcome,
        )  # fmt: skip
        return Outcome(number, rows.rows if extent else 0, failures, operation_id)

    def _count(self, batch: Sealed, rows: int, failures: dict[int, IngestionError], outcome: str) -> None:
        self._counters.add("rows.queued", rows)
        self._counters.add(f"batches.sealed.{batch.reason}")
        self._counters.add(f"batches.outcome.{outcome}")
        self._counters.add("blobs.good", len(batch.requests) - len(failures))
        for error in failures.values():
            self._counters.add(f"blobs.refused.{error.code}")


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


def _record_messages(cursor: duckdb.DuckDBPyConnection, requests: Sequence[Request]) -> None:
    """Whoever finds rows twice can tell whether one message was ingested twice, or two were sent."""
    places = ", ".join(["(?, ?)"] * len(requests))
    values = [value for request in requests for value in (request.message_id, request.path)]
    cursor.execute(f"INSERT INTO meta.ingested VALUES {places}", values)  # noqa: S608 - placeholders


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
