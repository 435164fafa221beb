"""Kusto's column types and what each is in DuckDB and on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass

from localrunner.adx.errors import KustoError, syntax_error

# Kusto's type -> DuckDB's. Two are narrower than Kusto's own: datetime and timespan keep microseconds where
# Kusto keeps 100 ns, and decimal has 20 digits before and 18 after the point.
DUCKDB_TYPES = {
    "bool": "BOOLEAN",
    "datetime": "TIMESTAMP",
    "decimal": "DECIMAL(38,18)",
    "dynamic": "JSON",
    "guid": "UUID",
    "int": "INTEGER",
    "long": "BIGINT",
    "real": "DOUBLE",
    "string": "VARCHAR",
    "timespan": "INTERVAL",
}

# Source: dataexplorer-docs, kusto/query/scalar-data-types/index.md; int32 and int64 occur in the examples of
# create-table-command.md.
_ALIASES = {
    "boolean": "bool",
    "date": "datetime",
    "double": "real",
    "int32": "int",
    "int64": "long",
    "time": "timespan",
    "uniqueid": "guid",
    "uuid": "guid",
}

NET_TYPES = {
    "bool": "System.SByte",
    "datetime": "System.DateTime",
    "decimal": "System.Data.SqlTypes.SqlDecimal",
    "dynamic": "System.Object",
    "guid": "System.Guid",
    "int": "System.Int32",
    "long": "System.Int64",
    "real": "System.Double",
    "string": "System.String",
    "timespan": "System.TimeSpan",
}

_NAME = re.compile(r"[\w .\-]{1,1024}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table or of a result; `type` is Kusto's name of it."""

    name: str
    type: str


def column_type(text: str) -> str:
    """Kusto's own name of a type that may be written as an alias or as a .NET type.

    Raises:
        KustoError: there is no such type.
    """
    name = text.removeprefix("System.").lower() if text.startswith("System.") else text.lower()
    name = _ALIASES.get(name, name)
    if name not in DUCKDB_TYPES:
        for kusto, net in NET_TYPES.items():
            if net == text:
                return kusto
        raise syntax_error(f"'{text}' is not a column type")
    return name


def check_name(kind: str, name: str) -> str:
    """`name`, if Kusto allows it for an entity.

    Source: dataexplorer-docs, kusto/query/schema-entities/entity-names.md: letters, digits, underscores,
    spaces, dots and dashes, at most 1,024 characters; two underscores at either end are Kusto's own.
    """
    if not _NAME.fullmatch(name) or name.startswith("__") or name.endswith("__"):
        raise KustoError(
            f"'{name[:60]}' is not a valid {kind.lower()} name: letters, digits, '_', ' ', '.' and '-' only, "
            "1 to 1024 of them, without '__' at either end",
            code="BadRequest_EntityNameIsNotValid",
            kind="Kusto.Data.Exceptions.EntityNameIsNotValidException",
        )
    return name


def quoted(name: str) -> str:
    """`name` as an identifier in DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as a string in DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def csl_name(name: str) -> str:
    """`name` as KQL has to write it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else "['" + name.replace("'", "\\'") + "']"
