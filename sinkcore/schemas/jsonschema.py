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
        _collect(schema, known)
        return jsonschema_rs.validator_for(_decode(schema.text), retriever=retrieve)
    except RecursionError:
        raise SchemaError("it is nested too deep") from None
    except (ValueError, TypeError, OverflowError, jsonschema_rs.ReferencingError) as error:
        # The library's text would quote the schema.
        raise SchemaError(f"it is no JSON Schema that can be compiled ({type(error).__name__})") from None


def _collect(schema: Schema, known: dict[str, Any]) -> None:
    for reference in schema.references:
        known[reference.name] = _decode(reference.schema.text)
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
                pending += leads_to[here]
            if len(leads_to) > _PLACES_MAX:
                return True
        TopologicalSorter(leads_to).prepare()
    except (LookupError, TypeError, ValueError, RecursionError):  # a CycleError is a ValueError
        return True
    return False


def _references_in(part: Any) -> Iterator[str]:
    """The places in the same schema to which a part of it refers."""
    if isinstance(part, dict):
        if "$dynamicRef" in part or "$recursiveRef" in part:
            raise LookupError("a reference whose place depends on the way to it")
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
