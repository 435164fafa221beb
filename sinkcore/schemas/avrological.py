"""Avro's logical types: which of them a reader of the file is told of, and which numbers they can hold."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import Any

PRECISION_MAX = 1_000_000
_YEAR_1_S, _YEAR_9999_S, _DAY_S = -62_135_596_800, 253_402_300_799, 86_400


def _from_year_1(per_s: int) -> tuple[int, int]:
    return _YEAR_1_S * per_s, _YEAR_9999_S * per_s + per_s - 1


_RANGES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("int", "date"): (_YEAR_1_S // _DAY_S, _YEAR_9999_S // _DAY_S),
    ("int", "time-millis"): (0, _DAY_S * 1_000 - 1),
    ("long", "time-micros"): (0, _DAY_S * 1_000_000 - 1),
    **{
        ("long", f"{prefix}timestamp-{unit}"): _from_year_1(per_s)
        for prefix in ("", "local-")
        for unit, per_s in (("millis", 1_000), ("micros", 1_000_000))
    },
}
"""The years 1 to 9999, and the hours of a day: a reader that makes dates of numbers can make none of others, and
gives up the whole file. Nanoseconds in 64 bits cannot leave the years 1677 to 2262."""


def range_of(type_: str, logical: Mapping[str, Any]) -> tuple[int, int] | None:
    """The least and the greatest number that a logical type holds; None where any will do."""
    return _RANGES.get((type_, str(logical.get("logicalType")))) if logical else None


def logical_of(text: Mapping[str, Any], type_: str, size: int = 0) -> dict[str, Any]:
    """What a reader is told of a type's logical type: as the schema says it, or nothing.

    Of a decimal that cannot be, nothing is said, for some readers give up there. Nor is it of a `uuid` of text:
    some make an object of each, and give up where one is none; and text is what it is without that too.
    Source: the Avro specification, "Logical Types": one that is not valid is ignored.
    """
    name = text.get("logicalType")
    if not isinstance(name, str) or (name, type_) == ("uuid", "string"):
        return {}
    if name != "decimal":
        return {"logicalType": name}
    precision, scale = text.get("precision"), text.get("scale", 0)
    if type_ not in ("bytes", "fixed") or type(precision) is not int or type(scale) is not int:
        return {}
    most = PRECISION_MAX if type_ == "bytes" else int((8 * size - 1) * log10(2)) if size else 0
    if not 0 < precision <= most or not 0 <= scale <= precision:
        return {}
    return {"logicalType": name, "precision": precision, "scale": scale}
