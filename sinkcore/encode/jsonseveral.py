"""Several objects in one record, for `multijson` and `singlejson`: found, and handed on with their own bytes."""

from __future__ import annotations

import msgspec

from sinkcore.encode.jsoncheck import TOO_DEEP, TRAILING, Decode, all_objects, grammar_fault_of, object_fault
from sinkcore.encode.rows import Fault

ROWS_PER_RECORD_MAX = 1_000_000
"""Objects in one record: 32 MiB could hold eleven million, which take 100 times their bytes as rows."""


class _Object(msgspec.Struct, gc=False):
    """Whatever a JSON object holds is checked and let go."""


# The elements of an array, or texts that follow one another. Source: msgspec's `decode_lines` asks for no line
# breaks, nor for anything else, between texts.
_objects_of_array = msgspec.json.Decoder(list[_Object]).decode
_objects_in_row = msgspec.json.Decoder(_Object).decode_lines
_bytes_of_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_bytes_in_row = msgspec.json.Decoder(msgspec.Raw).decode_lines


def objects_in(value: bytes, decode: Decode) -> list[bytes] | Fault:
    """The objects that `value` consists of, each with its own bytes, or why it is refused whole.

    It may be one object, several with any white space between, or one array of objects.
    """
    is_array = value.lstrip().startswith(b"[")
    try:
        # Very many are only counted, since their bytes would take much memory; each has two bytes at the least.
        if len(value) > 2 * ROWS_PER_RECORD_MAX:
            count = len(_objects_of_array(value) if is_array else _objects_in_row(value))
            if count > ROWS_PER_RECORD_MAX:
                return Fault("too_large", f"{count} objects; at most {ROWS_PER_RECORD_MAX}")
        found = list(map(bytes, _bytes_of_array(value) if is_array else _bytes_in_row(value)))
    except RecursionError:
        return TOO_DEEP
    except msgspec.DecodeError as error:
        one = object_fault(value, decode)
        among = one is None or one.detail.startswith(TRAILING) or (is_array and one.reason == "not_an_object")
        if one is not None and not among:
            return one
        if is_array or isinstance(error, msgspec.ValidationError):
            return Fault("not_an_object", "something else among the objects")
        return grammar_fault_of(error, value)
    if len(found) <= 1 and not is_array:
        return object_fault(value, decode) or [value]
    if not found:
        return Fault("not_an_object", "an array of no elements")
    if all_objects(found, None if value.isascii() else value, len(value), decode):
        return found
    for number, part in enumerate(found):
        if (fault := object_fault(part, decode)) is not None:
            return Fault(fault.reason, f"object {number} of {len(found)}: {fault.detail}")
    return found
