"""Avro object container files to rows of tokens.

Source: dataexplorer-docs, kusto/ingestion-supported-formats.md (files with a schema only); kusto/management/
mappings.md, "BytesAsBase64" (bytes are an array of values from 0 to 255).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import fastavro
import msgspec

from localrunner.adx.errors import IngestionError
from localrunner.adx.records import ROWS_AT_ONCE, Extract, Tokens

_encode = msgspec.json.Encoder(decimal_format="number").encode
_BROKEN = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(RecursionError, TypeError, ValueError, zlib.error),
)


def rows(stream: BinaryIO, extract: Extract) -> Iterator[list[Tokens]]:
    """Rows of an Avro file, one for each record. Any fault refuses the whole blob."""
    made: list[Tokens] = []
    for record in _records(stream):
        if not isinstance(record, dict):
            raise IngestionError("BadRequest_InvalidBlob", "The Avro file's schema is not that of a record.")
        made.append(extract(_encode(_plain(record))))
        if len(made) >= ROWS_AT_ONCE:
            yield made
            made = []
    yield made


def _records(stream: BinaryIO) -> Iterator[Any]:
    try:
        yield from fastavro.reader(stream)
    except _BROKEN as error:
        if str(error).startswith("Unrecognized codec") or "codec is supported but" in str(error):
            raise IngestionError(
                "BadRequest_FormatNotSupported", "The Avro file's compression codec is not known to this double."
            ) from None
        raise IngestionError(
            "BadRequest_InvalidBlob", f"The blob is not a valid Avro file: {type(error).__name__}."
        ) from None


def _plain(value: Any) -> Any:
    """The value with arrays of numbers for bytes."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return list(value)
    return value
