"""Policies of tables and databases: when blobs are sealed into a batch, and whether rows may be streamed.

Source: dataexplorer-docs, kusto/management/batching-policy.md (defaults and limits),
streaming-ingestion-policy.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from localrunner.adx.catalog import Database

BATCHING = "ingestionbatching"
STREAMING = "streamingingestion"
# The word in commands -> the policy's name in their results.
NAMES = {BATCHING: "IngestionBatchingPolicy", STREAMING: "StreamingIngestionPolicy"}

_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(\.\d{1,7})?")
_TIME_RANGE_S = (10.0, 1800.0)
_ITEMS_RANGE = (1, 25_000)
_SIZE_RANGE_MB = (100, 4096)


@dataclass(frozen=True, slots=True)
class BatchingPolicy:
    """A batch is sealed at the first of these limits; the time is Kusto's, before it is scaled."""

    time_s: float = 300.0
    items: int = 500
    size_mb: int = 1024


def parse(text: str, before: str | None) -> BatchingPolicy:
    """The policy that `text` sets; what it leaves out is as in `before`, or else Kusto's default.

    Raises:
        ValueError: the text is not such a policy, or a value is outside its limits.
    """
    given = _object(text)
    values = {**(_object(before) if before else {}), **given}
    known = {"MaximumBatchingTimeSpan", "MaximumNumberOfItems", "MaximumRawDataSizeMB"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not a property of it; known are {', '.join(sorted(known))}")
    default = BatchingPolicy()
    return BatchingPolicy(
        time_s=_within("MaximumBatchingTimeSpan", _seconds(values, default.time_s), _TIME_RANGE_S),
        items=int(_within("MaximumNumberOfItems", _number(values, "MaximumNumberOfItems", 500), _ITEMS_RANGE)),
        size_mb=int(
            _within("MaximumRawDataSizeMB", _number(values, "MaximumRawDataSizeMB", 1024), _SIZE_RANGE_MB)
        ),
    )


def as_json(policy: BatchingPolicy) -> str:
    """The policy as Kusto shows and stores it."""
    minutes, seconds = divmod(policy.time_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    span = f"{hours:02d}:{minutes:02d}:{seconds:02.0f}"
    return json.dumps(
        {
            "MaximumBatchingTimeSpan": span,
            "MaximumNumberOfItems": policy.items,
            "MaximumRawDataSizeMB": policy.size_mb,
        }
    )


def effective(database: Database | None, table: str) -> BatchingPolicy:
    """The table's policy, or else its database's, or else Kusto's default."""
    if database is None:
        return BatchingPolicy()
    there = database.tables.get(table)
    body = (there.policies.get(BATCHING) if there else None) or database.policies.get(BATCHING)
    return parse(body, None) if body else BatchingPolicy()


def normal(kind: str, text: str, before: str | None) -> str:
    """The policy that `text` sets, as Kusto shows and stores it; what it leaves out is as in `before`.

    Raises:
        ValueError: the text is not such a policy, or a value is outside its limits.
    """
    if kind == BATCHING:
        return as_json(parse(text, before))
    if text.lower() in ("enable", "disable"):
        text = json.dumps({"IsEnabled": text.lower() == "enable"})
    given = _object(text)
    unknown = sorted(set(given) - {"IsEnabled", "HintAllocatedRate"})
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not a property of it; known are HintAllocatedRate, IsEnabled")
    values = {**(_object(before) if before else {}), **given}
    enabled, rate = values.get("IsEnabled"), values.get("HintAllocatedRate")
    if not isinstance(enabled, bool):
        raise ValueError("IsEnabled is neither true nor false, and has no default")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise ValueError("HintAllocatedRate is not a number")
    return json.dumps({"IsEnabled": enabled, "HintAllocatedRate": rate})


def may_stream(database: Database, table: str) -> bool:
    """Whether rows may be streamed into the table: its own policy says, or else its database's.

    Source: streaming-ingestion-policy.md, "the table level setting takes precedence".
    """
    own = database.tables[table].policies.get(STREAMING)
    body = own or database.policies.get(STREAMING)
    return bool(body and _object(body)["IsEnabled"])


def _object(text: str) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _seconds(values: Mapping[str, object], default_s: float) -> float:
    text = values.get("MaximumBatchingTimeSpan")
    if text is None:
        return default_s
    found = _SPAN.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise ValueError("MaximumBatchingTimeSpan is not a time span such as '00:00:30'")
    days, hours, minutes, seconds, fraction = found.groups()
    return int(days or 0) * 86_400.0 + int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(fraction or 0)


def _number(values: Mapping[str, object], name: str, default: int) -> int:
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not a whole number")
    return value


def _within(name: str, value: float, limits: tuple[float, float]) -> float:
    if not limits[0] <= value <= limits[1]:
        raise ValueError(f"{name} is outside {limits[0]:g} to {limits[1]:g}")
    return value
