"""JSON Schemas, compiled, with what they refer to; nothing is ever fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

import jsonschema_rs
import msgspec

from sinkcore.schemas import Schema, SchemaError

_decode = msgspec.json.Decoder().decode
_PLACES_MAX = 1_000
_PARTS_MAX = 5_000
_FOR_THE_SAME_VALUE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}
_DEPENDS_ON_THE_WAY = {"$dynamicRef", "$recursiveRef"}
_UPWARDS = re.compile(r"^(?:\.{0,2}/)+")


def validator_of(schema: Schema) -> Any:
    """A validator of the schema's own draft, the newest one where it names none.

    Raises:
        SchemaError: it is no schema, or refers to what did not come with it.
    """
    known: dict[str, Any] = {}

    def retrieve(uri: str) -> Any:
        # The library makes a whole URI of a reference: by the schema's own one, where it has one.
        if uri in known:
            return known[uri]
        found = [name for name in known if f"/{uri}".endswith("/" + _UPWARDS.sub("", name).replace(" ", "%20"))]
        if not found:
            raise LookupError("not among the schema's references")
        return known[max(found, key=len)]

    try:
        _check_size(_decode(schema.text))
        _collect(schema, known)
        return jsonschema_rs.validator_for(_decode(schema.text), retriever=retrieve)
    except RecursionError:
        raise SchemaError("it is nested too deep") from None
    except (ValueError, TypeError, OverflowError, jsonschema_rs.ReferencingError) as error:
        # The library's text would quote the schema.
        raise SchemaError(f"it is no JSON Schema that can be compiled ({type(error).__name__})") from None


def _check_size(whole: Any) -> None:
    """Raises SchemaError where parts that hold others twice, which hold others twice, multiply beyond measure."""
    sizes: dict[str, int] = {}

    def size_of(place: str) -> int:
        """Parts by which one value is checked; within itself it is counted once."""
        if place not in sizes:
            sizes[place] = 1
            try:
                inner = list(_beside(_at(whole, place)))
            except (LookupError, TypeError, ValueError):
                return 1
            sizes[place] += sum(map(size_of, inner))
            if sizes[place] > _PARTS_MAX:
                raise SchemaError(f"it checks one value by more than {_PARTS_MAX} of its parts")
        return sizes[place]

    for place in {*_references_in(whole), "#"}:
        size_of(place)


def _beside(part: Any) -> Iterator[str]:
    """The places to which a part refers for the same value."""
    if not isinstance(part, dict):
        return
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        yield reference
    for name in _FOR_THE_SAME_VALUE & part.keys():
        inner = part[name]
        for each in inner if isinstance(inner, list) else [inner]:
            yield from _beside(each)


def _collect(schema: Schema, known: dict[str, Any]) -> None:
    for reference in schema.references:
        known[reference.name] = _decode(reference.schema.text)
        _check_size(known[reference.name])
        _collect(reference.schema, known)


def holds_itself(schema: Schema) -> bool:
    """Whether some part of the schema refers to what it stands in: then values may nest without end.

    A registry's references cannot lead in a circle, so each schema is looked at alone. Where that is not certain,
    the answer is yes.
    """
    if any(holds_itself(reference.schema) for reference in schema.references):
        return True
    whole = _decode(schema.text)
    leads_to: dict[str, set[str]] = {}
    pending = ["#"]
    try:
        while pending:
            here = pending.pop()
            if here not in leads_to:
                leads_to[here] = set(_references_in(_at(whole, here)))
                if any(map(_DEPENDS_ON_THE_WAY.__contains__, leads_to[here])):
                    return True
                pending += leads_to[here]
            if len(leads_to) > _PLACES_MAX:
                return True
        TopologicalSorter(leads_to).prepare()
    except (LookupError, TypeError, ValueError, RecursionError):  # a CycleError is a ValueError
        return True
    return False


def _references_in(part: Any) -> Iterator[str]:
    """The places in the same schema to which a part of it refers; a keyword where that depends on the way there."""
    if isinstance(part, dict):
        yield from _DEPENDS_ON_THE_WAY & part.keys()
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            yield reference
    if isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _references_in(inner)


def _at(whole: Any, pointer: str) -> Any:
    """Source: RFC 6901, "JSON Pointer"; an anchor is no pointer, and is not found."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        whole = whole[int(name)] if isinstance(whole, list) else whole[name]
    if not pointer.startswith("#/") and pointer != "#":
        raise LookupError("no pointer")
    return whole
