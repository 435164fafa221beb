"""Lines become gzip bodies: one member each, because ADX says nothing about files of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isal import isal_zlib

LEVEL = 2  # as quick as levels 0 and 1, and smaller; level 3 costs 70 % more for 4 %
_GZIP = 31  # a gzip container around a 32 KiB window


@dataclass(frozen=True, slots=True)
class Body:
    """One blob to be: `rows` rows in one gzip member or one Avro file, `raw_size_bytes` long when unpacked."""

    data: bytes
    raw_size_bytes: int
    rows: int


class BodyWriter:
    """Compresses lines as they come and begins another body where one would unpack to more than `max_bytes`.

    Only a single row larger than that makes a larger body, alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bodies: list[Body] = []
        self._begin()

    def add(self, lines: bytes, rows: int) -> None:
        """Take `rows` lines; each ends with a line feed and holds no other line break."""
        if self._raw_size_bytes + len(lines) <= self._max_bytes:
            self._write(lines, rows)
        else:
            self._write_each(lines.splitlines(keepends=True))

    def add_rows(self, rows: Sequence[bytes]) -> None:
        """Take these rows; each ends with a line feed and may hold others."""
        lines = b"".join(rows)
        if self._raw_size_bytes + len(lines) <= self._max_bytes:
            self._write(lines, len(rows))
        else:
            self._write_each(rows)

    def finish(self) -> list[Body]:
        """Everything taken, in order; no body is empty."""
        if self._rows:
            self._end()
        return self._bodies

    def _write_each(self, rows: Sequence[bytes]) -> None:
        for row in rows:
            if self._rows and self._raw_size_bytes + len(row) > self._max_bytes:
                self._end()
            self._write(row, 1)

    def _begin(self) -> None:
        self._compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._parts: list[bytes] = []
        self._raw_size_bytes = 0
        self._rows = 0

    def _write(self, lines: bytes, rows: int) -> None:
        self._parts.append(self._compressor.compress(lines))
        self._raw_size_bytes += len(lines)
        self._rows += rows

    def _end(self) -> None:
        self._parts.append(self._compressor.flush())
        self._bodies.append(Body(b"".join(self._parts), self._raw_size_bytes, self._rows))
        self._begin()
