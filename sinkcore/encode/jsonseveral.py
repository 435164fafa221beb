"""Several objects in one record, for `multijson` and `singlejson`: found, and handed on with their own bytes."""

from __future__ import annotations

import msgspec

from sinkcore.encode.jsoncheck import TOO_DEEP, TRAILING, Decode, grammar_fault_of, object_fault
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
    one = object_fault(value, decode)
    if one is None:
        return [value]
    is_array = one.reason == "not_an_object" and value.lstrip().startswith(b"[")
    if not is_array and not one.detail.startswith(TRAILING):
        return one
    try:
        # Parsed for their number first: the bytes of very many, or of other things, would take much memory.
        count = len(_objects_of_array(value) if is_array else _objects_in_row(value))
    except msgspec.ValidationError:
        return Fault("not_an_object", "something else among the objects")
    except RecursionError:
        return TOO_DEEP
    except msgspec.DecodeError as error:
        return grammar_fault_of(error, value)
    if count == 0:
        return Fault("not_an_object", "an array of no elements")
    if count > ROWS_PER_RECORD_MAX:
        return Fault("too_large", f"{count} objects; at most {ROWS_PER_RECORD_MAX}")
    found = list(map(bytes, _bytes_of_array(value) if is_array else _bytes_in_row(value)))
    for number, part in enumerate(found):
        if (fault := object_fault(part, decode)) is not None:
            return Fault(fault.reason, f"object {number} of {count}: {fault.detail}")
    return found
