"""What a mapping does to a token on its way into a column.

Source: dataexplorer-docs, kusto/management/mappings.md, "Mapping transformations".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from localrunner.adx.mapping import Path, Source

_TO_MICROSECONDS = {
    "DateTimeFromUnixSeconds": Decimal(1_000_000),
    "DateTimeFromUnixMilliseconds": Decimal(1000),
    "DateTimeFromUnixMicroseconds": Decimal(1),
    "DateTimeFromUnixNanoseconds": Decimal("0.001"),
}
_EPOCH = datetime(1970, 1, 1)
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_BAGS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_BYTES = msgspec.json.Decoder(list[int])

Change = Callable[[bytes], bytes]
# Rows, the number of the first of them in its blob, and the blob's address: the rows as they are stored.
Transform = Callable[[Sequence[Sequence[bytes]], int, str], Sequence[Sequence[bytes]]]


def built(sources: Sequence[Source]) -> Transform | None:
    """What the sources' transformations do to rows of tokens; None where there is none."""
    if not any(source.transform for source in sources):
        return None
    changes = {place: _change(source, sources) for place, source in enumerate(sources) if source.transform}
    numbered = [place for place, source in enumerate(sources) if source.transform == "SourceLineNumber"]
    located = [place for place, source in enumerate(sources) if source.transform == "SourceLocation"]

    def transform(rows: Sequence[Sequence[bytes]], first: int, location: str) -> Sequence[Sequence[bytes]]:
        where = json.dumps(location).encode()
        changed = []
        for number, tokens in enumerate(rows, first):
            row = [
                changes[place](bytes(token)) if place in changes else token for place, token in enumerate(tokens)
            ]
            for place in numbered:
                row[place] = str(number).encode()
            for place in located:
                row[place] = where
            changed.append(row)
        return changed

    return transform


def _change(source: Source, sources: Iterable[Source]) -> Change:
    match source.transform:
        case "DropMappedFields":
            path = source.path or ()
            below = [
                other.path[len(path) :]
                for other in sources
                if other.path
                and other is not source
                and len(other.path) > len(path)
                and other.path[: len(path)] == path
            ]
            return lambda token: _without(token, below)
        case "BytesAsBase64":
            return _base64
        case "PropertyBagArrayToDictionary":
            return _dictionary
        case "SourceLocation" | "SourceLineNumber":
            return lambda token: token
    factor = _TO_MICROSECONDS[source.transform]
    return lambda token: _from_unix(token, factor)


def _from_unix(token: bytes, factor: Decimal) -> bytes:
    """A number since 1970 as a datetime; nothing for what is no number or beyond the year 9999."""
    try:
        micros = int(Decimal(token.decode().strip('"').strip()) * factor)
        moment = _EPOCH + timedelta(microseconds=micros)
    except (InvalidOperation, OverflowError, ValueError):
        return b""
    return b'"' + moment.isoformat().encode() + b'Z"'


def _base64(token: bytes) -> bytes:
    try:
        return msgspec.json.encode(base64.b64encode(bytes(_BYTES.decode(token))).decode())
    except (msgspec.MsgspecError, ValueError):
        return b""


def _dictionary(token: bytes) -> bytes:
    """One object with the properties of all in an array; of several of one name the last."""
    try:
        bags = _RAW_BAGS.decode(token)
    except msgspec.MsgspecError:
        return b""
    return msgspec.json.encode({name: value for bag in bags for name, value in bag.items()})


def _without(token: bytes, paths: Sequence[Path]) -> bytes:
    """The object without the fields at `paths`; what is no object stays as it is."""
    if token[:1] != b"{" or not paths:
        return token
    try:
        fields: dict[str, Any] = dict(_RAW_FIELDS.decode(token))
    except msgspec.MsgspecError:
        return token
    for name in {path[0] for path in paths if isinstance(path[0], str)} & set(fields):
        inner = [path[1:] for path in paths if path[0] == name]
        if () in inner:
            del fields[name]
        else:
            fields[name] = msgspec.Raw(_without(bytes(fields[name]), inner))
    return msgspec.json.encode(fields)
