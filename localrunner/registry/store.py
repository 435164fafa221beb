"""What the registry knows: schemas by id, and each subject's versions; kept in one file."""

from __future__ import annotations

import base64
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
from fastavro.types import Schema as AvroSchema
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND = 40401, 40402, 40403
INVALID_SCHEMA = 42201
TYPES = ("AVRO", "JSON", "PROTOBUF")
REFERENCE_DEPTH_MAX = 16


class RegistryError(Exception):
    """A request that cannot be served; `code` is Confluent's, whose first three digits are the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Entry:
    """One schema as it was registered; `references` are `(name, subject, version)`."""

    text: str
    type: str = "AVRO"
    references: tuple[tuple[str, str, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As the REST protocol has it: the type is left out for Avro, references where there are none."""
        found: dict[str, Any] = {"schema": self.text}
        if self.type != "AVRO":
            found["schemaType"] = self.type
        if self.references:
            keys = ("name", "subject", "version")
            found["references"] = [dict(zip(keys, reference, strict=True)) for reference in self.references]
        return found

    @staticmethod
    def from_json(body: Any) -> Entry:
        """What a request or the file holds.

        Raises:
            RegistryError: it is no schema in the protocol's form.
        """
        try:
            references = tuple((r["name"], r["subject"], int(r["version"])) for r in body.get("references") or ())
            entry = Entry(body["schema"], body.get("schemaType") or "AVRO", references)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RegistryError(INVALID_SCHEMA, f"The request has no schema: {error}") from None
        if entry.type not in TYPES or not isinstance(entry.text, str):
            raise RegistryError(INVALID_SCHEMA, f"schemaType is none of {', '.join(TYPES)}")
        return entry


class Store:
    """Schemas and subjects. Ids and versions count from 1 and are never given twice."""

    def __init__(self, directory: Path | None) -> None:
        self._file = None if directory is None else directory / "registry.json"
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._subjects: dict[str, list[int]] = {}
        if self._file is not None and self._file.exists():
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            self._entries = [Entry.from_json(entry) for entry in kept["schemas"]]
            self._subjects = kept["subjects"]

    def register(self, subject: str, entry: Entry) -> int:
        """The schema's id; the subject has it as a version, the latest one if it had not."""
        with self._lock:
            self._check(entry)
            if entry not in self._entries:
                self._entries.append(entry)
            schema_id = self._entries.index(entry) + 1
            versions = self._subjects.setdefault(subject, [])
            if schema_id not in versions:
                versions.append(schema_id)
            self._keep()
        return schema_id

    def subjects(self) -> list[str]:
        """All subjects, by name."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> list[int]:
        """The schema ids of a subject's versions, the first one first."""
        if subject not in self._subjects:
            raise RegistryError(SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
        return list(self._subjects[subject])

    def version(self, subject: str, version: str) -> tuple[int, int, Entry]:
        """Version, id and schema of `version`, a number or `latest`."""
        ids = self.versions(subject)
        number = len(ids) if version in ("latest", "-1") else int(version) if version.isdigit() else 0
        if not 1 <= number <= len(ids):
            raise RegistryError(VERSION_NOT_FOUND, f"Version {version} not found.")
        return number, ids[number - 1], self._entries[ids[number - 1] - 1]

    def schema(self, schema_id: str) -> Entry:
        """The schema of an id."""
        number = int(schema_id) if schema_id.isdigit() else 0
        if not 1 <= number <= len(self._entries):
            raise RegistryError(SCHEMA_NOT_FOUND, f"Schema {schema_id} not found")
        return self._entries[number - 1]

    def find(self, subject: str, entry: Entry) -> tuple[int, int]:
        """Version and id under which the subject has the schema."""
        for number, schema_id in enumerate(self.versions(subject), 1):
            if self._entries[schema_id - 1] == entry:
                return number, schema_id
        raise RegistryError(SCHEMA_NOT_FOUND, "Schema not found")

    def _check(self, entry: Entry) -> None:
        """The schema can be parsed, with what it refers to."""
        try:
            if entry.type == "AVRO":
                self._parse_avro(entry, {}, 0)
            elif entry.type == "JSON":
                json.loads(entry.text)
            else:
                FileDescriptorProto.FromString(base64.b64decode(entry.text, validate=True))
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            DecodeError,
            fastavro.schema.SchemaParseException,
        ) as e:
            hint = " (Protobuf is taken as a base64 FileDescriptorProto)" if entry.type == "PROTOBUF" else ""
            raise RegistryError(INVALID_SCHEMA, f"Invalid schema{hint}: {type(e).__name__}") from None
        for _, subject, version in entry.references:
            self.version(subject, str(version))

    def _parse_avro(self, entry: Entry, named: dict[str, AvroSchema], depth: int) -> None:
        if depth > REFERENCE_DEPTH_MAX:
            raise ValueError("references refer to each other")
        for _, subject, version in entry.references:
            self._parse_avro(self.version(subject, str(version))[2], named, depth + 1)
        fastavro.parse_schema(json.loads(entry.text), named_schemas=named)  # type: ignore[arg-type]

    def _keep(self) -> None:
        """The file holds everything; nobody ever reads half of it."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        kept = {"schemas": [entry.as_json() for entry in self._entries], "subjects": self._subjects}
        unfinished = self._file.with_suffix(".new")
        with unfinished.open("w", encoding="utf-8") as output:
            json.dump(kept, output)
            output.flush()
            os.fsync(output.fileno())
        unfinished.replace(self._file)
