"""`multijson`: objects one after another, or arrays of them, over any number of lines, read piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from localrunner.adx.errors import IngestionError
from localrunner.adx.records import RECORD_MAX_BYTES, ROWS_AT_ONCE, Extract, Tokens, clean

_PIECE_BYTES = 1024 * 1024
_SPACE = b" \t\r\n"
# Brackets outside strings. A string that the piece cuts off counts as one, so that no bracket in it is seen.
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_ANY = msgspec.json.Decoder(msgspec.Raw)
_BLANK = re.compile(rb"[ \t\r\n]*")


def rows(stream: BinaryIO, extract: Extract) -> Iterator[list[Tokens]]:
    """Rows of a `multijson` blob. Any fault refuses the whole blob.

    Source: data-explorer/ingest-json-formats.md and ingest-invalid-data.md (BadRequest_InvalidBlob).
    """
    made: list[Tokens] = []
    for value in _objects(_Window(stream)):
        try:
            # Line breaks between tokens would end a line of the rows file; inside strings there are none.
            made.append(extract(clean(value).replace(b"\n", b" ").replace(b"\r", b" ")))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _invalid(type(error).__name__) from None
        if len(made) >= ROWS_AT_ONCE:
            yield made
            made = []
    yield made


def _invalid(why: str) -> IngestionError:
    return IngestionError("BadRequest_InvalidBlob", f"The blob is not valid multijson: {why}.")


class _Window:
    """The part of a stream that is being looked at; what was taken is gone."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.data = b""
        self.at = 0
        self.ended = False
        # Whether every value so far was a line of its own, which is quickly seen.
        self._by_lines = True
        self.grow()
        self.data = self.data.removeprefix(b"\xef\xbb\xbf")

    def grow(self) -> None:
        """More of the stream is in `data`: at least as much as is left there, so that a long value is read in
        steps that double.
        """
        left = self.data[self.at :]
        if len(left) > RECORD_MAX_BYTES:
            raise IngestionError("Stream_InputStreamTooLarge", "A record is larger than 64 MB.")
        more = self._stream.read(max(_PIECE_BYTES, len(left)))
        self.ended = not more
        self.data, self.at = left + more, 0

    def mark(self) -> bytes:
        """The next character that is no white space, still to be taken; nothing at the end."""
        while True:
            found = _BLANK.match(self.data, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.data) or self.ended:
                return self.data[self.at : self.at + 1]
            self.grow()

    def value(self) -> bytes:
        """The object or array that begins here is taken."""
        line = self._line() if self._by_lines else None
        if line is not None:
            self.at += len(line)
            return line
        while True:
            stop = self._stop()
            if stop is not None or self.ended:
                break
            self.grow()
        start, self.at = self.at, len(self.data) if stop is None else stop
        return self.data[start : self.at]

    def _line(self) -> bytes | None:
        """The rest of the line, if that is a whole object: then nothing that follows can belong to it."""
        end = self.data.find(b"\n", self.at)
        if end >= 0:
            line = self.data[self.at : end].rstrip()
            try:
                _ANY.decode(line)
            except (msgspec.MsgspecError, RecursionError):
                self._by_lines = False
            else:
                return line
        return None

    def _stop(self) -> int | None:
        """Where the value's last bracket is behind us, or None if it is not in sight."""
        depth = 0
        for found in _STRUCTURE.finditer(self.data, self.at):
            mark = found[0]
            if mark in (b"{", b"["):
                depth += 1
            elif mark in (b"}", b"]"):
                depth -= 1
                if depth <= 0:
                    return found.end()
        return None


def _objects(window: _Window) -> Iterator[bytes]:
    """The text of every object, still unchecked."""
    while mark := window.mark():
        if mark == b"{":
            yield window.value()
        elif mark == b"[":
            window.at += 1
            yield from _elements(window)
        else:
            raise _invalid("there is neither an object nor an array")


def _elements(window: _Window) -> Iterator[bytes]:
    """The objects of an array whose opening bracket was taken."""
    if window.mark() == b"]":
        window.at += 1
        return
    while True:
        if window.mark() != b"{":
            raise _invalid("an element of the array is no object")
        yield window.value()
        mark = window.mark()
        window.at += 1
        if mark == b"]":
            return
        if mark != b",":
            raise _invalid("the array is not closed")
