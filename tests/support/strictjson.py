"""The second opinion: RFC 8259 by the standard library's parser, made strict. It shares no code with msgspec.

Where `json.loads` is lax, and what is done about it here:
1. it accepts NaN, Infinity and -Infinity: `parse_constant` refuses them;
2. it guesses UTF-16 and UTF-32 and swallows a byte order mark: the bytes are decoded as UTF-8 first, strictly;
3. it makes half characters of escaped surrogates without a partner: whatever was parsed must encode to UTF-8.
Where it is too strict: whole numbers of more than 4,300 digits. Numbers are kept as text, which also lets every
digit be compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A number as it was written: `1.0`, `1` and `1e0` are three."""

    text: str


class NotJsonError(ValueError):
    """The bytes are not what this parser takes for one JSON text."""


def parse(data: bytes) -> Any:
    """The value of `data`, objects as lists of pairs, so that order and repeated names are part of it."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse,
            object_pairs_hook=_Pairs,
        )
        repr_of(value).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(type(error))) from error
    return value


def is_object(value: Any) -> bool:
    """Whether what `parse` returned was an object."""
    return isinstance(value, _Pairs)


def repr_of(value: Any) -> str:
    """All text in a parsed value, one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, _Pairs):
        return "".join(name + repr_of(member) for name, member in value)
    if isinstance(value, list):
        return "".join(map(repr_of, value))
    return ""


class _Pairs(list[tuple[str, Any]]):
    """The members of an object."""


def _refuse(name: str) -> Any:
    raise NotJsonError(name)
