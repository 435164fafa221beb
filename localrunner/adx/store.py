"""The DuckDB file: one writer at a time, any number of readers, and the tables that describe everything else."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

_MEMORY_LIMIT = "256MB"
_THREADS = 2

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS meta;
CREATE SEQUENCE IF NOT EXISTS meta.ids;
CREATE TABLE IF NOT EXISTS meta.instance (id VARCHAR NOT NULL, identity_token VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS meta.databases (
    name VARCHAR PRIMARY KEY, id UUID NOT NULL, created_at TIMESTAMP NOT NULL);
CREATE TABLE IF NOT EXISTS meta.tables (
    id BIGINT PRIMARY KEY, "database" VARCHAR NOT NULL, name VARCHAR NOT NULL,
    folder VARCHAR NOT NULL, docstring VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS meta.columns (
    table_id BIGINT NOT NULL, ordinal INTEGER NOT NULL, name VARCHAR NOT NULL, type VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS meta.mappings (
    "database" VARCHAR NOT NULL, table_name VARCHAR NOT NULL, kind VARCHAR NOT NULL, name VARCHAR NOT NULL,
    body VARCHAR NOT NULL, updated_at TIMESTAMP NOT NULL);
CREATE TABLE IF NOT EXISTS meta.policies (
    "database" VARCHAR NOT NULL, table_name VARCHAR NOT NULL, kind VARCHAR NOT NULL, body VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS meta.functions (
    "database" VARCHAR NOT NULL, name VARCHAR NOT NULL, definition VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS meta.extents (
    number BIGINT PRIMARY KEY, id UUID NOT NULL, table_id BIGINT NOT NULL, rows BIGINT NOT NULL,
    raw_bytes BIGINT NOT NULL, created_at TIMESTAMP NOT NULL, tags VARCHAR[] NOT NULL);
CREATE TABLE IF NOT EXISTS meta.batches (
    number BIGINT PRIMARY KEY, "database" VARCHAR NOT NULL, table_name VARCHAR NOT NULL, blobs INTEGER NOT NULL,
    failed_blobs INTEGER NOT NULL, rows BIGINT NOT NULL, raw_bytes BIGINT NOT NULL, seal_reason VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL, opened_at TIMESTAMP NOT NULL, sealed_at TIMESTAMP NOT NULL,
    committed_at TIMESTAMP NOT NULL, extent_id UUID);
CREATE TABLE IF NOT EXISTS meta.ingested (message_id VARCHAR NOT NULL, path VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS meta.failures (
    operation_id UUID NOT NULL, "database" VARCHAR NOT NULL, table_name VARCHAR NOT NULL,
    failed_at TIMESTAMP NOT NULL, source_path VARCHAR NOT NULL, source_id VARCHAR NOT NULL,
    details VARCHAR NOT NULL, status VARCHAR NOT NULL, code VARCHAR NOT NULL, should_retry BOOLEAN NOT NULL);
"""


class Store:
    """An open DuckDB file. Writers take turns; readers see the last commit."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.spool = data / "spool"
        self.spool.mkdir(exist_ok=True)
        self._connection = duckdb.connect(
            str(data / "adx.duckdb"),
            config={
                "memory_limit": _MEMORY_LIMIT,
                "threads": _THREADS,
                "temp_directory": str(self.spool),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            },
        )
        # Only now is the directory known to be ours alone.
        for leftover in self.spool.iterdir():
            leftover.unlink()
        # KQL's datetimes are UTC, and DuckDB reads the session's zone where a text names none.
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        self._connection.execute(_SCHEMA)
        self._write_lock = threading.Lock()
        self.instance, self.identity_token = self._identity()

    def _identity(self) -> tuple[str, str]:
        """A name and a secret that are this data directory's for good."""
        row = self._connection.execute("SELECT id, identity_token FROM meta.instance").fetchone()
        if row is None:
            row = (secrets.token_hex(4), secrets.token_urlsafe(32))
            self._connection.execute("INSERT INTO meta.instance VALUES (?, ?)", row)
        return row[0], row[1]

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the caller's own, closed afterwards."""
        cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end of the block, undone if the block raises."""
        with self._write_lock, self.reading() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    def close(self) -> None:
        """Close the file; everything committed is in it."""
        with self._write_lock:
            self._connection.close()


def next_id(cursor: duckdb.DuckDBPyConnection) -> int:
    """A number that was never given out before."""
    row = cursor.execute("SELECT nextval('meta.ids')").fetchone()
    assert row is not None
    return int(row[0])
