"""A setting is declared once, as a dataclass field that holds its name, default, bounds and meaning; this file
reads such fields from text and collects what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

_Read = TypeVar("_Read")
NAME_SHOWN_MAX = 60  # characters of a name that somebody else wrote, in a fault
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


class UnusableError(Exception):
    """A value cannot be used: `fact` says why and `fix` what to do, neither with the value."""

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}; {fix}")
        self.fact = fact
        self.fix = fix


class Faults:
    """Everything that is wrong so far: one sentence for each fault, and the settings that have one."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.names: set[str] = set()

    def add(self, name: str, fact: str, fix: str) -> None:
        """The fault is on the list, as `NAME: fact; fix`."""
        self.sentences.append(f"{name}: {fact}; {fix}")
        self.names.add(name)

    def read(self, name: str, read: Callable[[str], _Read], value: str) -> _Read | None:
        """What `read` makes of the value of `name`; None, and a fault, if it cannot be used."""
        try:
            return read(value)
        except UnusableError as unusable:
            self.add(name, unusable.fact, unusable.fix)
            return None


@dataclass(frozen=True, slots=True)
class Setting:
    """One app setting. `default` and `allowed` are what the documentation says; `read` checks a value."""

    name: str
    default: str
    allowed: str
    meaning: str
    read: Callable[[str], object]
    secret: bool


def text(
    name: str,
    meaning: str,
    default: str | None = None,
    *,
    allowed: str = "text",
    read: Callable[[str], object] = str,
    secret: bool = False,
) -> Any:
    """A field for text. A secret is never shown and never trimmed.

    A default in angle brackets, and `required`, are words for people: the field is then empty until it is filled.
    """
    value = "" if default is not None and (default == "required" or default.startswith("<")) else default
    setting = Setting(name, (default or "none").strip("<>"), allowed, meaning, read, secret)
    return field(default=value, repr=not secret, metadata={"setting": setting})


def one_of(name: str, choices: tuple[str, ...], meaning: str, default: str | None = None) -> Any:
    """A field for one of a few words."""

    def read(value: str) -> str:
        if value not in choices:
            fix = f"set one of these ({nearest(value, choices)} is the nearest)"
            raise UnusableError(f"what it says is not one of {', '.join(choices)}", fix)
        return value

    return text(name, meaning, default, allowed=", ".join(f"`{choice}`" for choice in choices), read=read)


def number(name: str, default: int, least: int, most: int, meaning: str) -> Any:
    """A field for a whole number from `least` to `most`."""

    def read(value: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(value):
            raise UnusableError("what it says is not a whole number", f"set {least} to {most}")
        if not least <= int(value) <= most:
            raise UnusableError(f"{int(value)} is not within {least} to {most}", "set a number within these")
        return int(value)

    setting = Setting(name, str(default), f"{least} to {most}", meaning, read, secret=False)
    return field(default=default, metadata={"setting": setting})


def like(pattern: str, fact: str, fix: str) -> Callable[[str], str]:
    """A reader for what matches `pattern` as a whole."""

    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise UnusableError(fact, fix)
        return value

    return read


def declared(cls: type) -> dict[str, Setting]:
    """The settings that the fields of dataclass `cls` declare, by field name."""
    return {each.name: each.metadata["setting"] for each in fields(cls) if "setting" in each.metadata}


def read_declared(cls: type, values: Mapping[str, str], faults: Faults) -> dict[str, Any]:
    """The declared fields of `cls` that are set, by field name; one that cannot be used is a fault instead.

    An empty value is an unset one: portals and compose files leave such settings behind.
    """
    found: dict[str, Any] = {}
    for field_name, setting in declared(cls).items():
        value = values.get(setting.name, "")
        value = value if setting.secret else value.strip()
        if value and (read := faults.read(setting.name, setting.read, value)) is not None:
            found[field_name] = read
        elif not value and setting.default == "required":
            faults.add(setting.name, "it is not set", f"set it to {setting.allowed}")
    return found


def distance(one: str, other: str) -> int:
    """How many letters must be put in, left out or changed to turn `one` into `other`."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that takes the fewest changes of letters to reach, upper and lower case alike."""
    folded = name[:NAME_SHOWN_MAX].lower()
    return min(known, key=lambda other: distance(folded, other.lower()))


def shown(name: object) -> str:
    """A name that somebody else wrote, quoted, in ASCII and cut, so that it can stand in a fault."""
    whole = str(name)
    return json.dumps(whole if len(whole) <= NAME_SHOWN_MAX else whole[: NAME_SHOWN_MAX - 3] + "...")
