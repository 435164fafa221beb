"""Ingestion mappings: JSON text to one source for each column.

Source: dataexplorer-docs, kusto/management/mappings.md, json-mapping.md, csv-mapping.md, avro-mapping.md,
parquet-mapping.md, orc-mapping.md, kusto/query/jsonpath.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from localrunner.adx.columns import Column
from localrunner.adx.errors import IngestionError

KINDS = frozenset({"csv", "json", "avro", "parquet", "orc"})

Path = tuple[str | int, ...]

# Transformation -> the kinds of mapping that have it, and whether it reads a field.
# Source: mappings.md, "Mapping transformations". The SDKs' GetPathElement is on no page.
_TREES = frozenset({"json", "parquet", "avro", "orc"})
_ALL = _TREES | {"csv"}
TRANSFORMS: dict[str, tuple[frozenset[str], bool]] = {
    "PropertyBagArrayToDictionary": (_TREES, True),
    "SourceLocation": (_ALL, False),
    "SourceLineNumber": (_ALL, False),
    "DateTimeFromUnixSeconds": (_ALL, True),
    "DateTimeFromUnixMilliseconds": (_ALL, True),
    "DateTimeFromUnixMicroseconds": (_ALL, True),
    "DateTimeFromUnixNanoseconds": (_ALL, True),
    "DropMappedFields": (_TREES, True),
    "BytesAsBase64": (frozenset({"avro"}), True),
}

# The words of an element, in any case. `ColumnName` and `ColumnType` are how Microsoft's Java client writes them.
_NAMES = ("column", "columnname", "name")
_TYPES = ("datatype", "columntype", "csldatatype", "storagedatatype")
_PLACES = ("path", "field", "ordinal", "constvalue")
_WORDS = frozenset({*_NAMES, *_TYPES, *_PLACES, "transform", "properties"})

_STEP = re.compile(r"\.?\[\s*'((?:[^'\\]|\\.)*)'\s*\]|\.?\[\s*\"((?:[^\"\\]|\\.)*)\"\s*\]|\[(\d+)\]|\.([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a column's value comes from: a path in the record, a field by number, or a constant.

    The empty path is the whole record. At most one of the three is set; none gives null, unless `transform`
    (a name of `transforms.KNOWN`) needs none.
    """

    column: str
    path: Path | None = None
    ordinal: int | None = None
    constant: str | None = None
    transform: str = ""


def parse(kind: str, text: str) -> tuple[Source, ...]:
    """The sources that the mapping names, in its order.

    Raises:
        IngestionError: BadRequest_InvalidMapping.
    """
    try:
        elements = json.loads(text)
    except ValueError as error:
        raise _invalid(f"it is not JSON: {error}") from None
    if not isinstance(elements, list) or not elements:
        raise _invalid("it is not a JSON list with at least one element")
    sources = tuple(_source(kind, element) for element in elements)
    if len({source.column for source in sources}) != len(sources):
        raise _invalid("a column occurs twice")
    return sources


def identity(kind: str, columns: tuple[Column, ...]) -> tuple[Source, ...]:
    """Every column from the field of its own name, or in CSV from the field in its place."""
    if kind == "csv":
        return tuple(Source(column.name, ordinal=index) for index, column in enumerate(columns))
    return tuple(Source(column.name, path=(column.name,)) for column in columns)


def _source(kind: str, element: Any) -> Source:
    if not isinstance(element, dict):
        raise _invalid("an element is not a JSON object")
    # Properties may be given by any case, and older mappings have them beside the column's name.
    flat = {str(name).lower(): value for name, value in element.items()}
    nested = flat.get("properties")
    if isinstance(nested, dict):
        flat |= {str(name).lower(): value for name, value in nested.items()}
    column = next((flat[name] for name in _NAMES if flat.get(name)), None)
    if not isinstance(column, str):
        raise _invalid("an element has no 'Column'")
    if unknown := sorted(flat.keys() - _WORDS):
        raise _invalid(f"'{unknown[0][:60]}' of column '{column}' is not known to this double")
    transform, reads = _transform(kind, column, flat.get("transform"))
    constant = flat.get("constvalue")
    places = [name for name in _PLACES if flat.get(name) not in (None, "")]
    if len(places) > 1:
        raise _invalid(f"column '{column}' has both '{places[0]}' and '{places[1]}'")
    if not reads:
        if places:
            raise _invalid(f"column '{column}' has '{places[0]}', which '{transform}' does not go with")
        return Source(column, transform=transform)
    if constant is not None:
        if transform:
            raise _invalid(f"column '{column}' has 'ConstValue', which '{transform}' does not go with")
        return Source(column, constant=str(constant))
    if kind == "csv":
        return Source(column, ordinal=_ordinal(column, flat.get("ordinal")), transform=transform)
    path, named = flat.get("path"), flat.get("field")
    if kind != "json" and isinstance(named, str) and named:
        path = named if named.startswith("$") else None
        if path is None:
            return Source(column, path=(named,), transform=transform)
    if not isinstance(path, str) or not path:
        raise _invalid(f"column '{column}' has neither 'Path' nor 'ConstValue'")
    if not path.startswith("$"):
        return Source(column, constant=path)
    return Source(column, path=parse_path(path), transform=transform)


def _transform(kind: str, column: str, value: Any) -> tuple[str, bool]:
    """The transformation by its own name, and whether it reads a field; without one there is a field to read."""
    if value in (None, "", "None"):
        return "", True
    # Names are compared without case, as are all other words of a mapping.
    found = {name.lower(): name for name in TRANSFORMS}.get(str(value).lower())
    if found is None:
        raise _invalid(f"transformation '{str(value)[:60]}' of column '{column}' is not known to this double")
    kinds, reads = TRANSFORMS[found]
    if kind not in kinds:
        raise _invalid(f"transformation '{found}' of column '{column}' is not available for {kind} mappings")
    return found, reads


def _ordinal(column: str, value: Any) -> int:
    try:
        ordinal = int(value)
    except (TypeError, ValueError):
        raise _invalid(f"column '{column}' has neither a numeric 'Ordinal' nor a 'ConstValue'") from None
    if ordinal < 0:
        raise _invalid(f"column '{column}' has the negative ordinal {ordinal}")
    return ordinal


def parse_path(text: str) -> Path:
    """The steps of a JSON path: names, and numbers for places in an array.

    Raises:
        IngestionError: it has a wildcard, a slice or anything else that Kusto's subset lacks.
    """
    steps: list[str | int] = []
    at = 1
    while at < len(text):
        found = _STEP.match(text, at)
        if not found:
            raise _invalid(f"path '{text}' cannot be read from '{text[at:]}' on")
        single, double, index, bare = found.groups()
        if index is not None:
            steps.append(int(index))
        elif bare is not None:
            if bare == "*":
                raise _invalid(f"path '{text}' has a wildcard")
            steps.append(bare)
        else:
            quoted = single if single is not None else double
            steps.append(re.sub(r"\\(.)", r"\1", quoted))
        at = found.end()
    return tuple(steps)


def _invalid(why: str) -> IngestionError:
    return IngestionError("BadRequest_InvalidMapping", f"The ingestion mapping cannot be used: {why}.")
