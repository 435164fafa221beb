"""Extents: what each batch became in its table. Rows that were streamed belong to none."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import duckdb

from localrunner.adx.catalog import EXTENT, Catalog, Table
from localrunner.adx.columns import quoted


@dataclass(frozen=True, slots=True)
class Extent:
    """One extent; its rows carry `number`, everybody else sees `id`."""

    number: int
    id: uuid.UUID
    rows: int
    raw_bytes: int
    created_at: datetime
    tags: list[str]


def of(catalog: Catalog, table: Table) -> list[Extent]:
    """The table's extents, oldest first."""
    with catalog.store.reading() as cursor:
        rows = cursor.execute(
            "SELECT number, id, rows, raw_bytes, created_at, tags FROM meta.extents WHERE table_id = ?"
            " ORDER BY number",
            [table.id],
        ).fetchall()
    return [Extent(*row) for row in rows]


def drop(catalog: Catalog, table: Table, extents: Iterable[Extent]) -> None:
    """The extents and their rows are gone."""
    numbers = [extent.number for extent in extents]

    def work(cursor: duckdb.DuckDBPyConnection) -> None:
        of_them = f"{quoted(EXTENT)} IN (SELECT unnest(?::BIGINT[]))"
        cursor.execute(f"DELETE FROM {table.rows_name} WHERE {of_them}", [numbers])  # noqa: S608 - quoted names
        cursor.execute("DELETE FROM meta.extents WHERE number IN (SELECT unnest(?::BIGINT[]))", [numbers])

    catalog.change(work)
