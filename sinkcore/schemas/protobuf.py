"""Protobuf schemas, compiled: the message types of a registry's schema, or of a descriptor set."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import import_module

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.message import DecodeError, Message

from sinkcore.schemas import Schema, SchemaError

_ROOT = "schema.proto"
_WELL_KNOWN = "google/protobuf/"


def _decimal() -> FileDescriptorProto:
    field, types = FieldDescriptorProto, FieldDescriptorProto.Type
    kinds = (("value", types.TYPE_BYTES), ("precision", types.TYPE_UINT32), ("scale", types.TYPE_INT32))
    fields = [
        field(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
        for number, (name, kind) in enumerate(kinds, 1)
    ]
    message = DescriptorProto(name="Decimal", field=fields)
    return FileDescriptorProto(package="confluent.type", syntax="proto3", message_type=[message])


# What every registry knows without a reference. Source: Confluent's Protobuf schema provider. Of `meta.proto` only
# options are used, which mean nothing to a reader, and unknown options are skipped.
_BUILT_IN = {"confluent/meta.proto": FileDescriptorProto(), "confluent/type/decimal.proto": _decimal()}


class Messages:
    """The message types of one schema, with everything that they refer to."""

    def __init__(self, schema: Schema) -> None:
        """Raises SchemaError: it is none, or does not hold together."""
        self.pool = descriptor_pool.DescriptorPool()
        self._added: set[str] = set()
        try:
            self._root = self._from_registry(schema) if schema.kind == "PROTOBUF" else FileDescriptorProto()
        except (DecodeError, ValueError):
            raise SchemaError("it is no compiled Protobuf file") from None
        except (TypeError, KeyError):
            raise SchemaError("it does not hold together with what it refers to") from None

    @staticmethod
    def of_set(text: str) -> Messages:
        """Those of a descriptor set, which is base64 here.

        Raises:
            SchemaError: it is none, or does not hold together.
        """
        found = Messages(Schema("JSON", ""))
        try:
            files = FileDescriptorSet.FromString(base64.b64decode(text, validate=True)).file
            for file in _in_order(files):
                for name in file.dependency:
                    found._import(name)
                found._add(file)
        except (DecodeError, ValueError):
            raise SchemaError("it is no descriptor set") from None
        except TypeError:
            raise SchemaError("its files do not hold together; make it with --include_imports") from None
        return found

    def at(self, indexes: Sequence[int]) -> type[Message] | None:
        """The type at these indexes, from the outermost inwards; None if there is none.

        Entries of maps do not count. Source: Confluent's clients count the messages that the text declares.
        """
        names = [self._root.package] if self._root.package else []
        declared = list(self._root.message_type)
        for index in indexes:
            if not 0 <= index < len(declared):
                return None
            names.append(declared[index].name)
            declared = [each for each in declared[index].nested_type if not each.options.map_entry]
        return self.named(".".join(names)) if indexes else None

    def named(self, name: str) -> type[Message] | None:
        """The type of this full name; None if there is none."""
        try:
            found: Descriptor = self.pool.FindMessageTypeByName(name)
        except KeyError:
            return None
        return message_factory.GetMessageClass(found)

    def _from_registry(self, schema: Schema) -> FileDescriptorProto:
        self._references(schema, 0)
        root = FileDescriptorProto.FromString(base64.b64decode(schema.text, validate=True))
        root.name = _ROOT
        for name in root.dependency:
            self._import(name)
        self._add(root)
        return root

    def _references(self, schema: Schema, depth: int) -> None:
        """Files are added after those that they import, each under the name by which it is imported."""
        for reference in schema.references:
            self._references(reference.schema, depth + 1)
            if reference.name not in self._added:
                file = FileDescriptorProto.FromString(base64.b64decode(reference.schema.text, validate=True))
                file.name = reference.name
                for name in file.dependency:
                    self._import(name)
                self._add(file)

    def _import(self, name: str) -> None:
        """A file that nobody refers to, because everybody has it."""
        if name in self._added:
            return
        if name in _BUILT_IN:
            file = FileDescriptorProto()
            file.CopyFrom(_BUILT_IN[name])
            file.name = name
            self._add(file)
        elif name.startswith(_WELL_KNOWN):
            try:
                module = import_module(f"google.protobuf.{name[len(_WELL_KNOWN) : -len('.proto')]}_pb2")
            except ImportError:
                raise SchemaError("it imports a file of google/protobuf that is not there") from None
            file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
            for other in file.dependency:
                self._import(other)
            self._add(file)

    def _add(self, file: FileDescriptorProto) -> None:
        if file.name not in self._added:
            self.pool.Add(file)
            self.pool.FindFileByName(file.name)
            self._added.add(file.name)


def _in_order(files: Sequence[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Each file behind those that it imports."""
    by_name = {file.name: file for file in files}
    found: dict[str, FileDescriptorProto] = {}

    def visit(file: FileDescriptorProto, above: frozenset[str]) -> None:
        if file.name in above:
            raise SchemaError("its files import each other")
        for name in file.dependency:
            if name in by_name and name not in found:
                visit(by_name[name], above | {file.name})
        found[file.name] = file

    for file in files:
        visit(file, frozenset())
    return list(found.values())
