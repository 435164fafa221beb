"""Commands that create, show, alter and drop tables.

Source: dataexplorer-docs, kusto/management/create-table-command.md, create-tables-command.md,
create-merge-table-command.md, alter-table-command.md, alter-merge-table-command.md, drop-table-command.md,
show-tables-command.md, show-table-schema-command.md.
"""

from __future__ import annotations

from dataclasses import replace

from localrunner.adx.catalog import Table, schema_as_json
from localrunner.adx.columns import NET_TYPES, csl_name
from localrunner.adx.commands import extents
from localrunner.adx.csl import Reader
from localrunner.adx.errors import KustoError
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, command

_PROPERTIES = frozenset({"docstring", "folder"})
_SCHEMA = "TableName,Schema,DatabaseName,Folder,DocString"


def _one(context: Context, name: str, schema: str) -> Result:
    table = context.table(name)
    return result(_SCHEMA, [(table.name, schema, table.database, table.folder, table.docstring)])


def _defined(context: Context, reader: Reader) -> list[Table]:
    """`T (a: string, ...), U (...) with (folder = "...")`, as tables without a number."""
    defined = []
    while True:
        name = reader.name()
        defined.append(Table(0, context.database.name, name, reader.columns()))
        if not reader.symbol(","):
            break
    properties = reader.properties(_PROPERTIES)
    reader.end()
    folder, docstring = properties.get("folder", ""), properties.get("docstring", "")
    return [replace(table, folder=folder, docstring=docstring) for table in defined]


@command(".create table", ".create tables")
def create_tables(context: Context, reader: Reader, _: list[str]) -> Result:
    """The tables exist; those that did before are as they were."""
    defined = _defined(context, reader)
    context.catalog.create_tables(context.database.name, defined)
    if len(defined) == 1:
        return _one(context, defined[0].name, schema_as_json(context.table(defined[0].name)))
    return _listed(context, [table.name for table in defined])


@command(".create-merge table", ".create-merge tables")
def create_merge_tables(context: Context, reader: Reader, _: list[str]) -> Result:
    """The tables exist with at least these columns."""
    defined = _defined(context, reader)
    there = {table.name for table in defined} & set(context.database.tables)
    for table in defined:
        if table.name in there:
            _extend(context, table)
    context.catalog.create_tables(context.database.name, [t for t in defined if t.name not in there])
    if len(defined) == 1:
        return _one(context, defined[0].name, schema_as_json(context.table(defined[0].name)))
    return _listed(context, [table.name for table in defined])


def _extend(context: Context, wanted: Table) -> None:
    old = context.table(wanted.name)
    types = {column.name: column.type for column in old.columns}
    for column in wanted.columns:
        if types.get(column.name, column.type) != column.type:
            raise KustoError(
                f"Column '{column.name}' of table '{old.name}' is of type {types[column.name]}, not {column.type}"
            )
    new = tuple(column for column in wanted.columns if column.name not in types)
    folder, docstring = wanted.folder or old.folder, wanted.docstring or old.docstring
    changed = replace(old, columns=old.columns + new, folder=folder, docstring=docstring)
    if changed != old:
        context.catalog.alter_table(old, changed)


@command(".alter table")
def alter_table(context: Context, reader: Reader, _: list[str]) -> Result:
    """The table has exactly these columns, in this order."""
    (wanted,) = _defined(context, reader)
    context.catalog.alter_table(context.table(wanted.name), wanted)
    return _one(context, wanted.name, schema_as_json(context.table(wanted.name)))


@command(".alter-merge table")
def alter_merge_table(context: Context, reader: Reader, _: list[str]) -> Result:
    """The table has these columns besides its own."""
    (wanted,) = _defined(context, reader)
    _extend(context, wanted)
    return _one(context, wanted.name, schema_as_json(context.table(wanted.name)))


@command(".drop table", ".drop tables")
def drop_tables(context: Context, reader: Reader, _: list[str]) -> Result:
    """The tables are gone; the rest is listed."""
    names = reader.names() if reader.text[reader.at : reader.at + 1] == "(" else [reader.name()]
    if_exists = reader.accept("ifexists")
    reader.end()
    if if_exists:
        names = [name for name in names if name in context.database.tables]
    context.catalog.drop_tables([context.table(name) for name in names])
    rows = [(table.name, table.database) for table in context.database.tables.values()]
    return result("TableName,DatabaseName", rows)


@command(".show tables")
def show_tables(context: Context, reader: Reader, _: list[str]) -> Result:
    """The tables of the database, or those named; with `extents` after the names their extents."""
    listed = reader.text[reader.at : reader.at + 1] == "("
    names = reader.names() if listed else list(context.database.tables)
    if listed and reader.accept("extents"):
        return extents.listed(context, reader, [context.table(name) for name in names])
    reader.end()
    return _listed(context, names)


def _listed(context: Context, names: list[str]) -> Result:
    tables = [context.table(name) for name in names]
    rows = [(table.name, table.database, table.folder, table.docstring) for table in tables]
    return result("TableName,DatabaseName,Folder,DocString", rows)


@command(".show table <table>")
def show_table(context: Context, reader: Reader, found: list[str]) -> Result:
    """The columns of the table, by the names that Kusto uses for its own attributes."""
    reader.end()
    rows = [
        (column.name, NET_TYPES[column.type], column.type, "", "") for column in context.table(found[0]).columns
    ]
    return result("AttributeName,AttributeType,CslType,Folder,DocString", rows)


@command(".show table <table> schema as json")
def show_table_json(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's schema as JSON."""
    reader.end()
    return _one(context, found[0], schema_as_json(context.table(found[0])))


@command(".show table <table> cslschema")
def show_table_csl(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's schema as a `.create table` takes it."""
    reader.end()
    columns = context.table(found[0]).columns
    return _one(context, found[0], ", ".join(f"{csl_name(c.name)}:{c.type}" for c in columns))
