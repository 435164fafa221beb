"""Client request properties: options without effect here, options that are carried out, and the rest, refused.

Source: dataexplorer-docs, kusto/api/rest/request-properties.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from duckdb_kql.params import as_datetime, parse_timespan

from localrunner.adx.errors import KustoError

# Source: kusto/concepts/querylimits.md, "Limit execution timeout": 4 minutes for queries.
_DEFAULT_TIMEOUT_S = 240.0

# A single node that caches nothing and truncates nothing does what these ask for, whatever their value.
_WITHOUT_EFFECT = frozenset(
    {
        "client_max_redirect_count",
        "client_results_reader_allow_varying_row_widths",
        "deferpartialqueryfailures",
        "norequesttimeout",
        "notruncation",
        "query_log_query_parameters",
        "request_app_name",
        "request_description",
        "request_user",
        "results_v2_newlines_between_frames",
        "x-ms-app",
        "x-ms-user",
    }
)
_ONLY = {
    "query_language": ("kql", "csl"),
    "queryconsistency": ("strongconsistency", "weakconsistency"),
    "results_progressive_enabled": ("false",),
    "results_v2_fragment_primary_tables": ("false",),
    "best_effort": ("false",),
    "request_readonly": ("false",),
}
_CARRIED_OUT = frozenset({"servertimeout", "query_now"})

_LITERAL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


def check(options: Mapping[str, Any]) -> None:
    """Every option is known, with a value that this double can honour.

    Raises:
        KustoError: it names the first that is not.
    """
    for name, value in options.items():
        key = name.lower()
        if key in _WITHOUT_EFFECT or key in _CARRIED_OUT:
            continue
        if key not in _ONLY:
            raise KustoError(f"request option '{name}' is not known to this double")
        if str(value).lower() not in _ONLY[key]:
            raise KustoError(f"request option '{name}' can only be {' or '.join(_ONLY[key])} in this double")


def timeout_s(options: Mapping[str, Any]) -> float:
    """How long the query may take."""
    given = {name.lower(): value for name, value in options.items()}
    if "servertimeout" not in given:
        return _DEFAULT_TIMEOUT_S
    value = given["servertimeout"]
    span = _span(value)
    if span is None:
        raise KustoError("request option 'servertimeout' is not a time span")
    return span.total_seconds()


def _span(value: Any) -> timedelta | None:
    if not isinstance(value, str):
        return None
    # Python's timedelta writes "0:01:00" and "1 day, 0:00:00".
    found = re.fullmatch(r"(?:(\d+) days?, )?(?:(\d+)\.)?(\d+):(\d\d):(\d\d)(\.\d+)?", value)
    if found is None:
        parsed: timedelta | None = parse_timespan(value)
        return parsed
    days, dotted, hours, minutes, seconds, fraction = found.groups()
    return timedelta(
        days=int(days or dotted or 0),
        hours=int(hours),
        minutes=int(minutes),
        seconds=int(seconds) + float(fraction or 0),
    )


def now(options: Mapping[str, Any]) -> datetime | None:
    """The instant that the query takes for now, where the client fixes one."""
    value = {name.lower(): option for name, option in options.items()}.get("query_now")
    if value is None:
        return None
    moment: datetime = as_datetime(_unwrapped(str(value)), "query_now")
    return moment


def parameter(value: Any, kind: str) -> Any:
    """A query parameter's value for duckdb-kql, which wants Python's types; clients send KQL literals as text.

    Source: kusto/query/query-parameters-statement.md, "Specify query parameters in a client application".
    """
    if not isinstance(value, str) or kind == "string":
        return value
    text = _unwrapped(value)
    if text == "null":
        return None
    try:
        match kind:
            case "bool":
                return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
            case "int" | "long":
                return int(text)
            case "real":
                return float(text)
    except (KeyError, ValueError):
        raise KustoError(f"A query parameter of type {kind} has a value of another type") from None
    return text


def _unwrapped(text: str) -> str:
    """`datetime(2020-01-01)` as `2020-01-01`; other text as it is."""
    found = _LITERAL.fullmatch(text)
    return found[2].strip() if found else text.strip()
