"""The schema that ships with the app, for values that name none."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path

import sinkcore
from sinkcore.schemas import SCHEMA_MAX_BYTES, Kind, Schema, SchemaError

ROOT = Path(sinkcore.__file__).parent.parent
"""The app's directory: relative paths begin here."""

_KINDS: dict[str, Kind] = {".avsc": "AVRO", ".json": "JSON", ".desc": "PROTOBUF"}
_FILES_KEPT = 256


@lru_cache(maxsize=_FILES_KEPT)
def read_own(path: str) -> Schema:
    """The schema in the file at `path`, which is known to parse; behind a `#` may stand a message type.

    A descriptor set comes as base64, and is no schema for anybody else.

    Raises:
        SchemaError: there is no such file, or no such schema in it.
    """
    file_path, _, name = path.partition("#")
    kind = _KINDS.get(Path(file_path).suffix.lower())
    if kind is None:
        raise SchemaError(f"its file's name ends in none of {', '.join(_KINDS)}")
    try:
        with (ROOT / file_path).open("rb") as file:
            data = file.read(SCHEMA_MAX_BYTES + 1)
        if len(data) > SCHEMA_MAX_BYTES:
            raise SchemaError(f"its file has more than {SCHEMA_MAX_BYTES} bytes")
        schema = Schema(kind, base64.b64encode(data).decode() if kind == "PROTOBUF" else data.decode())
    except OSError as error:
        raise SchemaError(f"its file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SchemaError("its file is not UTF-8") from None
    _check(schema, name)
    return schema


def type_of(path: str) -> str:
    """The message type that a path of `read_own` names; empty where it names none."""
    return path.partition("#")[2]


def _check(schema: Schema, name: str) -> None:
    """The schema can be used; what that takes is imported for this kind alone."""
    if schema.kind == "AVRO":
        from sinkcore.schemas import avro

        avro.parse(schema)
    elif schema.kind == "PROTOBUF":
        from sinkcore.schemas.protobuf import Messages

        if Messages.of_set(schema.text).named(name) is None:
            raise SchemaError("it has no message type of that name; write its full name behind the path and a #")
    else:
        from sinkcore.schemas.jsonschema import validator_of

        validator_of(schema)
