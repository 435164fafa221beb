"""Rows become bodies: as gzip, one member each, because ADX says nothing about files of several, or as Avro."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from isal import isal_zlib

LEVEL = 2  # as quick as levels 0 and 1, and smaller; level 3 costs 70 % more for 4 %
_GZIP = 31  # a gzip container around a 32 KiB window


@dataclass(frozen=True, slots=True)
class Body:
    """One blob to be: `rows` rows in one gzip member or one Avro file, `raw_size_bytes` long when unpacked."""

    data: bytes
    raw_size_bytes: int
    rows: int


class Container(Protocol):
    """What a body's rows are compressed into; it has `header_bytes` before the first of them, unpacked."""

    header_bytes: int

    def write(self, block: bytes, rows: int) -> None:
        """Take the bytes of some rows, at least one."""

    def end(self) -> bytes:
        """All of it; nothing is written afterwards."""


class Gzip:
    """A Container of lines."""

    header_bytes = 0

    def __init__(self) -> None:
        self._compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._parts: list[bytes] = []

    def write(self, block: bytes, _rows: int) -> None:
        """See Container."""
        self._parts.append(self._compressor.compress(block))

    def end(self) -> bytes:
        """See Container."""
        return b"".join([*self._parts, self._compressor.flush()])


class BodyWriter:
    """Compresses rows as they come and begins another body where one would unpack to more than `max_bytes`.

    Only a single row larger than that makes a larger body, alone.
    """

    def __init__(self, max_bytes: int, begin: Callable[[], Container] = Gzip) -> None:
        self._max_bytes = max_bytes
        self._begin = begin
        self._bodies: list[Body] = []
        self._rows = 0
        self._container = begin()
        self._raw_size_bytes = self._container.header_bytes

    def add(self, lines: bytes, rows: int) -> None:
        """Take `rows` lines; each ends with a line feed and holds no other line break."""
        if self._raw_size_bytes + len(lines) <= self._max_bytes:
            self._write(lines, rows)
        else:
            self.add_rows(lines.splitlines(keepends=True))

    def add_rows(self, rows: Sequence[bytes]) -> None:
        """Take these rows, one or more, whatever they hold."""
        block = b"".join(rows)
        if self._raw_size_bytes + len(block) > self._max_bytes:
            if len(rows) > 1:
                self.add_rows(rows[: len(rows) // 2])
                self.add_rows(rows[len(rows) // 2 :])
                return
            if self._rows:
                self._end()
        self._write(block, len(rows))

    def finish(self) -> list[Body]:
        """Everything taken, in order; no body is empty."""
        if self._rows:
            self._end()
        return self._bodies

    def _write(self, block: bytes, rows: int) -> None:
        self._container.write(block, rows)
        self._raw_size_bytes += len(block)
        self._rows += rows

    def _end(self) -> None:
        self._bodies.append(Body(self._container.end(), self._raw_size_bytes, self._rows))
        self._container = self._begin()
        self._raw_size_bytes, self._rows = self._container.header_bytes, 0
