"""What a route asks of a record: a header or a JSON field, in its `when` and in the template of its `table`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sinkcore.declared import UnusableError, nearest, shown

PATH_MAX_STEPS = 16
TEXT = '"'
"""How the canonical form of a text begins; no other form begins so."""

_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?", re.ASCII)
_EXPONENT_MAX_DIGITS = 18
_PART = re.compile(r"\{((?:[^{}\\]|\\.)*)\}|[^{}]+|[{}]", re.DOTALL)
_STEP = re.compile(r"(?:[^.\\]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NOT_IN_A_STEP = re.compile('["\\\\\x00-\x1f\ud800-\udfff]')
_PLACEHOLDERS = "{topic}, {header:NAME} and {field:JSON.PATH}"


class Number(str):
    """A number in `SINK_TOPICS_MAPPING`, as it was written: most fields take it for text, `equals` does not."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Header:
    """A header by its name. Where a record has several of that name, the last one counts, as in Kafka's client."""

    name: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a value that is one JSON object, by the names that lead to it."""

    path: tuple[str, ...]


Source = Header | Field


@dataclass(frozen=True, slots=True)
class When:
    """A route takes only records that have `source` with a value whose canonical form is `equals`."""

    source: Source
    equals: str


def canonical_number(text: str) -> str | None:
    """One text for all ways to write a number, exactly: `1`, `1.0` and `10e-1` are `1e0`; None for no number.

    Also None for an exponent that no machine could count to.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", match[4] or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    if len(exponent) > _EXPONENT_MAX_DIGITS:
        return None
    kept = digits.rstrip("0")
    return f"{sign}{kept}e{int(exponent) - len(fraction) + len(digits) - len(kept)}"


def read_when(value: object) -> When:
    """The condition that `when` gives.

    Raises:
        UnusableError: it is none.
    """
    if not isinstance(value, dict):
        fix = 'write {"header": NAME, "equals": TEXT} or {"field": PATH, "equals": VALUE}'
        raise UnusableError("when is not an object", fix)
    for name in value:
        if name not in ("header", "field", "equals"):
            known = nearest(name, ("header", "field", "equals"))
            raise UnusableError(f"when has {shown(name)}, which it does not know", f"{known} is the nearest")
    if ("header" in value) == ("field" in value):
        raise UnusableError("when asks not for exactly one of header and field", "give one; more take more routes")
    if "equals" not in value:
        raise UnusableError("when has no equals", "say what the header or field must be")
    equals = value["equals"]
    if "header" not in value:
        return When(Field(read_path(value["field"])), _canonical(equals))
    if not isinstance(equals, str) or isinstance(equals, Number):
        raise UnusableError("equals is not text, as every header is", 'put it in quotes, as in "7" or "true"')
    return When(Header(_header(value["header"])), TEXT + equals)


def _canonical(equals: object) -> str:
    """What a field must be, in canonical form."""
    if isinstance(equals, Number):
        number = canonical_number(equals)
        if number is None:
            raise UnusableError("equals has an exponent that cannot be used", "give a smaller one")
        return number
    if isinstance(equals, str):
        return TEXT + equals
    if equals is None or isinstance(equals, bool):
        return {None: "null", True: "true", False: "false"}[equals]
    raise UnusableError("equals is an object or a list", "give a text, a number, true, false or null")


def _header(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise UnusableError("the name of a header is no text, or empty", "give the header's name")
    return name


def read_path(text: object) -> tuple[str, ...]:
    r"""The names in a path such as `a.b`; `\.` is a dot in a name, and likewise with other characters.

    Raises:
        UnusableError: it is no path.
    """
    if not isinstance(text, str) or not text:
        raise UnusableError("the path of a field is no text, or empty", "give names with dots between")
    bare = _ESCAPED.sub("", text)
    if "[" in bare or "]" in bare:
        fix = r"ask for a field of objects (\[ is a bracket in a name)"
        raise UnusableError("a field's path has a bracket, and elements of arrays cannot be asked for", fix)
    if "\\" in bare:
        raise UnusableError("a field's path ends in a backslash", "remove it")
    steps = [_ESCAPED.sub(r"\1", step) for step in _STEP.findall(text)]
    if len(steps) != bare.count(".") + 1:
        fact = "a field's path has a dot without a name beside it"
        raise UnusableError(fact, r"write a.b (\. is a dot in a name)")
    if steps[0] == "$" and len(steps) > 1:
        raise UnusableError("a field's path begins with $", "begin with the field's name: a.b, not $.a.b")
    if len(steps) > PATH_MAX_STEPS:
        raise UnusableError(f"a field's path has {len(steps)} names", f"keep it to {PATH_MAX_STEPS}")
    if any(map(_NOT_IN_A_STEP.search, steps)):
        fact = "a field's path has a quote, a backslash, a control character or half a character in a name"
        raise UnusableError(fact, "ask for another field")
    return tuple(steps)


def read_template(text: str) -> tuple[str | Source, ...]:
    """The parts of a `table`: text, and what a record says. `{topic}` stays as it is.

    Raises:
        UnusableError: what stands between braces is no placeholder.
    """
    parts: list[str | Source] = []
    for match in _PART.finditer(text):
        inside = match[1]
        kind, _, what = (inside or "").partition(":")
        if match[0] in ("{", "}"):
            raise UnusableError("table has a brace without its partner", f"use {_PLACEHOLDERS}")
        if inside is None or inside == "topic":
            parts.append(match[0])
        elif kind == "header":
            parts.append(Header(_header(what)))
        elif kind == "field":
            parts.append(Field(read_path(what)))
        else:
            raise UnusableError(f"table has {shown(match[0])}, which is no placeholder", f"use {_PLACEHOLDERS}")
    return tuple(parts)


def sources_of(template: tuple[str | Source, ...]) -> list[Source]:
    """What a record must say before its table is known."""
    return [part for part in template if not isinstance(part, str)]


def can_yield(template: tuple[str | Source, ...], name: str) -> bool:
    """Whether some record makes the template yield `name`."""
    pattern = "".join(re.sub(r"([*?[])", r"[\1]", part) if isinstance(part, str) else "*" for part in template)
    return fnmatchcase(name, pattern)
