"""The text formats whose fields go by place: csv and its relatives, lines, and whole texts.

Source: dataexplorer-docs, kusto/ingestion-supported-formats.md. What it leaves open is decided in
docs/adx-double.md ("Formats").
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from localrunner.adx.errors import IngestionError
from localrunner.adx.mapping import Source
from localrunner.adx.records import RECORD_MAX_BYTES, ROWS_AT_ONCE, Tokens, clean

DELIMITERS = {"csv": ",", "tsv": "\t", "scsv": ";", "psv": "|", "sohsv": "\x01"}
FORMATS = (*DELIMITERS, "tsve", "txt", "raw")

_ANY = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.Encoder().encode
_TSVE_FIELD = re.compile(r"((?:[^\t\\]|\\.)*)(\t|\Z)", re.DOTALL)
_TSVE_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TSVE_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "0": "\0"}
csv.field_size_limit(RECORD_MAX_BYTES)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a text is read: its format, whether the first record goes, and whether lines must be of one length."""

    format: str
    skip_first: bool = False
    even: bool = True


def rows(
    stream: BinaryIO, shape: Shape, sources: Sequence[Source], dynamic: Sequence[bool]
) -> Iterator[list[Tokens]]:
    """Rows of a text, each field a JSON string; a dynamic one is its own JSON where it is valid.

    Source: data-explorer/ingest-invalid-data.md: lines with different numbers of fields refuse the blob.
    """
    ordinals = [-1 if source.ordinal is None else source.ordinal for source in sources]
    width: int | None = None
    made: list[Tokens] = []
    for number, (line, fields) in enumerate(_fields(stream, shape.format)):
        width = len(fields) if width is None else width
        if len(fields) != width and shape.even:
            raise IngestionError(
                "Stream_WrongNumberOfFields",
                f"Line {line} has {len(fields)} fields where the first one has {width}.",
            )
        if shape.skip_first and number == 0:
            continue
        made.append([
            _token(fields[place], is_dynamic=bag) if 0 <= place < len(fields) else b""
            for place, bag in zip(ordinals, dynamic, strict=True)
        ])  # fmt: skip
        if len(made) >= ROWS_AT_ONCE:
            yield made
            made = []
    yield made


def _fields(stream: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line and the fields of each record."""
    # Line breaks inside quotes are data, so that nothing may change them.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    if name in DELIMITERS:
        yield from _quoted(text, DELIMITERS[name])
    elif name == "raw":
        whole = text.read(RECORD_MAX_BYTES + 1)
        if len(whole) > RECORD_MAX_BYTES:
            raise IngestionError("Stream_InputStreamTooLarge", "The text is larger than 64 MB.")
        if whole:
            yield 1, [whole]
    else:
        for number, line in enumerate(_lines(text), 1):
            if line:
                yield number, [line] if name == "txt" else _unescaped(line)


def _quoted(text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records by RFC 4180, with another delimiter perhaps."""
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        code = "Stream_ClosingQuoteMissing" if "unexpected end" in str(error) else "BadRequest_InvalidBlob"
        raise IngestionError(code, f"Line {reader.line_num} is not valid CSV.") from None


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(RECORD_MAX_BYTES + 1):
        if len(line) > RECORD_MAX_BYTES:
            raise IngestionError("Stream_InputStreamTooLarge", "A line is larger than 64 MB.")
        yield line.removesuffix("\n").removesuffix("\r")


def _unescaped(line: str) -> list[str]:
    """The fields of a `tsve` line: split at tabs, with what a backslash stands before taken for itself."""
    fields: list[str] = []
    at = 0
    while True:
        found = _TSVE_FIELD.match(line, at)
        # A lone backslash at the end escapes nothing.
        field = found[1] if found else line[at:]
        fields.append(_TSVE_ESCAPE.sub(lambda m: _TSVE_ESCAPED.get(m[1], m[1]), field))
        if not found or not found[2]:
            return fields
        at = found.end()


def _token(field: str, *, is_dynamic: bool) -> bytes:
    if not field:
        return b""
    if is_dynamic:
        raw = field.encode()
        try:
            _ANY.decode(raw)
        except (msgspec.MsgspecError, RecursionError):
            return _encode(field)
        return clean(raw.strip().replace(b"\n", b" ").replace(b"\r", b" "))
    return _encode(field)
