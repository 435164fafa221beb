"""Results as Kusto puts them on the wire: v1 (management, old queries) and v2 (queries).

Source: dataexplorer-docs, kusto/api/rest/response.md and response-v2.md; the client side is azure-kusto-data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from localrunner.adx.columns import NET_TYPES, Column


@dataclass(frozen=True, slots=True)
class Result:
    """A table of results; values are as DuckDB gives them, dynamic ones as JSON text."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Any]]


def result(schema: str, rows: Sequence[Sequence[Any]]) -> Result:
    """A result whose columns are given as `Name:type, Name:type`; a type left out is string."""
    pairs = [part.strip().partition(":") for part in schema.split(",")]
    return Result(tuple(Column(name, kind or "string") for name, _, kind in pairs), rows)


def _datetime(value: Any) -> str:
    text: str = value.isoformat()
    text = text.rstrip("0") if "." in text else text
    return text + "Z"


def timespan_text(value: timedelta) -> str:
    """`[-][d.]hh:mm:ss[.fffffff]`, as .NET writes a TimeSpan."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{value.days}." if value.days else ""
    fraction = f".{value.microseconds:06d}0" if value.microseconds else ""
    return f"{sign}{days}{hours:02d}:{minutes:02d}:{seconds:02d}{fraction}"


def _real(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Any) -> str:
    text = f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _dynamic(value: str) -> msgspec.Raw | str:
    """JSON text spliced as it is: numbers of any size and repeated keys reach the client as they were stored."""
    raw = value.encode()
    try:
        _ANY.decode(raw)
    except msgspec.DecodeError:
        # DuckDB's parser, which a query may call, takes more than JSON.
        return value
    return msgspec.Raw(raw)


_ANY = msgspec.json.Decoder(msgspec.Raw)

_WIRE: dict[str, Callable[[Any], Any]] = {
    "datetime": _datetime,
    "decimal": _decimal,
    "dynamic": _dynamic,
    "guid": str,
    "real": _real,
    "timespan": timespan_text,
}


def _rows(table: Result) -> list[list[Any]]:
    rows = [list(row) for row in table.rows]
    for index, column in enumerate(table.columns):
        wire = _WIRE.get(column.type)
        if wire is None:
            continue
        for row in rows:
            if row[index] is not None:
                row[index] = wire(row[index])
    return rows


def v1(table: Result) -> bytes:
    """`{"Tables": [...]}` with one table."""
    columns = [
        {"ColumnName": c.name, "DataType": NET_TYPES[c.type].rpartition(".")[2], "ColumnType": c.type}
        for c in table.columns
    ]
    return msgspec.json.encode({"Tables": [{"TableName": "Table_0", "Columns": columns, "Rows": _rows(table)}]})


_VISUALIZATION = json.dumps(
    {
        "Visualization": None,
        "Title": None,
        "XColumn": None,
        "Series": None,
        "YColumns": None,
        "XTitle": None,
        "YTitle": None,
        "XAxis": None,
        "YAxis": None,
        "Legend": None,
        "YSplit": None,
        "Accumulate": False,
        "IsQuerySorted": False,
        "Kind": None,
        "Ymin": "NaN",
        "Ymax": "NaN",
    }
)


def _frame(number: int, kind: str, name: str, columns: Sequence[Column], rows: list[list[Any]]) -> dict[str, Any]:
    return {
        "FrameType": "DataTable",
        "TableId": number,
        "TableKind": kind,
        "TableName": name,
        "Columns": [{"ColumnName": column.name, "ColumnType": column.type} for column in columns],
        "Rows": rows,
    }


_PROPERTIES = result("TableId:int,Key,Value:dynamic", ()).columns
_COMPLETION = result(
    "Timestamp:datetime,ClientRequestId,ActivityId:guid,SubActivityId:guid,ParentActivityId:guid,Level:int,"
    "LevelName,StatusCode:int,StatusCodeName,EventType:int,EventTypeName,Payload",
    (),
).columns


def v2(table: Result, client_request_id: str, activity_id: str) -> bytes:
    """The frames of one query, in the order in which the service sends them."""
    now = _datetime(datetime.now(UTC).replace(tzinfo=None))
    done = json.dumps({"Count": 1, "Text": "Query completed successfully"})
    completion = [now, client_request_id, activity_id, activity_id, activity_id, 4, "Info", 0, "S_OK (0)"]
    completion += [4, "QueryInfo", done]
    return msgspec.json.encode(
        [
            {
                "FrameType": "DataSetHeader",
                "IsProgressive": False,
                "Version": "v2.0",
                "IsFragmented": False,
                "ErrorReportingPlacement": "InData",
            },
            _frame(
                0, "QueryProperties", "@ExtendedProperties", _PROPERTIES, [[1, "Visualization", _VISUALIZATION]]
            ),
            _frame(1, "PrimaryResult", "PrimaryResult", table.columns, _rows(table)),
            _frame(2, "QueryCompletionInformation", "QueryCompletionInformation", _COMPLETION, [completion]),
            {"FrameType": "DataSetCompletion", "HasErrors": False, "Cancelled": False},
        ]
    )
