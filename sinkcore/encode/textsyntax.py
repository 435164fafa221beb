"""How rows of text are written: what a record may hold, where its rows end, how many columns they have.

The rules are stricter than most readers, because ADX refuses a whole blob for one row that it cannot read, and
because a quote that one reader ignores and another one minds can swallow the rows behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sinkcore.encode.jsontext import invalid_utf8_at
from sinkcore.encode.rows import Fault

DELIMITERS = {"csv": b",", "tsv": b"\t", "scsv": b";", "sohsv": b"\x01", "psv": b"|", "tsve": b"\t"}

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_LINE_BREAK = re.compile(rb"\r?\n")
_MARK = "\ufeff".encode()
_MARK_ALONE = "nothing but a byte order mark"  # which readers take away, and the row with it


@dataclass(frozen=True, slots=True)
class Syntax:
    """One way to write rows. `row` matches one row without its line break.

    `columns` counts the columns of a row. `special` are the bytes without which a record of one line is a row as
    it stands. `at_fault` says what is wrong at the byte where no row goes on.
    """

    delimiter: bytes
    row: re.Pattern[bytes]
    columns: Callable[[bytes], int]
    special: tuple[bytes, ...]
    at_fault: Callable[[bytes, int], str]

    def all_rows(self, values: Sequence[bytes]) -> bool:
        """Whether every one of `values`, none of which is empty, is one row."""
        joined = b"\n".join(values)
        if not joined.isascii() and (_MARK in joined or invalid_utf8_at(joined) is not None):
            return False
        if joined.count(b"\n") == len(values) - 1 and not any(each in joined for each in self.special):
            return True
        return all(map(self.row.fullmatch, values))

    def rows_in(self, value: bytes) -> list[bytes] | Fault:
        """The rows of a record, or why it is refused whole. A line break at its end is not one between rows."""
        fault = utf8_fault(value)
        if fault is not None:
            return fault
        rows: list[bytes] = []
        start = 0
        while start < len(value):
            match = self.row.match(value, start)
            end = start if match is None else match.end()
            line_break = _LINE_BREAK.match(value, end)
            if line_break is None and end < len(value):
                return Fault("validation_failed", f"{self.at_fault(value, end)} at byte {end}")
            if end == start:
                return Fault("validation_failed", f"an empty line at byte {start}")
            if value[start:end] == _MARK:
                return Fault("validation_failed", f"{_MARK_ALONE} at byte {start}")
            rows.append(value[start:end])
            start = len(value) if line_break is None else line_break.end()
        return rows


def utf8_fault(value: bytes) -> Fault | None:
    """What keeps `value` from being text."""
    if value.isascii() or (at := invalid_utf8_at(value)) is None:
        return None
    return Fault("validation_failed", f"invalid UTF-8 at byte {at}")


def lines_in(value: bytes) -> list[bytes] | Fault:
    """The lines of a record of `txt`. Source: ADX skips empty ones ("Data formats supported for ingestion")."""
    fault = utf8_fault(value)
    if fault is not None:
        return fault
    lines = [line.removesuffix(b"\r") for line in value.split(b"\n")]
    if _MARK in lines:
        return Fault("validation_failed", f"a line of {_MARK_ALONE}")
    return [line for line in lines if line] or Fault("validation_failed", "nothing but line breaks")


def _quoted(delimiter: bytes) -> Syntax:
    """RFC 4180: a field is quoted as a whole, or holds no quote; only a quoted one may hold line breaks."""
    end = re.escape(delimiter)
    field = rb'(?:"(?:[^"]|"")*+"|[^"\r\n%b]*+)' % end
    row = re.compile(rb"%b(?:%b%b)*+" % (field, end, field), re.DOTALL)

    def columns(row: bytes) -> int:
        outside = row if b'"' not in row else b"".join(row.split(b'"')[::2])
        return outside.count(delimiter) + 1

    def at_fault(value: bytes, at: int) -> str:
        if value[at : at + 1] == b"\r":
            return "a carriage return outside quotes"
        if value[at : at + 1] == b'"':
            begins_field = at == 0 or value[at - 1 : at] in (delimiter, b"\n")
            return "a quote that is never closed" if begins_field else "a quote inside a field without quotes"
        return "text behind a closing quote"

    return Syntax(delimiter, row, columns, (b'"', b"\r"), at_fault)


def _escaped(delimiter: bytes) -> Syntax:
    """A backslash takes the next byte's meaning away. ADX does not say whether quotes mean something here, so no
    field begins with one."""
    end = re.escape(delimiter)
    field = rb'(?!")(?:[^\\\r\n%b]|\\[^\r\n])*+' % end
    row = re.compile(rb"%b(?:%b%b)*+" % (field, end, field), re.DOTALL)

    def columns(row: bytes) -> int:
        return _ESCAPED.sub(b"", row).count(delimiter) + 1

    def at_fault(value: bytes, at: int) -> str:
        if value[at : at + 1] == b"\\":
            return "a backslash with nothing behind it"
        if value[at : at + 1] == b"\r":
            return "a carriage return"
        return 'a field that begins with a quote; write \\"'

    return Syntax(delimiter, row, columns, (b"\\", b'"', b"\r"), at_fault)


SYNTAXES = {name: (_escaped if name == "tsve" else _quoted)(delimiter) for name, delimiter in DELIMITERS.items()}
