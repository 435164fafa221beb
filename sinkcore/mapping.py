"""The text of `SINK_TOPICS_MAPPING` becomes entries, whether it is JSON or in the connector's syntax."""

from __future__ import annotations

import json
import re
from typing import Any

from sinkcore.conditions import Number
from sinkcore.declared import UnusableError, shown

SETTING = "SINK_TOPICS_MAPPING"
MAPPING_MAX_CHARACTERS = 131_072  # Linux takes no longer environment variable
MAPPING_MAX_DEPTH = 8
ROUTES_MAX = 1_000

# A bracket, or a string in either kind of quotes; also one that never ends, so that no character is read twice.
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|[\[\]{}]""", re.DOTALL)
_ESCAPE_OR_QUOTE = re.compile(r'\\.|"', re.DOTALL)


def read_mapping(value: str) -> list[Any]:
    """The entries of `SINK_TOPICS_MAPPING`, from JSON or from the connector's syntax with single quotes.

    Single-quoted strings become JSON's own and the rest is left to the JSON parser, so that there is one
    grammar and nothing is evaluated. Numbers come back as their text, as the connector takes them.

    Raises:
        UnusableError: it is too long, too deep, not JSON, or no list of routes.
    """
    if len(value) > MAPPING_MAX_CHARACTERS:
        raise UnusableError(f"it has {len(value)} characters", f"keep it to {MAPPING_MAX_CHARACTERS}")
    try:
        entries = json.loads(
            _as_json(value),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repeats,
        )
    except json.JSONDecodeError as error:
        fix = r"check quotes and commas (inside single quotes an apostrophe is written \')"
        raise UnusableError(f"it is not JSON: {error.msg.lower()} near character {error.pos + 1}", fix) from None
    if not isinstance(entries, list):
        raise UnusableError("it is not a list", "put [ and ] around the routes")
    if not 1 <= len(entries) <= ROUTES_MAX:
        raise UnusableError(f"it has {len(entries)} routes", f"give 1 to {ROUTES_MAX}")
    return entries


def _as_json(value: str) -> str:
    depth = 0

    def convert(match: re.Match[str]) -> str:
        nonlocal depth
        token = match[0]
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        if depth > MAPPING_MAX_DEPTH:
            raise UnusableError(f"it is nested deeper than {MAPPING_MAX_DEPTH}", "write a list of routes")
        if token[0] != "'" or token[-1] != "'" or len(token) < 2:
            return token
        inner = _ESCAPE_OR_QUOTE.sub(lambda part: {"\\'": "'", '"': '\\"'}.get(part[0], part[0]), token[1:-1])
        return f'"{inner}"'

    return _TOKEN.sub(convert, value)


def _refuse_constant(name: str) -> None:
    raise UnusableError(f"it holds {name}, which is not JSON", "remove it")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for name, value in pairs:
        if name in entry:
            raise UnusableError(f"one object has {shown(name)} twice", "keep one of the two")
        entry[name] = value
    return entry
