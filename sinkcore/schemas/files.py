"""The schema that ships with the app, for values that name none."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import sinkcore
from sinkcore.schemas import SCHEMA_MAX_BYTES, Kind, Schema, SchemaError

ROOT = Path(sinkcore.__file__).parent.parent
"""The app's directory: relative paths begin here."""

_KINDS: dict[str, Kind] = {".avsc": "AVRO"}
_FILES_KEPT = 256


@lru_cache(maxsize=_FILES_KEPT)
def read_own(path: str) -> Schema:
    """The schema in the file at `path`, which is known to parse.

    Raises:
        SchemaError: there is no such file, or no such schema in it.
    """
    kind = _KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise SchemaError(f"its file's name ends in none of {', '.join(_KINDS)}")
    try:
        with (ROOT / path).open("rb") as file:
            data = file.read(SCHEMA_MAX_BYTES + 1)
        if len(data) > SCHEMA_MAX_BYTES:
            raise SchemaError(f"its file has more than {SCHEMA_MAX_BYTES} bytes")
        schema = Schema(kind, data.decode())
    except OSError as error:
        raise SchemaError(f"its file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SchemaError("its file is not UTF-8") from None
    _check(schema)
    return schema


def _check(schema: Schema) -> None:
    """The schema can be parsed; what that takes is imported for this kind alone."""
    from sinkcore.schemas import avro

    avro.parse(schema)
