"""Is this value one JSON object? ADX drops a malformed line without a word, so nothing malformed may
reach it. Values are judged, never rewritten.

What the grammar of RFC 8259 leaves open is settled here: numbers of any size pass (`1e999`, 400 digits), repeated
keys pass, byte order marks are refused, and so are `\\ud800`-style escapes without their partner, because no text
can hold what they stand for."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated

import msgspec

from sinkcore.encode.jsontext import DEPTH_MAX, DEPTH_SIZE_MIN, depth_of, invalid_utf8_at, too_deep
from sinkcore.encode.rows import Fault

_TYPE_NAMES = {"[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}


Decode = Callable[[bytes | memoryview], object]

_decode_any: Decode = msgspec.json.Decoder(msgspec.Raw).decode
TOO_DEEP = Fault("too_deep", f"more levels than the parser takes; {DEPTH_MAX} at most")
TRAILING = "trailing characters"

_MALFORMED = re.compile(r"JSON is malformed: (.+) \(byte (\d+)\)")
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _parses_depth(levels: int) -> bool:
    try:
        _decode_any(b"[" * levels + b"]" * levels)
    except RecursionError:
        return False
    return True


# Counting brackets costs a seventh of validation and gzip: left out where the parser stops earlier anyway.
_DEPTH_CHECK_MIN = DEPTH_SIZE_MIN if _parses_depth(DEPTH_MAX + 1) else sys.maxsize


@lru_cache(maxsize=1024)
def decoder_of(metadata: str | None) -> Decode:
    """A function that raises unless its argument is one JSON object without a member called `metadata`.

    A struct without fields validates the whole value and keeps nothing. The one field has a type that no value
    satisfies, so that the member's presence is an error, however its name is escaped.
    """
    nothing_fits = Annotated[int, msgspec.Meta(ge=1, le=0)]
    fields = [] if metadata is None else [("metadata", nothing_fits | msgspec.UnsetType, msgspec.UNSET)]
    row = msgspec.defstruct("Row", fields, rename={"metadata": metadata or ""}, gc=False)
    return msgspec.json.Decoder(row).decode


def all_objects(values: Sequence[bytes], not_ascii: bytes | None, longest: int, decode: Decode) -> bool:
    """Whether every one of `values`, of at most `longest` bytes each, is one JSON object that may pass.

    The parser does not look at the bytes inside strings, so UTF-8 is checked on `not_ascii`, which is all values
    without a gap, or None where that is ASCII. Two bad values cannot make a good one there: each has been parsed
    by then and so ends in an ASCII bracket or white space. Parsing them together, too, would let one complete the
    other.
    """
    try:
        deque(map(decode, values), maxlen=0)
    except (msgspec.DecodeError, RecursionError):
        return False
    if not_ascii is not None and invalid_utf8_at(not_ascii) is not None:
        return False
    return longest < _DEPTH_CHECK_MIN or not any(map(too_deep, values))


def object_fault(value: bytes, decode: Decode) -> Fault | None:
    """Why `value` is not one JSON object that may pass, or None."""
    try:
        decode(value)
    except RecursionError:
        return TOO_DEEP
    except msgspec.DecodeError:
        return _grammar_fault(value) or _text_fault(value) or _shape_fault(value)
    return _text_fault(value)


def _grammar_fault(value: bytes) -> Fault | None:
    try:
        _decode_any(value)
    except (msgspec.DecodeError, RecursionError) as error:
        return grammar_fault_of(error, value)
    return None


def grammar_fault_of(error: Exception, value: bytes) -> Fault:
    """What the parser's `error` says of `value`."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if (match := _MALFORMED.fullmatch(str(error))) is not None:
        what, position = match[1], int(match[2])
        # Source: msgspec counts this one from one, all others from zero.
        return Fault("invalid_json", f"{what} at byte {position - (what == TRAILING)}")
    # The parser says "truncated" of an escape that wants a second half, too.
    if _SURROGATE.search(_SURROGATE_PAIR.sub(b"", value)):
        return Fault("invalid_json", "an escaped surrogate without its partner")
    return Fault("invalid_json", f"unexpected end of data at byte {len(value)}")


def _text_fault(value: bytes) -> Fault | None:
    if not value.isascii() and (position := invalid_utf8_at(value)) is not None:
        return Fault("invalid_json", f"invalid UTF-8 at byte {position}")
    if too_deep(value):
        return Fault("too_deep", f"{depth_of(value)} levels; at most {DEPTH_MAX}")
    return None


def _shape_fault(value: bytes) -> Fault:
    """For a value that is good JSON and yet not a row."""
    first = value.lstrip()[:1].decode()
    if first == "{":
        return Fault("metadata_conflict", "the record has the route's metadata field already")
    return Fault("not_an_object", f"the top level is {_TYPE_NAMES.get(first, 'a number')}")
