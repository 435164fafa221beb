"""Kafka's coordinates as the last field of a row, without parsing the row."""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from sinkcore.records import columns_of, timestamp_ms_of
from sinkcore.routes import Route

if TYPE_CHECKING:
    import azure.functions as func

_to_json = msgspec.json.encode
_NO_TIME = "1969-12-31T23:59:59.999Z"  # Kafka's -1 as the trigger prints it
_TRIMMED_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,3}))?Z", re.ASCII)
_NO_HEADERS = b',"headers":{}}}\n'
_PIECES = 8


class Splicer:
    """Writes the rows of one route and segment with their metadata."""

    def __init__(self, route: Route, segment_id: str) -> None:
        assert route.metadata is not None
        self._topic = b',%b:{"topic":%b' % (_to_json(route.metadata), _to_json(route.topic))
        self._segment = b',"segment":%b,"key":' % _to_json(segment_id)
        self._keys = _keys_as_text if route.key == "utf8" else _keys_as_base64

    def lines(
        self,
        partitions: Sequence[int],
        offsets: Sequence[int],
        values: Sequence[bytes],
        events: Sequence[func.KafkaEvent],
    ) -> bytes:
        """One line a row, each ending with a line feed. `values` are JSON objects without line breaks.

        The pieces of all rows are laid out in one list and joined once: formatting row by row takes twice as long.
        """
        columns = columns_of(events)
        cut = list(map(bytes.rstrip, [value[:-1] for value in map(bytes.strip, values)]))
        beginnings = {
            partition: b'%b,"partition":%d,"offset":' % (self._topic, partition) for partition in set(partitions)
        }
        pieces = [b"", b"", b"", b',"timestamp":', b"", self._segment, b"", _NO_HEADERS] * len(cut)
        pieces[0::_PIECES] = cut
        pieces[1::_PIECES] = map(beginnings.__getitem__, partitions)
        pieces[2::_PIECES] = _each_to_json(offsets)
        pieces[4::_PIECES] = _each_to_json(_times(list(map(columns.timestamp, events))))
        pieces[6::_PIECES] = _each_to_json(self._keys(list(map(columns.key, events))))
        headers = list(map(columns.headers, events))
        if any(headers):
            pieces[7::_PIECES] = [b',"headers":%b}}\n' % _headers_to_json(of_row or ()) for of_row in headers]
        if b"{" in cut:  # an object without members: nothing to put a comma after
            for row, start in enumerate(cut):
                if start == b"{":
                    pieces[row * _PIECES + 1] = pieces[row * _PIECES + 1][1:]
        return b"".join(pieces)


def _each_to_json(items: Sequence[object]) -> list[bytes]:
    """Every item as JSON. They are written as one array, which is cut at its commas: were one of them inside an
    item there would be too many parts, and each item is written alone."""
    parts = _to_json(items)[1:-1].split(b",")
    return parts if len(parts) == len(items) else list(map(_to_json, items))


def _times(texts: Sequence[str | None]) -> list[str | None]:
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


def _keys_as_text(keys: Sequence[str | None]) -> list[Any]:
    try:
        return [None if key is None else a2b_base64(key).decode() for key in keys]
    except UnicodeDecodeError:
        return list(map(_text_or_base64, keys))


def _keys_as_base64(keys: Sequence[str | None]) -> list[Any]:
    return [None if key is None else {"base64": key} for key in keys]


def _text_or_base64(encoded: str | None) -> str | dict[str, str] | None:
    if encoded is None:
        return None
    try:
        return a2b_base64(encoded).decode()
    except UnicodeDecodeError:
        return {"base64": encoded}


def _headers_to_json(headers: Sequence[dict[str, str | None]]) -> bytes:
    """An object of the headers; a name that occurs more than once has the list of its values, in order."""
    by_name: dict[str, list[Any]] = {}
    for header in headers:
        by_name.setdefault(header["Key"] or "", []).append(_text_or_base64(header["Value"]))
    members = {name: values[0] if len(values) == 1 else values for name, values in by_name.items()}
    try:
        return _to_json(members)
    except UnicodeEncodeError:  # the trigger's JSON can hold half a surrogate pair in a name, which UTF-8 cannot
        return _to_json({name.encode("utf-8", "replace").decode(): value for name, value in members.items()})
