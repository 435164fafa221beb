"""Decoded blobs to rows of tokens: for each record one JSON token for each mapped column, as it was written.

Tokens go through a file between two control characters that valid JSON cannot hold, so nothing is escaped and
nothing is parsed twice: DuckDB reads the file as delimited text and converts whole columns at once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import msgspec

from localrunner.adx.convert import VALUE_MAX_BYTES
from localrunner.adx.errors import IngestionError
from localrunner.adx.mapping import Path, Source

DELIMITER = b"\x1f"
_CHUNK_BYTES = 1024 * 1024
# Source: kusto/query/scalar-data-types/string.md, "the allowed data limit of 64MB".
_RECORD_MAX_BYTES = 64 * 1024 * 1024
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\[^u]"
)

Tokens = Sequence[bytes]
Extract = Callable[[bytes], Tokens]

_ANY = msgspec.json.Decoder(msgspec.Raw)
csv.field_size_limit(_RECORD_MAX_BYTES)


def extractor(paths: Sequence[Path | None]) -> Extract:
    """A function from a JSON object to the tokens at `paths`, empty where there is nothing or no path.

    The function raises msgspec.DecodeError if the text is not one JSON object, or not RFC 8259.
    """
    names = list(dict.fromkeys(str(path[0]) for path in paths if path and isinstance(path[0], str)))
    struct = msgspec.defstruct(
        "Fields",
        [(f"f{i}", msgspec.Raw, msgspec.field(default=msgspec.Raw(b""), name=n)) for i, n in enumerate(names)],
    )
    decode = msgspec.json.Decoder(struct).decode
    as_tuple = msgspec.structs.astuple
    if names and list(paths) == [(name,) for name in names]:
        return lambda record: as_tuple(decode(record))
    places = {name: index for index, name in enumerate(names)}
    steps = [
        (places.get(str(path[0]), -1) if path else -1, _inner((path or ())[1:]), path == ()) for path in paths
    ]

    def extract(record: bytes) -> Tokens:
        fields = as_tuple(decode(record))
        return [
            record if whole else inner(bytes(fields[place])) if place >= 0 else b""
            for place, inner, whole in steps
        ]

    return extract


def _inner(path: Path) -> Callable[[bytes], bytes]:
    """A function from a token to the token at `path` inside it."""
    if not path:
        return lambda token: token
    step, further = path[0], _inner(path[1:])
    if isinstance(step, int):
        decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode

        def at_index(token: bytes) -> bytes:
            items = decode_list(token) if token[:1] == b"[" else []
            return further(bytes(items[step])) if step < len(items) else b""

        return at_index
    one = msgspec.defstruct("Field", [("f", msgspec.Raw, msgspec.field(default=msgspec.Raw(b""), name=step))])
    decode = msgspec.json.Decoder(one).decode

    def at_name(token: bytes) -> bytes:
        return further(bytes(decode(token).f)) if token[:1] == b"{" else b""  # type: ignore[attr-defined]

    return at_name


def json_lines(stream: BinaryIO, extract: Extract) -> Iterator[list[Tokens]]:
    """Rows of a `json` blob, one object a line; a line that is not one is skipped, as ADX does.

    Source: data-explorer/ingest-invalid-data.md, "Malformed records are ignored and not ingested".
    """
    for lines in _lines(stream):
        try:
            yield [extract(line) for line in lines]
        except (msgspec.MsgspecError, RecursionError):
            yield [row for line in lines if (row := _or_none(extract, line)) is not None]


def _or_none(extract: Extract, line: bytes) -> Tokens | None:
    try:
        return extract(line)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    """The lines that hold more than white space, as valid UTF-8, in lists of about a mebibyte."""
    rest = b""
    first = True
    while chunk := stream.read(_CHUNK_BYTES):
        if first:
            chunk, first = chunk.removeprefix(b"\xef\xbb\xbf"), False
        whole, newline, rest_of_chunk = chunk.rpartition(b"\n")
        if not newline:
            rest += chunk
            if len(rest) > _RECORD_MAX_BYTES:
                raise IngestionError("Stream_InputStreamTooLarge", "A record is larger than 64 MB.")
            continue
        yield _split(rest + whole)
        rest = rest_of_chunk
    if rest:
        yield _split(rest)


def _split(data: bytes) -> list[bytes]:
    data = clean(data)
    if b"\r" in data:
        # At the end of a line it is part of the line break; inside it is white space between tokens.
        data = data.replace(b"\r", b" ")
    return [line for line in data.split(b"\n") if line and not line.isspace()]


def clean(data: bytes) -> bytes:
    """`data` without what cannot be stored as text: invalid UTF-8 and lone surrogates become U+FFFD.

    Source: kusto/query/scalar-data-types/string.md, "replaced with U+FFFD ... at ingestion time".
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode()
    # One byte is found many times faster than two, and most data has no escapes at all.
    if b"\\" in data and (b"\\ud" in data or b"\\uD" in data):
        data = _LONE_SURROGATE.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)
    return data


def multi_json(stream: BinaryIO, extract: Extract) -> Iterator[list[Tokens]]:
    """Rows of a `multijson` blob: objects one after another, or arrays of them. Any fault refuses the whole blob.

    Source: data-explorer/ingest-json-formats.md and ingest-invalid-data.md (BadRequest_InvalidBlob).
    """
    data = clean(stream.read(_RECORD_MAX_BYTES * 16 + 1)).removeprefix(b"\xef\xbb\xbf")
    rows: list[Tokens] = []
    for value in _values(data):
        try:
            items = msgspec.json.decode(value, type=list[msgspec.Raw]) if value[:1] == b"[" else [value]
            # Line breaks between tokens would end a line of the rows file; inside strings there are none.
            rows.extend(extract(bytes(item).replace(b"\n", b" ").replace(b"\r", b" ")) for item in items)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise IngestionError(
                "BadRequest_InvalidBlob", f"The blob is not valid multijson: {type(error).__name__}."
            ) from None
        if len(rows) >= 5000:
            yield rows
            rows = []
    yield rows


def _values(data: bytes) -> Iterator[bytes]:
    """The JSON values that stand one after another in `data`, each valid by RFC 8259."""
    at = 0
    end = len(data.rstrip())
    while at < end:
        stop = _value_end(data, at)
        value = data[at:stop].strip()
        try:
            _ANY.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            raise IngestionError(
                "BadRequest_InvalidBlob", f"The blob is not valid multijson from byte {at} on."
            ) from None
        if value[:1] not in (b"{", b"["):
            raise IngestionError(
                "BadRequest_InvalidBlob", f"At byte {at} there is neither an object nor an array."
            )
        yield value
        at = stop


_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)


def _value_end(data: bytes, at: int) -> int:
    """Where the first value at or after `at` ends: its closing bracket, or the end of the data."""
    depth = 0
    for found in _STRUCTURE.finditer(data, at):
        mark = found[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
            if depth <= 0:
                return found.end()
    return len(data)


def csv_rows(
    stream: BinaryIO, sources: Sequence[Source], dynamic: Sequence[bool], *, skip_first: bool
) -> Iterator[list[Tokens]]:
    """Rows of a `csv` blob (RFC 4180), each field a JSON string; a dynamic one is its own JSON where it is valid.

    Source: data-explorer/ingest-invalid-data.md: lines with different numbers of fields refuse the blob.
    """
    ordinals = [-1 if source.ordinal is None else source.ordinal for source in sources]
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text, strict=True)
    width: int | None = None
    rows: list[Tokens] = []
    try:
        for number, fields in enumerate(reader):
            if not fields:
                continue
            if width is None:
                width = len(fields)
            if len(fields) != width:
                raise IngestionError(
                    "Stream_WrongNumberOfFields",
                    f"Line {reader.line_num} has {len(fields)} fields where the first one has {width}.",
                )
            if skip_first and number == 0:
                continue
            rows.append([
                _csv_token(fields[place], is_dynamic=bag) if 0 <= place < width else b""
                for place, bag in zip(ordinals, dynamic, strict=True)
            ])  # fmt: skip
            if len(rows) >= 5000:
                yield rows
                rows = []
    except csv.Error as error:
        code = "Stream_ClosingQuoteMissing" if "unexpected end" in str(error) else "BadRequest_InvalidBlob"
        raise IngestionError(code, f"Line {reader.line_num} is not valid CSV.") from None
    yield rows


_encode = msgspec.json.Encoder().encode


def _csv_token(field: str, *, is_dynamic: bool) -> bytes:
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


def limited(row: Iterable[bytes], kinds: Sequence[str]) -> list[bytes]:
    """The row with values over 1 MiB as ADX keeps them: a string's first mebibyte, nothing of a dynamic value.

    Source: data-explorer/ingest-invalid-data.md.
    """
    return [
        bytes(token) if len(token) <= VALUE_MAX_BYTES else _shortened(bytes(token), kind)
        for token, kind in zip(row, kinds, strict=True)
    ]


def _shortened(token: bytes, kind: str) -> bytes:
    if kind != "string":
        return b""
    text = msgspec.json.decode(token, type=str) if token[:1] == b'"' else token.decode()
    return _encode(text.encode()[:VALUE_MAX_BYTES].decode("utf-8", "ignore"))
