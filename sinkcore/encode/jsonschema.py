"""Values that are JSON with a JSON Schema: checked by it, and left as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from sinkcore.encode.rows import Fault
from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.jsonschema import validator_of

PATH_MAX_CHARACTERS = 200
_SCHEMAS_KEPT = 1024
_SAFE_CHARACTERS = "_-."
_decode = msgspec.json.Decoder().decode

Check = Callable[[bytes], Fault | None]
"""Why a value does not fit; None if it fits, or is no JSON at all, which others judge."""


@lru_cache(maxsize=_SCHEMAS_KEPT)
def check_of(schema: Schema) -> Check | Fault:
    """How values of this schema are checked; or why its records are refused."""
    try:
        validator = validator_of(schema)
    except SchemaError as error:
        return Fault("decode_failed", f"its schema cannot be used: {error}")
    return lambda value: _fault(value, validator)


def _fault(value: bytes, validator: Any) -> Fault | None:
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
