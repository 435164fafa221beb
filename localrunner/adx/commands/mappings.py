"""Commands for ingestion mappings.

Source: dataexplorer-docs, kusto/management/create-ingestion-mapping-command.md,
create-or-alter-ingestion-mapping-command.md, drop-ingestion-mapping-command.md, show-ingestion-mapping-command.md.
"""

from __future__ import annotations

from datetime import UTC, datetime

from localrunner.adx import mapping
from localrunner.adx.catalog import Mapping
from localrunner.adx.csl import Reader
from localrunner.adx.errors import IngestionError, KustoError, not_found, syntax_error
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, command

_KINDS = frozenset({"csv", "json", "avro", "parquet", "orc", "w3clogfile"})
_SHOWN = "Name,Kind,Mapping,LastUpdatedOn:datetime,Database,Table"


def _kind(text: str) -> str:
    if text.lower() not in _KINDS:
        raise syntax_error(f"'{text}' is not a mapping kind; known are {', '.join(sorted(_KINDS))}")
    return text.lower()


def _owner(context: Context, scope: str, name: str) -> tuple[str, str]:
    """The database and the table that a mapping belongs to; no table for one of the database."""
    if scope == "database":
        return context.catalog.database(name).name, ""
    return context.database.name, context.table(name).name


def _shown(rows: list[Mapping], database: str, table: str) -> Result:
    return result(
        _SHOWN,
        [(row.name, row.kind.capitalize(), row.body, row.updated_at, database, table) for row in rows],
    )


def _put(context: Context, reader: Reader, scope: str, found: list[str], *, replace_it: bool) -> Result:
    owner, kind, name = found
    database, table = _owner(context, scope, owner)
    body = reader.string()
    reader.end()
    kind = _kind(kind)
    if kind in mapping.KINDS:
        try:
            mapping.parse(kind, body)
        except IngestionError as error:
            raise KustoError(error.details, code="BadRequest_InvalidMapping") from None
    stored = Mapping(kind, name, body, datetime.now(UTC).replace(tzinfo=None))
    context.catalog.put_mapping(database, table, stored, replace_it=replace_it)
    return _shown([stored], database, table)


@command(".create table <name> ingestion <kind> mapping <name>")
def create_table_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The mapping exists; an error if it did before."""
    return _put(context, reader, "table", found, replace_it=False)


@command(".create database <name> ingestion <kind> mapping <name>")
def create_database_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The mapping exists; an error if it did before."""
    return _put(context, reader, "database", found, replace_it=False)


@command(".create-or-alter table <name> ingestion <kind> mapping <name>")
def put_table_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The mapping is this one."""
    return _put(context, reader, "table", found, replace_it=True)


@command(".create-or-alter database <name> ingestion <kind> mapping <name>")
def put_database_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The mapping is this one."""
    return _put(context, reader, "database", found, replace_it=True)


def _drop(context: Context, reader: Reader, scope: str, found: list[str]) -> Result:
    reader.end()
    owner, kind, name = found
    database, table = _owner(context, scope, owner)
    context.catalog.drop_mapping(database, table, _kind(kind), name)
    return _all(context, database, table, None)


@command(".drop table <name> ingestion <kind> mapping <name>")
def drop_table_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The mapping is gone; the owner's others are listed."""
    return _drop(context, reader, "table", found)


@command(".drop database <name> ingestion <kind> mapping <name>")
def drop_database_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The mapping is gone; the owner's others are listed."""
    return _drop(context, reader, "database", found)


def _all(context: Context, database: str, table: str, kind: str | None) -> Result:
    owner = context.catalog.database(database)
    mappings = owner.table(table).mappings if table else owner.mappings
    return _shown([row for row in mappings.values() if kind in (None, row.kind)], database, table)


@command(".show table <name> ingestion <kind> mapping <name>")
def show_table_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The one mapping."""
    return _show(context, reader, "table", found)


@command(".show database <name> ingestion <kind> mapping <name>")
def show_database_mapping(context: Context, reader: Reader, found: list[str]) -> Result:
    """The one mapping."""
    return _show(context, reader, "database", found)


def _show(context: Context, reader: Reader, scope: str, found: list[str]) -> Result:
    reader.end()
    owner, kind, name = found
    database, table = _owner(context, scope, owner)
    mappings = (
        context.catalog.database(database).table(table).mappings
        if table
        else context.catalog.database(database).mappings
    )
    if (_kind(kind), name) not in mappings:
        raise not_found("MappingPersistent", name)
    return _shown([mappings[_kind(kind), name]], database, table)


@command(".show table <name> ingestion mappings", ".show table <name> ingestion <kind> mappings")
def show_table_mappings(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's mappings, all or those of one kind."""
    reader.end()
    database, table = _owner(context, "table", found[0])
    return _all(context, database, table, _kind(found[1]) if len(found) > 1 else None)


@command(".show database <name> ingestion mappings", ".show database <name> ingestion <kind> mappings")
def show_database_mappings(context: Context, reader: Reader, found: list[str]) -> Result:
    """The database's own mappings, all or those of one kind."""
    reader.end()
    database, table = _owner(context, "database", found[0])
    return _all(context, database, table, _kind(found[1]) if len(found) > 1 else None)
