"""Schemas: what values are written by, wherever it comes from. No I/O here but of files that ship with the app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["AVRO", "PROTOBUF", "JSON"]
"""As a registry names them."""
KINDS: tuple[Kind, ...] = ("AVRO", "PROTOBUF", "JSON")

SCHEMA_MAX_BYTES = 8 << 20
"""Of one schema's text. Ten thousand columns take about one."""


class SchemaError(Exception):
    """A schema cannot be used: the message says why, without its text."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as its registry or file has it: JSON for Avro and JSON Schema, base64 of a descriptor for Protobuf.

    `references` are what its text names and does not hold.
    """

    kind: Kind
    text: str
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """Another schema, under the name by which a schema's text calls it."""

    name: str
    schema: Schema


class Schemas(Protocol):
    """Schemas by their id."""

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of that id; None if there is none.

        Raises:
            TransientError: who knows did not answer.
        """
