"""Is this value one JSON object, or several? ADX drops a malformed line without a word, so nothing malformed may
reach it. Values are judged, never rewritten.

What the grammar of RFC 8259 leaves open is settled here: numbers of any size pass (`1e999`, 400 digits), repeated
keys pass, byte order marks are refused, and so are `\\ud800`-style escapes without their partner, because no text
can hold what they stand for."""

from __future__ import annotations

import codecs
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Annotated

import msgspec

DEPTH_MAX = 1500
"""Levels of nesting in one value. The parser's own limit is the interpreter's: about 1,000 less the call stack on
Python 3.11, 1,497 on 3.12, 9,998 on 3.13. So up to 700 levels pass anywhere, and more than this nowhere."""

ROWS_PER_RECORD_MAX = 1_000_000
"""Objects in one record: 32 MiB could hold eleven million, which take 100 times their bytes as rows."""

_DEPTH_SIZE_MIN = 2 * DEPTH_MAX  # each level costs an opening and a closing bracket, so shorter values are flatter
_UTF8_STEP_BYTES = 1 << 20

_TYPE_NAMES = {"[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a value is refused: a `reason` of the contract, and a `detail` of positions and sizes, never content."""

    reason: str
    detail: str


_TOO_DEEP = Fault("too_deep", f"more levels than the parser takes; {DEPTH_MAX} at most")

Decode = Callable[[bytes | memoryview], object]


class _Object(msgspec.Struct, gc=False):
    """Whatever a JSON object holds is checked and let go."""


_decode_any: Decode = msgspec.json.Decoder(msgspec.Raw).decode
_decode_objects = msgspec.json.Decoder(list[_Object]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_TRAILING = "trailing characters"


def _parses_depth(levels: int) -> bool:
    try:
        _decode_any(b"[" * levels + b"]" * levels)
    except RecursionError:
        return False
    return True


# Counting brackets costs a seventh of validation and gzip: left out where the parser stops earlier anyway.
_DEPTH_CHECK_MIN = _DEPTH_SIZE_MIN if _parses_depth(DEPTH_MAX + 1) else sys.maxsize

_MALFORMED = re.compile(r"JSON is malformed: (.+) \(byte (\d+)\)")
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


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


def all_objects(values: Sequence[bytes], joined: bytes | None, longest: int, decode: Decode) -> bool:
    """Whether every one of `values` is one JSON object that may pass; `joined` is all of them without a gap.

    The parser does not look at the bytes inside strings, so UTF-8 is checked on `joined`. Two bad values cannot
    make a good one there: each has been parsed by then and so ends in an ASCII bracket or white space.
    """
    try:
        deque(map(decode, values), maxlen=0)
    except (msgspec.DecodeError, RecursionError):
        return False
    if joined is not None and invalid_utf8_at(joined) is not None:
        return False
    return longest < _DEPTH_CHECK_MIN or not any(map(too_deep, values))


def object_fault(value: bytes, decode: Decode) -> Fault | None:
    """Why `value` is not one JSON object that may pass, or None."""
    try:
        decode(value)
    except RecursionError:
        return _TOO_DEEP
    except msgspec.DecodeError:
        return _grammar_fault(value) or _text_fault(value) or _shape_fault(value)
    return _text_fault(value)


def objects_in(value: bytes, decode: Decode) -> list[bytes] | Fault:
    """The objects that `value` consists of, each with its own bytes, or why it is refused whole.

    It may be one object, several with any white space between, or one array of objects.
    """
    one = object_fault(value, decode)
    if one is None:
        return [value]
    if one.reason == "not_an_object" and value.lstrip().startswith(b"["):
        found = _elements(value)
    elif one.reason == "invalid_json" and one.detail.startswith(_TRAILING):
        found = _concatenated(value)
    else:
        return one
    if isinstance(found, Fault):
        return found
    for number, part in enumerate(found):
        if (fault := object_fault(part, decode)) is not None:
            return Fault(fault.reason, f"object {number} of {len(found)}: {fault.detail}")
    return found


def _elements(value: bytes) -> list[bytes] | Fault:
    """The objects of an array, which is good JSON, or why it is refused."""
    try:
        # Parsed once more for their number alone: their bytes take several times the memory.
        rows = len(_decode_objects(value))
    except RecursionError:
        return _TOO_DEEP
    except msgspec.DecodeError:
        return Fault("not_an_object", "an array with something else in it")
    if rows == 0:
        return Fault("not_an_object", "an array of no elements")
    if rows > ROWS_PER_RECORD_MAX:
        return Fault("too_large", f"{rows} objects; at most {ROWS_PER_RECORD_MAX}")
    return list(map(bytes, _decode_elements(value)))


def _concatenated(value: bytes) -> list[bytes] | Fault:
    """The objects that follow one another in `value`, or why it is refused.

    Source: msgspec reports the first byte after a complete text as "trailing characters".
    """
    found: list[bytes] = []
    view = memoryview(value)
    start = 0
    while len(found) < ROWS_PER_RECORD_MAX:
        try:
            _decode_any(view[start:])
            end = len(value)
        except (msgspec.DecodeError, RecursionError) as error:
            what, position = _what_and_where(error)
            if what != _TRAILING:
                return _grammar_fault_of(error, value, start)
            end = start + position
        found.append(value[start:end].strip())
        if not found[-1].startswith(b"{"):
            return Fault("not_an_object", f"something else at byte {start}")
        if end == len(value):
            return _text_fault(value) or found
        start = end
    return Fault("too_large", f"more than {ROWS_PER_RECORD_MAX} objects")


def _grammar_fault(value: bytes) -> Fault | None:
    try:
        _decode_any(value)
    except (msgspec.DecodeError, RecursionError) as error:
        return _grammar_fault_of(error, value)
    return None


def _grammar_fault_of(error: Exception, value: bytes, start: int = 0) -> Fault:
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    what, position = _what_and_where(error)
    if what:
        return Fault("invalid_json", f"{what} at byte {start + position}")
    # The parser says "truncated" of an escape that wants a second half, too.
    if _SURROGATE.search(_SURROGATE_PAIR.sub(b"", value)):
        return Fault("invalid_json", "an escaped surrogate without its partner")
    return Fault("invalid_json", f"unexpected end of data at byte {len(value)}")


def _what_and_where(error: Exception) -> tuple[str, int]:
    match = _MALFORMED.fullmatch(str(error))
    if match is None:
        return "", 0
    what, position = match[1], int(match[2])
    return what, position - (what == _TRAILING)  # that one is counted from one


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


def invalid_utf8_at(data: bytes) -> int | None:
    """Where `data` stops being UTF-8; None if it never does. Looks at 1 MiB at a time, because text in memory
    takes up to four times its bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    for start in range(0, len(data), _UTF8_STEP_BYTES):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(view[start : start + _UTF8_STEP_BYTES], start + _UTF8_STEP_BYTES >= len(data))
        except UnicodeDecodeError as error:
            return start - pending + error.start
    return None


def too_deep(value: bytes) -> bool:
    """Whether `value`, which is good JSON, nests deeper than `DEPTH_MAX`."""
    if len(value) < _DEPTH_SIZE_MIN:
        return False
    # No value is deeper than it has opening brackets; looking for `[` first is the quicker way to count none.
    openings = value.count(b"{") + (value.count(b"[") if b"[" in value else 0)
    return openings > DEPTH_MAX and depth_of(value) > DEPTH_MAX


_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = [1 if byte in b"[{" else -1 for byte in range(256)]


def depth_of(value: bytes) -> int:
    """Levels of nesting in `value`, which is good JSON.

    With the escapes gone every second part between quotes is a string; what remains of the others are brackets.
    """
    outside_strings = value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[0::2]
    brackets = b"".join(outside_strings).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
