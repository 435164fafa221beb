"""Several objects in one record, for `multijson` and `singlejson`: found, and handed on with their own bytes."""

from __future__ import annotations

import msgspec

from sinkcore.encode.jsoncheck import (
    TOO_DEEP,
    TRAILING,
    Decode,
    Fault,
    decode_any,
    grammar_fault_of,
    object_fault,
    what_and_where,
)

ROWS_PER_RECORD_MAX = 1_000_000
"""Objects in one record: 32 MiB could hold eleven million, which take 100 times their bytes as rows."""


class _Object(msgspec.Struct, gc=False):
    """Whatever a JSON object holds is checked and let go."""


_decode_objects = msgspec.json.Decoder(list[_Object]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def objects_in(value: bytes, decode: Decode) -> list[bytes] | Fault:
    """The objects that `value` consists of, each with its own bytes, or why it is refused whole.

    It may be one object, several with any white space between, or one array of objects.
    """
    one = object_fault(value, decode)
    if one is None:
        return [value]
    if one.reason == "not_an_object" and value.lstrip().startswith(b"["):
        found = _elements(value)
    elif one.reason == "invalid_json" and one.detail.startswith(TRAILING):
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
        return TOO_DEEP
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
            decode_any(view[start:])
            end = len(value)
        except (msgspec.DecodeError, RecursionError) as error:
            what, position = what_and_where(error)
            if what != TRAILING:
                return grammar_fault_of(error, value, start)
            end = start + position
        found.append(value[start:end].strip())
        if not found[-1].startswith(b"{"):  # at once: a number and a space are two bytes, and fifty in a list
            return Fault("not_an_object", f"something else at byte {start}")
        if end == len(value):
            return found
        start = end
    return Fault("too_large", f"more than {ROWS_PER_RECORD_MAX} objects")
