"""A Protobuf message as JSON's own types, by the proto3 JSON mapping.

Fields are written as `json_format.MessageToJson` writes them, only quicker: 64-bit numbers as text, enums by name,
nothing that is not set. What a field needs is found once, not once a message; the rarer well-known types are
left to `json_format`.
Source: protobuf.dev, "ProtoJSON Format".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite, isnan
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.type_checkers import ToShortestFloat
from google.protobuf.message import Message

Convert = Callable[[Any], Any]
_KNOWN = "google.protobuf."
_AS_TEXT = ("Timestamp", "Duration", "FieldMask")
_BY_LIBRARY = ("Any", "Struct", "Value", "ListValue")
_WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")


class Converters:
    """How the message types of one pool become JSON's types; `None` stands for a value that can stay as it is."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._known: dict[str, Convert] = {}

    def of(self, kind: Descriptor) -> Convert:
        """A function from messages of this type to an object, or to what a well-known type is written as.

        What JSON cannot say is a ValueError, TypeError, AttributeError, LookupError or json_format.Error.
        """
        found = self._known.get(kind.full_name)
        if found is None:
            found = self._known[kind.full_name] = self._make(kind)
        return found

    def _make(self, kind: Descriptor) -> Convert:
        name = kind.full_name.removeprefix(_KNOWN) if kind.full_name.startswith(_KNOWN) else ""
        if name in _AS_TEXT:
            return _to_text
        if name in _BY_LIBRARY:
            return partial(json_format.MessageToDict, descriptor_pool=self._pool)
        if name.removesuffix("Value") in _WRAPPERS and name.endswith("Value") and "value" in kind.fields_by_name:
            return _wrapped(self._one(kind.fields_by_name["value"]))
        fields = {field: self._field(field) for field in kind.fields}

        def convert(message: Message) -> dict[str, Any]:
            found = {}
            for field, value in message.ListFields():
                # An extension is none of its type's own.
                name, of_field = fields.get(field) or self._field(field)
                found[name] = value if of_field is None else of_field(value)
            return found

        return convert

    def _field(self, field: FieldDescriptor) -> tuple[str, Convert | None]:
        """A field's name in JSON, and what its value needs, repeated or not."""
        name = f"[{field.full_name}]" if field.is_extension else field.json_name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[each] for each in ("key", "value"))
            return name, _mapped(key.type == FieldDescriptor.TYPE_BOOL, self._one(value))
        one = self._one(field)
        if field.is_repeated:
            return name, list if one is None else _each(one)
        return name, one

    def _one(self, field: FieldDescriptor) -> Convert | None:
        if field.message_type is not None:
            # Found when it is first needed, for a type can hold itself.
            kind = field.message_type
            return lambda value: self.of(kind)(value)
        if field.enum_type is not None:
            return _enum(field.enum_type)
        return _SCALARS.get(field.cpp_type)


def _to_text(message: Any) -> Any:
    return message.ToJsonString()


def _wrapped(convert: Convert | None) -> Convert:
    return lambda message: message.value if convert is None else convert(message.value)


def _each(convert: Convert) -> Convert:
    return lambda values: list(map(convert, values))


def _mapped(of_bool: bool, convert: Convert | None) -> Convert:
    def map_of(entries: Any) -> dict[str, Any]:
        keys = [("true" if key else "false") if of_bool else str(key) for key in entries]
        # By key: a message's map makes its values anew for `items`, not for this.
        values = [entries[key] for key in entries]
        return dict(zip(keys, values if convert is None else map(convert, values), strict=True))

    return map_of


def _enum(kind: EnumDescriptor) -> Convert:
    if kind.full_name == f"{_KNOWN}NullValue":
        return lambda _: None
    # Where two names have one number, the first one is written.
    names: dict[int, str] = {number: value.name for number, value in kind.values_by_number.items()}
    return lambda number: names.get(number, number)


def _float(number: float) -> Any:
    return ToShortestFloat(number) if isfinite(number) else _not_finite(number)


def _double(number: float) -> Any:
    return number if isfinite(number) else _not_finite(number)


def _not_finite(number: float) -> str:
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"


# Bytes stay: the JSON encoder writes them as base64, the way this mapping wants.
_SCALARS: dict[int, Convert] = {
    FieldDescriptor.CPPTYPE_INT64: str,
    FieldDescriptor.CPPTYPE_UINT64: str,
    FieldDescriptor.CPPTYPE_FLOAT: _float,
    FieldDescriptor.CPPTYPE_DOUBLE: _double,
}
