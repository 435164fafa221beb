"""Protobuf schemas, compiled: the message types of a registry's schema, or of a descriptor set."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
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

_ROOT = "kafka_adx_sink/schema.proto"  # a name under which nobody imports anything
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
    """The message types of some files, by their names, and of those that everybody has.

    Raises:
        SchemaError: they do not hold together.
    """

    def __init__(self, files: Mapping[str, FileDescriptorProto]) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        self._files = files
        self._added: set[str] = set()
        try:
            for name in files:
                self._add(name)
        except (TypeError, KeyError, ValueError):
            raise SchemaError("its files do not hold together; a set is made with --include_imports") from None

    @staticmethod
    def of_schema(schema: Schema) -> Messages:
        """Those of a registry's schema and of its references, each under the name by which it is imported.

        Raises:
            SchemaError: it is none, or does not hold together.
        """
        files: dict[str, FileDescriptorProto] = {}
        try:
            _collect(schema, _ROOT, files)
        except (DecodeError, ValueError):
            raise SchemaError("it is no compiled Protobuf file") from None
        return Messages(files)

    @staticmethod
    def of_set(text: str) -> Messages:
        """Those of a descriptor set, which is base64 here.

        Raises:
            SchemaError: it is none, or does not hold together.
        """
        try:
            files = FileDescriptorSet.FromString(base64.b64decode(text, validate=True)).file
        except (DecodeError, ValueError):
            raise SchemaError("it is no descriptor set") from None
        return Messages({file.name: file for file in files})

    def at(self, indexes: Sequence[int]) -> type[Message] | None:
        """The type at these indexes of a registry's schema, from the outermost inwards; None if there is none.

        Entries of maps do not count. Source: Confluent's clients count the messages that the text declares.
        """
        root = self._files[_ROOT]
        names = [root.package] if root.package else []
        declared = list(root.message_type)
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

    def _add(self, name: str) -> None:
        """A file, behind those that it imports. The pool complains of one that is missing, or imports itself."""
        if name in self._added:
            return
        self._added.add(name)
        file = self._files[name] if name in self._files else _known_to_all(name)
        if file is None:
            return
        for imported in file.dependency:
            self._add(imported)
        self.pool.Add(file)
        self.pool.FindFileByName(name)


def _collect(schema: Schema, name: str, files: dict[str, FileDescriptorProto]) -> None:
    if name in files:
        return
    files[name] = FileDescriptorProto.FromString(base64.b64decode(schema.text, validate=True))
    files[name].name = name
    for reference in schema.references:
        _collect(reference.schema, reference.name, files)


def _known_to_all(name: str) -> FileDescriptorProto | None:
    """A file that needs no reference, because everybody has it."""
    if name in _BUILT_IN:
        file = FileDescriptorProto()
        file.CopyFrom(_BUILT_IN[name])
        file.name = name
        return file
    if not name.startswith(_WELL_KNOWN):
        return None
    try:
        module = import_module(f"google.protobuf.{name[len(_WELL_KNOWN) : -len('.proto')]}_pb2")
    except ImportError:
        raise SchemaError("it imports a file of google/protobuf that is not there") from None
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
