"""Commands about extents: showing them with their tags, and dropping them.

`older`, `trim by` and `limit` of `.drop extents` are not known here.

Source: dataexplorer-docs, kusto/management/show-extents.md, drop-extents.md, extent-tags.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from localrunner.adx import extents, mgmt, query
from localrunner.adx.catalog import Table
from localrunner.adx.csl import Reader
from localrunner.adx.errors import KustoError, not_found
from localrunner.adx.extents import Extent
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, command

_SHOWN = (
    "ExtentId:guid,DatabaseName,TableName,MaxCreatedOn:datetime,OriginalSize:real,ExtentSize:real,"
    "CompressedSize:real,IndexSize:real,Blocks:long,Segments:long,ExtentContainerId,RowCount:long,"
    "MinCreatedOn:datetime,Tags,Kind,DeletedRowCount:long"
)
_DROPPED = "ExtentId,TableName,CreatedOn:datetime"
_LINE_BREAK = "\r\n"


def listed(context: Context, reader: Reader, tables: Sequence[Table]) -> Result:
    """The extents of the tables that pass the filters which follow; the only known size is the original one."""
    wanted = _ids(reader) if reader.text[reader.at : reader.at + 1] == "(" else None
    reader.accept("hot")  # everything is
    keep = _filters(reader)
    reader.end()
    rows = []
    for table in tables:
        for extent in extents.of(context.catalog, table):
            if (wanted is not None and extent.id not in wanted) or not keep(extent):
                continue
            sizes = (float(extent.raw_bytes), None, None, None, None, None, "")
            tags = _LINE_BREAK.join(extent.tags)
            row = (extent.id, table.database, table.name, extent.created_at, *sizes, extent.rows)
            rows.append((*row, extent.created_at, tags, "", 0))
    return result(_SHOWN, rows)


def _ids(reader: Reader) -> set[uuid.UUID]:
    return {_id(text) for text in reader.values()}


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise KustoError(f"'{text[:60]}' is not the id of an extent") from None


class _Filters:
    """`where tags has 'x' and tags !contains 'y'`: an extent passes if every condition holds."""

    def __init__(self) -> None:
        self.conditions: list[tuple[str, str]] = []

    def __call__(self, extent: Extent) -> bool:
        return all(_holds(operator, text, extent.tags) for operator, text in self.conditions)


def _filters(reader: Reader) -> _Filters:
    filters = _Filters()
    if not reader.accept("where"):
        return filters
    while True:
        if not reader.accept("tags"):
            raise reader.error("'tags' is expected")
        negated = "!" if reader.symbol("!") else ""
        operator = (reader.word() or "").lower()
        if operator not in ("has", "contains"):
            raise reader.error("'has' or 'contains' is expected")
        filters.conditions.append((negated + operator, reader.string()))
        if not reader.accept("and"):
            return filters


def _holds(operator: str, text: str, tags: Sequence[str]) -> bool:
    """Source: show-extents.md: `has` is equality, `contains` a part in any case; `!` is the opposite."""
    parts = (text.lower() in tag.lower() for tag in tags)
    found = text in tags if operator.endswith("has") else any(parts)
    return found is not operator.startswith("!")


@command(".show table <table> extents")
def show_table_extents(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's extents, one for each batch."""
    return listed(context, reader, [context.table(found[0])])


@command(".show database <name> extents")
def show_database_extents(context: Context, reader: Reader, found: list[str]) -> Result:
    """The extents of every table of the database."""
    return listed(context, reader, list(context.catalog.database(found[0]).tables.values()))


@command(".drop extents")
def drop_extents(context: Context, reader: Reader, _: list[str]) -> Result:
    """The extents that a query or a list names are gone, or all of a table."""
    if reader.text[reader.at : reader.at + 1] == "(":
        return _drop_from(context, reader, _ids(reader))
    what_if = reader.accept("whatif")
    if reader.symbol("<|"):
        return _drop(context, _by_query(context, reader.rest().strip()), what_if=what_if)
    return _drop_from(context, reader, None)


@command(".drop extent")
def drop_extent(context: Context, reader: Reader, _: list[str]) -> Result:
    """The extent of that id is gone."""
    return _drop_from(context, reader, {_id(reader.value())})


def _drop_from(context: Context, reader: Reader, ids: set[uuid.UUID] | None) -> Result:
    """`from T`: those of the ids that are extents of the table, or all of them."""
    if not reader.accept("from"):
        raise reader.error("'from' and the name of a table are expected")
    table = context.table(reader.name())
    reader.end()
    there = extents.of(context.catalog, table)
    missing = (ids or set()) - {extent.id for extent in there}
    if missing:
        raise not_found("Extent", str(min(missing)))
    return _drop(
        context, [(table, [extent for extent in there if ids is None or extent.id in ids])], what_if=False
    )


def _by_query(context: Context, text: str) -> list[tuple[Table, list[Extent]]]:
    """The extents in the columns ExtentId and TableName of what a query or a command results in."""
    if text.startswith("."):
        found = mgmt.execute(context, text)
    else:
        found = query.run(context.catalog, context.database_name, text, context.properties)
    names = [column.name for column in found.columns]
    if not {"ExtentId", "TableName"} <= set(names):
        raise KustoError("The query gives no columns ExtentId and TableName")
    ids: dict[str, set[str]] = {}
    for row in found.rows:
        values = dict(zip(names, row, strict=True))
        ids.setdefault(str(values["TableName"]), set()).add(str(values["ExtentId"]))
    tables = [context.table(name) for name in ids]
    return [
        (table, [extent for extent in extents.of(context.catalog, table) if str(extent.id) in ids[table.name]])
        for table in tables
    ]


def _drop(context: Context, wanted: Sequence[tuple[Table, list[Extent]]], *, what_if: bool) -> Result:
    rows = []
    for table, gone in wanted:
        if gone and not what_if:
            extents.drop(context.catalog, table, gone)
        rows += [(str(extent.id), table.name, extent.created_at) for extent in gone]
    return result(_DROPPED, rows)
