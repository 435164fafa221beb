"""JSON Schemas, compiled, with what they refer to; nothing is ever fetched."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import msgspec

from sinkcore.schemas import Schema, SchemaError
from sinkcore.schemas.jsonparts import check_size

_decode = msgspec.json.Decoder().decode
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
        check_size(_decode(schema.text))
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
        check_size(known[reference.name])
        _collect(reference.schema, known)
