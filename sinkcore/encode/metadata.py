"""What Kafka knows of a record beside its value, as the columns from which every format writes its metadata."""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sinkcore.records import columns_of, timestamp_ms_of, utf8_text

if TYPE_CHECKING:
    import azure.functions as func

_NO_TIME = "1969-12-31T23:59:59.999Z"  # Kafka's -1 as the trigger prints it
_TRIMMED_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,3}))?Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Columns of equal length. A time is ISO text in milliseconds, None where Kafka had none; headers are by name.

    A key or header value is text, `{"base64": ...}` where it is not UTF-8, or None; a key that was decoded is what
    it was decoded to. A header that occurs more than once has the list of its values.
    """

    times: list[str | None]
    keys: list[Any]
    headers: list[dict[str, Any]]


Keys = Callable[[Sequence[str | None]], list[Any]]
"""Base64 keys as what stands for them in metadata: text, an object, null."""


def metadata_of(events: Sequence[func.KafkaEvent], keys: Keys) -> Metadata:
    """The metadata of the records that `events` carry."""
    columns = columns_of(events)
    return Metadata(
        times_of(list(map(columns.timestamp, events))),
        keys(list(map(columns.key, events))),
        [_headers_of(headers) if headers else {} for headers in map(columns.headers, events)],
    )


def keys_as_text(keys: Sequence[str | None]) -> list[Any]:
    """See Keys: UTF-8 text, an object with base64 where it is not."""
    try:
        return [None if key is None else a2b_base64(key).decode() for key in keys]
    except UnicodeDecodeError:
        return list(map(_text_or_base64, keys))


def keys_as_base64(keys: Sequence[str | None]) -> list[Any]:
    """See Keys: an object with base64."""
    return [None if key is None else {"base64": key} for key in keys]


def times_of(texts: Sequence[str | None]) -> list[str | None]:
    """The trigger's timestamps in milliseconds; None where Kafka had none."""
    times = [text if text is not None and len(text) == len(_NO_TIME) else _full_time(text) for text in texts]
    return [None if time == _NO_TIME else time for time in times] if _NO_TIME in times else times


def _full_time(text: str | None) -> str | None:
    """Source: the trigger trims trailing zeros of the fraction, all of them and the point if it can."""
    if text is None:
        return None
    if (match := _TRIMMED_TIME.fullmatch(text)) is not None:
        return f"{match[1]}.{match[2] or '':0<3}Z"
    moment = datetime.fromtimestamp(timestamp_ms_of(text) / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _text_or_base64(encoded: str | None) -> str | dict[str, str] | None:
    if encoded is None:
        return None
    try:
        return a2b_base64(encoded).decode()
    except UnicodeDecodeError:
        return {"base64": encoded}


def _headers_of(headers: Sequence[dict[str, str | None]]) -> dict[str, Any]:
    """The headers by name; one that occurs more than once has the list of its values, in order."""
    by_name: dict[str, list[Any]] = {}
    for header in headers:
        by_name.setdefault(utf8_text(header["Key"]), []).append(_text_or_base64(header["Value"]))
    return {name: values[0] if len(values) == 1 else values for name, values in by_name.items()}
