"""Kafka's coordinates as the last field of a row, without parsing the row."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from sinkcore.records import timestamp_ms_of
from sinkcore.routes import Route

if TYPE_CHECKING:
    import azure.functions as func

_to_json = msgspec.json.encode
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,3}))?Z", re.ASCII)
_NO_TIME = "1969-12-31T23:59:59.999Z"  # Kafka's -1 as the trigger prints it
_PIECES = 6


class _Once(dict[str | None, bytes]):
    """Remembers what `make` returned: keys and timestamps repeat. Lives as long as one batch."""

    def __init__(self, make: Callable[[str | None], bytes]) -> None:
        self._make = make

    def __missing__(self, text: str | None) -> bytes:
        made = self[text] = self._make(text)
        return made


class Splicer:
    """Writes the rows of one route and segment with their metadata."""

    def __init__(self, route: Route, segment_id: str) -> None:
        assert route.metadata is not None
        self._topic = b"%b:{" % _to_json(route.metadata) + b'"topic":%b' % _to_json(route.topic)
        segment = b',"segment":%b,"key":' % _to_json(segment_id)
        self._times = _Once(lambda text: b',"timestamp":%b%b' % (_time(text), segment))
        self._keys = _Once(_key_as_text if route.key == "utf8" else _key_as_base64)

    def lines(
        self, partition: int, offsets: Sequence[int], values: Sequence[bytes], events: Sequence[func.KafkaEvent]
    ) -> bytes:
        """One line a row, each ending with a line feed. `values` are JSON objects without line breaks.

        The pieces of all rows are laid out in one list and joined once: a formatted row each takes twice as long.
        """
        beginning = b',%b,"partition":%d,"offset":' % (self._topic, partition)
        pieces = [b"", beginning, b"", b"", b"", b',"headers":{}}}\n'] * len(values)
        pieces[0::_PIECES] = [value[:-1] for value in map(bytes.strip, values)]
        pieces[2::_PIECES] = [b"%d" % offset for offset in offsets]
        pieces[3::_PIECES] = map(self._times.__getitem__, [event.timestamp for event in events])
        pieces[4::_PIECES] = map(self._keys.__getitem__, [event.key for event in events])
        headers = [event.headers for event in events]
        if any(headers):
            pieces[5::_PIECES] = map(_headers, headers)
        for row, value in enumerate(values):
            if b'"' not in value:  # only an object without members has no name, and so no quote
                pieces[row * _PIECES + 1] = beginning[1:]
        return b"".join(pieces)


def _time(text: str | None) -> bytes:
    """Kafka's timestamp in quotes, in milliseconds; `null` where there was none.

    Source: the trigger trims trailing zeros of the fraction, all of them and the point if it can.
    """
    if text is None or text == _NO_TIME:
        return b"null"
    if (match := _TIME.fullmatch(text)) is not None:
        return f'"{match[1]}.{match[2] or "":0<3}Z"'.encode()
    moment = datetime.fromtimestamp(timestamp_ms_of(text) / 1000, UTC)
    return f'"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"'.encode()


def _key_as_text(key: str | None) -> bytes:
    return b"null" if key is None else _text_or_base64(key)


def _key_as_base64(key: str | None) -> bytes:
    return b"null" if key is None else _base64(key)


def _text_or_base64(encoded: str) -> bytes:
    try:
        return _to_json(binascii.a2b_base64(encoded).decode())
    except UnicodeDecodeError:
        return _base64(encoded)


def _base64(encoded: str) -> bytes:
    return b'{"base64":%b}' % _to_json(encoded)


def _headers(headers: Sequence[dict[str, str | None]] | None) -> bytes:
    """The end of a row with these headers; a name that occurs more than once has the list of its values."""
    by_name: dict[str, list[bytes]] = {}
    for header in headers or ():
        value = header["Value"]
        by_name.setdefault(header["Key"] or "", []).append(b"null" if value is None else _text_or_base64(value))
    members = [
        b"%b:%b" % (_name(name), values[0] if len(values) == 1 else b"[%b]" % b",".join(values))
        for name, values in by_name.items()
    ]
    return b',"headers":{%b}}}\n' % b",".join(members)


def _name(name: str) -> bytes:
    try:
        return _to_json(name)
    except UnicodeEncodeError:  # the trigger's JSON can hold half a surrogate pair, which UTF-8 cannot
        return _to_json(name.encode("utf-8", "replace").decode())
