"""What databases, tables, mappings and policies there are: one snapshot, kept equal to the store.

A table's rows are in a DuckDB table of their own, under a number: Kusto tells `T` from `t`, DuckDB does not.
Three views stand before it: `v<id>` has the columns that Kusto shows, `i<id>` also the time of ingestion, `x<id>`
besides that the extent's id and tags.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import duckdb

from localrunner.adx.columns import DUCKDB_TYPES, NET_TYPES, Column, check_name, quoted
from localrunner.adx.errors import KustoError, already_exists, not_found
from localrunner.adx.store import Store, next_id

INGESTION_TIME = "$IngestionTime"
EXTENT = "$Extent"
# The number that streamed rows have in place of an extent's.
STREAMED = 0
EXTENT_ID = "$ExtentId"
EXTENT_TAGS = "$ExtentTags"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A named ingestion mapping; `kind` is in lower case, `body` the JSON as it was given."""

    kind: str
    name: str
    body: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Table:
    """A table as Kusto shows it."""

    id: int
    database: str
    name: str
    columns: tuple[Column, ...]
    folder: str = ""
    docstring: str = ""
    mappings: dict[tuple[str, str], Mapping] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)

    @property
    def rows_name(self) -> str:
        """The DuckDB table that holds the rows."""
        return f"t{self.id}"


@dataclass(frozen=True, slots=True)
class Database:
    """A database: tables by name, mappings by kind and name, policies by kind, functions' texts by name."""

    name: str
    id: uuid.UUID
    tables: dict[str, Table]
    mappings: dict[tuple[str, str], Mapping]
    policies: dict[str, str]
    functions: dict[str, str] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """The table of exactly that name. Raises: KustoError if there is none."""
        try:
            return self.tables[name]
        except KeyError:
            raise not_found("Table", name) from None


class Catalog:
    """Reads are from the snapshot; every change is one transaction, after which the snapshot is read again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.databases: dict[str, Database] = {}
        self._changing = threading.Lock()
        self._reload()
        # A directory of an earlier version lacks the newer views.
        with store.writing() as cursor:
            for database in self.databases.values():
                for table in database.tables.values():
                    _create_views(cursor, table)

    def database(self, name: str) -> Database:
        """The database of that name, in any case.

        Source: entity-names.md, "Database names are case-insensitive".
        """
        try:
            return self.databases[name.lower()]
        except KeyError:
            raise not_found("Database", name) from None

    def change(self, work: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Run `work` in one transaction and show its result to everyone, or do neither."""
        with self._changing:
            with self.store.writing() as cursor:
                work(cursor)
            self._reload()

    def create_database(self, name: str) -> None:
        """The database exists."""
        check_name("Database", name)
        if name.lower() in self.databases:
            return
        self.change(
            lambda cursor: _run(
                cursor, "INSERT INTO meta.databases VALUES (?, ?, ?)", [name, uuid.uuid4(), _now()]
            )
        )

    def create_tables(self, database: str, wanted: Sequence[Table]) -> None:
        """Every table of `wanted` exists; one that did before is left as it was."""
        there = self.database(database).tables
        new = [table for table in wanted if table.name not in there]
        for table in new:
            check_name("Table", table.name)
            _check_columns(table.columns)

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            for table in new:
                created = replace(table, id=next_id(cursor))
                _insert_table(cursor, created)
                definitions = [f"{quoted(c.name)} {DUCKDB_TYPES[c.type]}" for c in created.columns]
                definitions += [f"{quoted(INGESTION_TIME)} TIMESTAMP", f"{quoted(EXTENT)} BIGINT"]
                cursor.execute(f"CREATE TABLE {created.rows_name} ({', '.join(definitions)})")
                _create_views(cursor, created)

        self.change(work)

    def alter_table(self, old: Table, new: Table) -> None:
        """The table has the columns of `new`, in that order; what is not among them is dropped.

        Raises:
            KustoError: a column that stays would change its type.
        """
        _check_columns(new.columns)
        types = {column.name: column.type for column in old.columns}
        for column in new.columns:
            if types.get(column.name, column.type) != column.type:
                raise KustoError(
                    f"Column '{column.name}' of table '{old.name}' is of type {types[column.name]}, not "
                    f"{column.type}: a column's type cannot be altered by this command"
                )
        kept = {column.name for column in new.columns}

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            _drop_views(cursor, old)
            for column in new.columns:
                if column.name not in types:
                    default = " DEFAULT ''" if column.type == "string" else ""
                    cursor.execute(
                        f"ALTER TABLE {old.rows_name} ADD COLUMN {quoted(column.name)} "
                        f"{DUCKDB_TYPES[column.type]}{default}"
                    )
            for name in types:
                if name not in kept:
                    cursor.execute(f"ALTER TABLE {old.rows_name} DROP COLUMN {quoted(name)}")
            _delete_table(cursor, old)
            _insert_table(cursor, replace(new, id=old.id))
            _create_views(cursor, replace(new, id=old.id))

        self.change(work)

    def drop_tables(self, tables: Sequence[Table]) -> None:
        """The tables, their rows, extents, mappings and policies are gone."""

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            for table in tables:
                _drop_views(cursor, table)
                cursor.execute(f"DROP TABLE {table.rows_name}")
                _delete_table(cursor, table)
                _run(cursor, "DELETE FROM meta.extents WHERE table_id = ?", [table.id])
                for name in ("mappings", "policies"):
                    where = '"database" = ? AND table_name = ?'
                    _run(cursor, f"DELETE FROM meta.{name} WHERE {where}", [table.database, table.name])  # noqa: S608 - names of ours

        self.change(work)

    def clear_table(self, table: Table) -> None:
        """The table has no rows and no extents."""

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            cursor.execute(f"DELETE FROM {table.rows_name}")  # noqa: S608 - a number of ours
            _run(cursor, "DELETE FROM meta.extents WHERE table_id = ?", [table.id])

        self.change(work)

    def put_mapping(self, database: str, table: str, mapping: Mapping, *, replace_it: bool) -> None:
        """The mapping exists; `table` is empty for a mapping of the database.

        Raises:
            KustoError: it existed and `replace_it` is false.
        """
        there = self._mappings(database, table)
        if (mapping.kind, mapping.name) in there and not replace_it:
            raise already_exists("MappingPersistent", mapping.name)

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            _delete_mapping(cursor, database, table, mapping.kind, mapping.name)
            row = [database, table, mapping.kind, mapping.name, mapping.body, mapping.updated_at]
            _run(cursor, "INSERT INTO meta.mappings VALUES (?, ?, ?, ?, ?, ?)", row)

        self.change(work)

    def drop_mapping(self, database: str, table: str, kind: str, name: str) -> None:
        """The mapping is gone. Raises: KustoError if there was none."""
        if (kind, name) not in self._mappings(database, table):
            raise not_found("MappingPersistent", name)
        self.change(lambda cursor: _delete_mapping(cursor, database, table, kind, name))

    def put_policy(self, database: str, table: str, kind: str, body: str | None) -> None:
        """The policy is `body`, or not set where that is None; `table` is empty for the database's own."""

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            where = '"database" = ? AND table_name = ? AND kind = ?'
            _run(cursor, f"DELETE FROM meta.policies WHERE {where}", [database, table, kind])  # noqa: S608 - a constant
            if body is not None:
                _run(cursor, "INSERT INTO meta.policies VALUES (?, ?, ?, ?)", [database, table, kind, body])

        self.change(work)

    def put_function(self, database: str, name: str, definition: str | None) -> None:
        """The stored function has this definition, or is gone where that is None."""

        def work(cursor: duckdb.DuckDBPyConnection) -> None:
            _run(cursor, 'DELETE FROM meta.functions WHERE "database" = ? AND name = ?', [database, name])
            if definition is not None:
                _run(cursor, "INSERT INTO meta.functions VALUES (?, ?, ?)", [database, name, definition])

        self.change(work)

    def _mappings(self, database: str, table: str) -> dict[tuple[str, str], Mapping]:
        owner = self.database(database)
        return owner.table(table).mappings if table else owner.mappings

    def _reload(self) -> None:
        with self.store.reading() as cursor:
            cursor.execute("BEGIN")
            databases = {
                name.lower(): Database(name, identity, {}, {}, {})
                for name, identity in cursor.execute(
                    "SELECT name, id FROM meta.databases ORDER BY name"
                ).fetchall()
            }
            columns: dict[int, list[Column]] = {}
            for table_id, name, kind in cursor.execute(
                "SELECT table_id, name, type FROM meta.columns ORDER BY table_id, ordinal"
            ).fetchall():
                columns.setdefault(table_id, []).append(Column(name, kind))
            for table_id, database, name, folder, docstring in cursor.execute(
                "SELECT * FROM meta.tables ORDER BY name"
            ).fetchall():
                table = Table(table_id, database, name, tuple(columns[table_id]), folder, docstring)
                databases[database.lower()].tables[name] = table
            for database, table_name, *rest in cursor.execute(
                "SELECT * FROM meta.mappings ORDER BY name"
            ).fetchall():
                owner = databases[database.lower()]
                mappings = owner.tables[table_name].mappings if table_name else owner.mappings
                mapping = Mapping(*rest)
                mappings[mapping.kind, mapping.name] = mapping
            for database, table_name, kind, body in cursor.execute("SELECT * FROM meta.policies").fetchall():
                owner = databases[database.lower()]
                (owner.tables[table_name].policies if table_name else owner.policies)[kind] = body
            for database, name, definition in cursor.execute(
                "SELECT * FROM meta.functions ORDER BY name"
            ).fetchall():
                databases[database.lower()].functions[name] = definition
            cursor.execute("COMMIT")
        self.databases = databases


def schema_as_json(table: Table) -> str:
    """The table's columns as `.show table T schema as json` gives them."""
    columns = [{"Name": c.name, "Type": NET_TYPES[c.type], "CslType": c.type} for c in table.columns]
    return json.dumps({"Name": table.name, "OrderedColumns": columns}, ensure_ascii=False)


def _check_columns(columns: Sequence[Column]) -> None:
    seen: dict[str, str] = {}
    if not columns:
        raise KustoError("A table needs at least one column")
    for column in columns:
        check_name("Column", column.name)
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise KustoError(
                f"Columns '{other}' and '{column.name}' differ only in case, which this double cannot keep apart"
            )
    if len(seen) != len(columns):
        raise KustoError("A column is named twice")


def _insert_table(cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
    row = [table.id, table.database, table.name, table.folder, table.docstring]
    _run(cursor, "INSERT INTO meta.tables VALUES (?, ?, ?, ?, ?)", row)
    for ordinal, column in enumerate(table.columns):
        _run(cursor, "INSERT INTO meta.columns VALUES (?, ?, ?, ?)", [table.id, ordinal, column.name, column.type])


def _delete_table(cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
    _run(cursor, "DELETE FROM meta.tables WHERE id = ?", [table.id])
    _run(cursor, "DELETE FROM meta.columns WHERE table_id = ?", [table.id])


def _create_views(cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
    # A table may have an `id` or `tags` of its own.
    columns = ", ".join(f"r.{quoted(column.name)}" for column in table.columns)
    with_time = f"{columns}, r.{quoted(INGESTION_TIME)}"
    # What was streamed has no extent: an empty id, and no tags. Source: extent-id-function.md, extent-tags.md.
    with_extent = (
        f"{with_time}, coalesce(e.id, '{uuid.UUID(int=0)}'::UUID) AS {quoted(EXTENT_ID)},"
        f" to_json(e.tags) AS {quoted(EXTENT_TAGS)}"
    )
    join = f" LEFT JOIN meta.extents e ON r.{quoted(EXTENT)} = e.number"
    for name, selected, further in (("v", columns, ""), ("i", with_time, ""), ("x", with_extent, join)):
        cursor.execute(
            f"CREATE OR REPLACE VIEW {name}{table.id} AS SELECT {selected} FROM {table.rows_name} r{further}"  # noqa: S608 - quoted names
        )


def _drop_views(cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
    for name in "vix":
        cursor.execute(f"DROP VIEW IF EXISTS {name}{table.id}")


def _delete_mapping(cursor: duckdb.DuckDBPyConnection, database: str, table: str, kind: str, name: str) -> None:
    where = '"database" = ? AND table_name = ? AND kind = ? AND name = ?'
    _run(cursor, f"DELETE FROM meta.mappings WHERE {where}", [database, table, kind, name])  # noqa: S608 - a constant


def _run(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: list[object]) -> None:
    cursor.execute(sql, parameters)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
