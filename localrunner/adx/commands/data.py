"""Commands about a table's data: clearing and inline ingestion.

Source: dataexplorer-docs, kusto/management/clear-table-data-command.md, data-ingestion/ingest-inline.md.
"""

from __future__ import annotations

import uuid

from localrunner.adx.csl import Reader
from localrunner.adx.errors import IngestionError, KustoError
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, command


@command(".clear table <table> data")
def clear_table(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table is empty."""
    reader.end()
    table = context.table(found[0])
    context.catalog.clear_table(table)
    return result("Table,DatabaseName,Status", [(table.name, table.database, "Data cleared")])


@command(".ingest inline into table <table>")
def ingest_inline(context: Context, reader: Reader, found: list[str]) -> Result:
    """The CSV text after `<|` is in the table."""
    properties = reader.properties(frozenset({"format"}))
    if properties.get("format", "csv").lower() != "csv":
        raise KustoError(f"format '{properties['format']}' is not known to this double for inline ingestion")
    if not reader.text.startswith("<|", reader.at):
        raise reader.error("'<|' is expected; the bracket form is not known to this double")
    data = reader.text[reader.at + 2 :].lstrip(" \t\r").removeprefix("\n")
    try:
        extent = context.ingestor.ingest_inline(context.table(found[0]), data.encode())
    except IngestionError as error:
        raise KustoError(error.details, code=error.code) from None
    return result("ExtentId:guid", [(extent or uuid.UUID(int=0),)])
