"""Values that are JSON with a JSON Schema: checked by it, and left as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from sinkcore.encode.framed import remembered
from sinkcore.encode.jsontext import DEPTH_MAX, depth_of
from sinkcore.encode.rows import Fault
from sinkcore.schemas import Schema
from sinkcore.schemas.jsonparts import holds_itself
from sinkcore.schemas.jsonschema import validator_of

PATH_MAX_CHARACTERS = 200
PATH_LEVELS_MAX = 4
"""Of a value whose fault is looked for where the schema has alternatives that hold themselves: the library tries
each in each of the others, which doubles its time with each level. Whether a value fits is found at once."""
_SAFE_CHARACTERS = "_-."
_decode = msgspec.json.Decoder().decode

Check = Callable[[bytes], Fault | None]
"""Why a value does not fit; None if it fits, or is no JSON at all, which others judge."""


@remembered
def check_of(schema: Schema) -> Check | Fault:
    """How values of this schema are checked; or why its records are refused."""
    validator = validator_of(schema)
    levels_max = PATH_LEVELS_MAX if holds_itself(schema) else DEPTH_MAX
    return lambda value: _fault(value, validator, levels_max)


def _fault(value: bytes, validator: Any, levels_max: int) -> Fault | None:
    try:
        instance = _decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        try:
            # This one takes numbers of any size, and so may the record.
            instance = json.loads(value)
        except (ValueError, RecursionError):
            return None
    try:
        if validator.is_valid(instance):
            return None
        if depth_of(value) > levels_max:
            return Fault(
                "validation_failed", f"somewhere in more than {levels_max} levels, by a schema within itself"
            )
        found = next(validator.iter_errors(instance), None)
    except RecursionError:
        return Fault("too_deep", "more levels than the validator takes")
    except UnicodeEncodeError:
        return None  # half a surrogate pair, which is no JSON
    except ValueError:
        return Fault("validation_failed", "more levels, or a larger number, than the validator takes")
    if found is None:
        return None
    return Fault("validation_failed", f"at {_path(found.instance_path)}: {_path(found.schema_path)}")


def _path(parts: Any) -> str:
    """A path as text: names and positions, never a value. Names that look like content are not printed."""
    text = "".join(f"/{_shown(part)}" for part in parts) or "/"
    return text if len(text) <= PATH_MAX_CHARACTERS else text[:PATH_MAX_CHARACTERS] + "..."


def _shown(part: str | int) -> str:
    text = str(part)
    return "".join(c if c.isalnum() or c in _SAFE_CHARACTERS else "?" for c in text[:PATH_MAX_CHARACTERS])
