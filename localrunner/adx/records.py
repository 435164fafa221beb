"""Decoded blobs to rows of tokens: for each record one JSON token for each mapped column, as it was written.

Tokens go through a file between two control characters that valid JSON cannot hold, so nothing is escaped and
nothing is parsed twice: DuckDB reads the file as delimited text and converts whole columns at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import msgspec

from localrunner.adx.convert import VALUE_MAX_BYTES
from localrunner.adx.errors import IngestionError
from localrunner.adx.mapping import Path

DELIMITER = b"\x1f"
_CHUNK_BYTES = 1024 * 1024
# Source: kusto/query/scalar-data-types/string.md, "the allowed data limit of 64MB".
RECORD_MAX_BYTES = 64 * 1024 * 1024
ROWS_AT_ONCE = 5000
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\[^u]"
)

Tokens = Sequence[bytes]
Extract = Callable[[bytes], Tokens]


def extractor(paths: Sequence[Path | None]) -> Extract:
    """A function from a JSON object to the tokens at `paths`, empty where there is nothing or no path.

    The function raises msgspec.DecodeError if the text is not one JSON object, or not RFC 8259.
    """
    names = list(dict.fromkeys(str(path[0]) for path in paths if path and isinstance(path[0], str)))
    if any(map(_escaped, names)):
        return _by_any_name(paths)
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


def _escaped(name: str) -> bool:
    """Whether JSON has to escape the name; msgspec refuses such names in a struct."""
    return msgspec.json.encode(name)[1:-1] != name.encode()


def _by_any_name(paths: Sequence[Path | None]) -> Extract:
    """As `extractor`, for names that no struct can have; an object of every field a record, and slower for it."""
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    steps = [None if path is None else _inner(path) for path in paths]

    def extract(record: bytes) -> Tokens:
        decode(record)  # what is no object is an error
        return [b"" if step is None else step(record) for step in steps]

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
    if _escaped(step):
        fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        nothing = msgspec.Raw(b"")
        return lambda token: further(bytes(fields(token).get(step, nothing))) if token[:1] == b"{" else b""
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
            if len(rest) > RECORD_MAX_BYTES:
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
    return msgspec.json.encode(text.encode()[:VALUE_MAX_BYTES].decode("utf-8", "ignore"))
