"""Kafka's coordinates as the first columns of a row of text, so that a short row cannot shift them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sinkcore.encode.jsonmetadata import each_to_json
from sinkcore.encode.metadata import Keys, metadata_of
from sinkcore.encode.rows import Rows
from sinkcore.encode.textsyntax import DELIMITERS
from sinkcore.lanes import TEXT_METADATA
from sinkcore.routes import Route

COLUMNS = tuple(TEXT_METADATA)


class Columns:
    """Writes the rows of one route and segment with their metadata."""

    def __init__(self, route: Route, segment_id: str, keys: Keys) -> None:
        delimiter = DELIMITERS[route.stored_format]
        self._delimiter = delimiter
        # A topic's and a segment's letters need no quotes in any format.
        self._topic = b"%b%b" % (route.topic.encode(), delimiter)
        self._segment = b"%b%b%b" % (delimiter, segment_id.encode(), delimiter)
        self._quoted: Callable[[bytes], bytes] = escaped if route.stored_format == "tsve" else quoted
        self._keys = keys

    def rows(self, rows: Rows) -> list[bytes]:
        """One row each, with its line feed. Values are rows without theirs, or empty for metadata alone."""
        metadata = metadata_of(rows.events, self._keys)
        by_partition = {
            partition: b"%b%d%b" % (self._topic, partition, self._delimiter) for partition in set(rows.partitions)
        }
        no_headers = self._quoted(b"{}")
        columns = (
            map(by_partition.__getitem__, rows.partitions),
            each_to_json(rows.offsets),
            [b"" if time is None else self._quoted(time.encode()) for time in metadata.times],
            [self._key(key) for key in metadata.keys],
            [self._quoted(msgspec.json.encode(h)) if h else no_headers for h in metadata.headers],
            [self._delimiter + value if value else value for value in rows.values],
        )
        end, segment = self._delimiter, self._segment
        return [
            b"%b%b%b%b%b%b%b%b%b\n" % (beginning, offset, end, time, segment, key, end, headers, value)
            for beginning, offset, time, key, headers, value in zip(*columns, strict=True)
        ]

    def _key(self, key: object) -> bytes:
        if key is None:
            return b""
        return self._quoted(key.encode() if isinstance(key, str) else msgspec.json.encode(key))


def quoted(text: bytes) -> bytes:
    """`text` as one field between quotes."""
    return b'"%b"' % text.replace(b'"', b'""')


def escaped(text: bytes) -> bytes:
    """`text` as one field of `tsve`: what means something there stands behind a backslash."""
    for byte, name in ((b"\\", b"\\"), (b"\t", b"t"), (b"\n", b"n"), (b"\r", b"r")):
        text = text.replace(byte, b"\\" + name)
    return b"\\" + text if text.startswith(b'"') else text
