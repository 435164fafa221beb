"""Protobuf schemas without a compiler, with a field of every kind, and values of them."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import Message
from hypothesis import strategies as st

from sinkcore.schemas import Reference, Schema

F = FieldDescriptorProto
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "double": st.floats(),
    "float": st.floats(width=32),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "fixed64": st.integers(0, 2**64 - 1),
    "fixed32": st.integers(0, 2**32 - 1),
    "bool": st.booleans(),
    "string": st.text(st.characters(codec="utf-8"), max_size=20),
    "bytes": st.binary(max_size=20),
    "uint32": st.integers(0, 2**32 - 1),
    "sfixed32": st.integers(-(2**31), 2**31 - 1),
    "sfixed64": st.integers(-(2**63), 2**63 - 1),
    "sint32": st.integers(-(2**31), 2**31 - 1),
    "sint64": st.integers(-(2**63), 2**63 - 1),
}
KNOWN_TYPES = (
    *("Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "Any", "Empty"),
    *(
        f"{each}Value"
        for each in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
    ),
)
KNOWN_FILES = ("timestamp", "duration", "field_mask", "struct", "any", "empty", "wrappers")


def field(name: str, number: int, kind: str, *, repeated: bool = False) -> FieldDescriptorProto:
    """A field; a kind that begins with a dot is a message's or, with `enum:` before it, an enum's."""
    label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
    if kind.startswith("enum:"):
        return F(name=name, number=number, label=label, type=F.TYPE_ENUM, type_name=kind.removeprefix("enum:"))
    if kind.startswith("."):
        return F(name=name, number=number, label=label, type=F.TYPE_MESSAGE, type_name=kind)
    return F(name=name, number=number, label=label, type=F.Type.Value(f"TYPE_{kind.upper()}"))


def map_of(message: DescriptorProto, scope: str, name: str, number: int, key: str, value: str) -> None:
    """The message has a map."""
    entry = name.title().replace("_", "") + "Entry"
    nested = message.nested_type.add(name=entry, field=[field("key", 1, key), field("value", 2, value)])
    nested.options.map_entry = True
    message.field.append(field(name, number, f"{scope}.{message.name}.{entry}", repeated=True))


def everything(syntax: str = "proto3") -> FileDescriptorProto:
    """A file whose second message has a field of every kind, single and repeated, maps, a oneof and itself."""
    file = FileDescriptorProto(name="everything.proto", package="demo", syntax=syntax)
    file.dependency.extend(f"google/protobuf/{name}.proto" for name in KNOWN_FILES)
    color = EnumDescriptorProto(name="Color")
    for number, name in enumerate(("UNKNOWN", "RED", "GREEN")):
        color.value.add(name=name, number=number)
    file.enum_type.append(color)
    file.message_type.add(name="Plane", field=[field("tail_number", 1, "string")])
    message = file.message_type.add(name="Everything")
    kinds = [*SCALARS, "enum:.demo.Color", ".demo.Plane", ".demo.Everything", "enum:.google.protobuf.NullValue"]
    kinds += [f".google.protobuf.{name}" for name in KNOWN_TYPES]
    for number, kind in enumerate(kinds, 1):
        name = "f_" + kind.rpartition(".")[2].lower()
        message.field.append(field(name, number, kind))
        message.field.append(field(f"{name}_list", 100 + number, kind, repeated=True))
    map_of(message, ".demo", "by_text", 200, "string", ".demo.Plane")
    map_of(message, ".demo", "by_bool", 201, "bool", "double")
    map_of(message, ".demo", "by_long", 202, "int64", "int64")
    message.nested_type.add(name="Inner", field=[field("x", 1, "int32")])
    message.oneof_decl.add(name="either")
    for number, kind in ((210, "int32"), (211, "string")):
        one = field(f"either_{kind}", number, kind)
        one.oneof_index = 0
        message.field.append(one)
    return file


def class_of(file: FileDescriptorProto, name: str) -> type[Message]:
    """A message type of the file, in a pool that has the well-known types too."""
    from google.protobuf import (
        any_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def schema(file: FileDescriptorProto, **references: FileDescriptorProto) -> Schema:
    """The file as a registry has it; references by the name by which it imports them."""
    return Schema("PROTOBUF", compiled(file), tuple(Reference(name, schema(f)) for name, f in references.items()))


def compiled(file: FileDescriptorProto) -> str:
    """The file as a registry hands it out."""
    return base64.b64encode(file.SerializeToString()).decode()


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], depth: int = 2) -> Any:
    """A message with some of its fields set."""
    message = kind()
    if not kind.DESCRIPTOR.fields:
        return message
    chosen = draw(st.lists(st.sampled_from(list(kind.DESCRIPTOR.fields)), max_size=6, unique_by=id))
    for each in chosen:
        _set(draw, message, each, depth)
    return message


def _set(draw: st.DrawFn, message: Any, each: Any, depth: int) -> None:
    if each.message_type is not None and each.message_type.GetOptions().map_entry:
        target, value = getattr(message, each.name), each.message_type.fields_by_name["value"]
        for key in draw(st.lists(_one(each.message_type.fields_by_name["key"]), max_size=3)):
            if value.message_type is None:
                target[key] = draw(_one(value))
            else:
                target[key].CopyFrom(draw(messages(type(target[key]), 0)))
    elif each.message_type is not None:
        target = getattr(message, each.name)
        for _ in range(draw(st.integers(0, 2)) if each.is_repeated else 1):
            one = target.add() if each.is_repeated else target
            one.SetInParent() if not each.is_repeated else None
            if depth > 0:
                one.CopyFrom(draw(messages(type(one), depth - 1)))
    elif each.is_repeated:
        getattr(message, each.name).extend(draw(st.lists(_one(each), max_size=3)))
    else:
        setattr(message, each.name, draw(_one(each)))


def _one(each: Any) -> st.SearchStrategy[Any]:
    if each.enum_type is not None:
        known = [value.number for value in each.enum_type.values]
        return st.sampled_from(known if each.enum_type.is_closed or len(known) == 1 else [*known, 77])
    return SCALARS[F.Type.Name(each.type).removeprefix("TYPE_").lower()]
