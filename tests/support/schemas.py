"""Schemas by id, as a registry has them, without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sinkcore.errors import TransientError
from sinkcore.schemas import Kind, Schema


class KnownSchemas:
    """The schemas that a test names; `asked` has every id that was asked for."""

    def __init__(self, known: Mapping[int, Schema], *, down: bool = False) -> None:
        self.known = dict(known)
        self.asked: list[int] = []
        self.down = down

    def schema(self, schema_id: int) -> Schema | None:
        self.asked.append(schema_id)
        if self.down:
            raise TransientError("schema registry: made up by a test")
        return self.known.get(schema_id)


def schema_of(text: Any, kind: Kind = "AVRO") -> Schema:
    """A schema of JSON's own types."""
    return Schema(kind, json.dumps(text))


def framed(schema_id: int, value: bytes) -> bytes:
    """The value in Confluent's wire format."""
    return b"\x00" + schema_id.to_bytes(4, "big") + value
