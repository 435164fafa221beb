"""A few fields of many JSON values: found while the parser checks the rest, of which nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

CHUNK_RECORDS = 256
"""One value of an unusual shape has its whole chunk looked at value by value."""

_NOTHING = msgspec.Raw()
_EMPTY = b"{}"


class Finder:
    """Finds the bytes of the fields at `paths`, each a tuple of names, in values that are one JSON object.

    The paths become one struct, nested as they are, whose ends are the parser's raw bytes: one pass a value, and
    no object for what is not asked for. Where a value has a name twice, the last one counts.
    """

    def __init__(self, paths: Sequence[tuple[str, ...]]) -> None:
        self._paths = paths
        self._places = [tuple(map(_attribute, path)) for path in paths]
        # The end of a path is raw bytes, so that it cannot be on the way to another end.
        ways = {path[:steps] for path in paths for steps in range(1, len(path))}
        self._decode = None if ways & set(paths) else msgspec.json.Decoder(_struct(paths)).decode

    def columns(self, values: Sequence[bytes], chunk: int = CHUNK_RECORDS) -> list[list[bytes]]:
        """For each path what each value has there, `b""` where it has nothing or is no JSON object."""
        found: list[list[bytes]] = [[] for _ in self._paths]
        for start in range(0, len(values), chunk):
            some = values[start : start + chunk]
            try:
                parts = self._together(some)
            except (msgspec.DecodeError, RecursionError):
                alone = len(some) == 1
                parts = [[_bytes_at(some[0], path)] for path in self._paths] if alone else self.columns(some, 1)
            for column, part in zip(found, parts, strict=True):
                column.extend(part)
        return found

    def _together(self, values: Sequence[bytes]) -> list[list[bytes]]:
        if self._decode is None:
            return [[_bytes_at(value, path) for value in values] for path in self._paths]
        objects = list(map(self._decode, [value or _EMPTY for value in values]))
        return [list(map(bytes, _column(objects, place))) for place in self._places]


def _attribute(name: str) -> str:
    return f"f{name.encode().hex()}"


def _struct(paths: Sequence[tuple[str, ...]]) -> type[msgspec.Struct]:
    rests: dict[str, list[tuple[str, ...]]] = {}
    for name, *rest in paths:
        rests.setdefault(name, []).append(tuple(rest))
    fields: list[tuple[str, Any, Any]] = [
        (_attribute(name), *((msgspec.Raw, _NOTHING) if () in inner else (_struct(inner) | None, None)))
        for name, inner in rests.items()
    ]
    return msgspec.defstruct("Fields", fields, rename={_attribute(name): name for name in rests}, gc=False)


def _column(objects: Sequence[Any], place: tuple[str, ...]) -> Sequence[Any]:
    for step in place[:-1]:
        get = attrgetter(step)
        objects = [None if each is None else get(each) for each in objects]
    get = attrgetter(place[-1])
    if len(place) == 1:
        return list(map(get, objects))
    return [_NOTHING if each is None else get(each) for each in objects]


def _bytes_at(value: bytes, path: tuple[str, ...]) -> bytes:
    """The same for one value of any shape, a level at a time."""
    for name in path:
        try:
            value = bytes(getattr(_level(name)(value), _attribute(name)))
        except (msgspec.DecodeError, RecursionError):
            return b""
    return value


@lru_cache(maxsize=1024)
def _level(name: str) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(_struct([(name,)])).decode
