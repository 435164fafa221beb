"""How parts of a JSON Schema hold others: what would multiply must be known before it is tried."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

import msgspec

from sinkcore.schemas import Schema, SchemaError

_decode = msgspec.json.Decoder().decode
_PLACES_MAX = 1_000
_PARTS_MAX = 5_000
_FOR_THE_SAME_VALUE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}
_DEPENDS_ON_THE_WAY = {"$dynamicRef", "$recursiveRef"}


def check_size(whole: Any) -> None:
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
    """The places to which a part refers; the keyword alone where that depends on the way there."""
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
