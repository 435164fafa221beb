"""Which route takes each record of a batch, and to which table: the first that matches, and exactly one."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from sinkcore.conditions import TEXT, Field, Header, Source, canonical_number, sources_of
from sinkcore.encode.jsoncheck import decoder_of, object_fault
from sinkcore.encode.jsonseveral import objects_in
from sinkcore.encode.rows import Fault
from sinkcore.fields import Finder
from sinkcore.records import Refused, Slice, columns_of, record_of
from sinkcore.routes import Route

if TYPE_CHECKING:
    import azure.functions as func

ROUTERS_KEPT = 256
DECISIONS_KEPT = 4096
REMEMBERED_MAX_BYTES = 1024
"""Most topics have few values of the fields that they are routed by; longer ones are decided upon each time."""

_Said = tuple[bytes | str | None, ...]
"""What a record says, in the order of what is asked: JSON for a field, base64 for a header; else None or b""."""


@dataclass(frozen=True, slots=True)
class Part:
    """The records of a batch that go to one table by one route. `route` has the table's name in it.

    `digest` tells routes apart by what leads records to them, and outlives the settings: `digest_of`.
    """

    route: Route
    digest: str
    slices: list[Slice]


@dataclass(frozen=True, slots=True)
class Routed:
    """Where each record of a batch goes: to a part or to the dead letters; or nowhere, as a skipped tombstone."""

    parts: list[Part]
    refused: list[tuple[Route | None, Refused]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _End:
    """What can become of a record: it goes to `route`, or is refused for `fault`."""

    route: Route | None
    fault: Fault | None = None
    digest: str = ""


_NO_ROUTE = _End(None, Fault("no_route", "no route's when takes it"))


@lru_cache(maxsize=ROUTERS_KEPT)
def router_of(routes: tuple[Route, ...]) -> Router:
    """The router of a topic's routes, made once."""
    return Router(routes)


class Router:
    """The routes of one topic, in the order in which they are tried."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes = routes
        asked = dict.fromkeys(source for route in routes for source in route.asks)
        self._fields = [source for source in asked if isinstance(source, Field)]
        self._headers = [source for source in asked if isinstance(source, Header)]
        self._sources: list[Source] = [*self._fields, *self._headers]
        self._finder = Finder([source.path for source in self._fields])
        # Whoever looks at fields decides what a value without any is.
        self._looking = next((r for r in routes if any(isinstance(s, Field) for s in r.asks)), None)
        self._by_table = [_by_table(routes[: number + 1]) for number in range(len(routes))]
        self._ends = [end for by_table in self._by_table for end in by_table.values()]
        self._remembered = lru_cache(maxsize=DECISIONS_KEPT)(self._decide)

    def split(self, slices: Sequence[Slice], record_max_bytes: int) -> Routed:
        """Every record is in one part, refused, or a tombstone to skip; parts are in the order of routes."""
        if not self._sources:
            return Routed([Part(self._routes[0], self._ends[0].digest, list(slices))])
        found: dict[_End, list[Slice]] = {}
        for piece in slices:
            for end, same in _by_end(piece, self._ends_for(piece, record_max_bytes)):
                found.setdefault(end, []).append(same)
        routed = Routed([])
        for end in (*self._ends, _NO_ROUTE):
            pieces = found.get(end, [])
            if end.fault is not None:
                routed.refused.extend(self._refused(end, pieces, record_max_bytes))
            elif pieces and end.route is not None:
                routed.parts.append(Part(end.route, end.digest, pieces))
        return routed

    def leading_to(self, digest: str, db: str, table: str) -> Route | None:
        """The route of that digest, if it still leads there."""
        routes = (end.route for end in self._ends if end.digest == digest and end.route is not None)
        return next((route for route in routes if (route.db, route.table) == (db, table)), None)

    def _ends_for(self, piece: Slice, record_max_bytes: int) -> list[_End]:
        """For each record what becomes of it, as far as the routes say."""
        columns: list[Sequence[bytes | str | None]] = []
        if self._fields:
            columns += self._finder.columns(_bearable(piece.values, record_max_bytes))
        if self._headers:
            columns += _headers(piece.events, [header.name for header in self._headers])
        longest = max(max(map(len, filter(None, column)), default=0) for column in columns)
        decide = self._decide if longest > REMEMBERED_MAX_BYTES else self._remembered
        return list(map(decide, zip(*columns, strict=True)))

    def _decide(self, said: _Said) -> _End:
        by_source = dict(zip(self._sources, said, strict=True))
        for route, by_table in zip(self._routes, self._by_table, strict=True):
            if route.when is None or _canonical(by_source[route.when.source]) == route.when.equals:
                table = _table(route, by_source)
                return by_table[table if table in by_table else ""]
        return _NO_ROUTE

    def _refused(
        self, end: _End, pieces: list[Slice], record_max_bytes: int
    ) -> Iterator[tuple[Route | None, Refused]]:
        """The records as dead letters, for the reason that tells most; tombstones that may be skipped are not."""
        for piece in pieces:
            for value, event in zip(piece.values, piece.events, strict=True):
                fault = self._fault(end, value, record_max_bytes)
                if fault is not None:
                    yield end.route, Refused(record_of(event), fault.reason, fault.detail)

    def _fault(self, end: _End, value: bytes, record_max_bytes: int) -> Fault | None:
        route = end.route or self._looking
        if not value and route is not None and route.tombstones != "row":
            return None if route.tombstones == "skip" else Fault("tombstone", "a value of 0 bytes")
        if not value or self._looking is None:
            return end.fault
        if len(value) > record_max_bytes:
            return Fault("too_large", f"{len(value)} bytes; at most {record_max_bytes}")
        return _json_fault(value, self._looking.format) or end.fault


def digest_of(routes: Sequence[Route]) -> str:
    """What tells the last of these routes from another one: which records come to it past the others, which it
    takes, where they go, and how they are read. `tables` is no part of it: one more changes nothing for the rest.
    """
    last = routes[-1]
    told = ([route.when for route in routes], last.db, last.table, last.format, last.decode, last.schema)
    return sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _by_table(routes: Sequence[Route]) -> dict[str, _End]:
    """Where the last of these can lead, by the table's name; under "" what becomes of what it may not lead to."""
    route, digest = routes[-1], digest_of(routes)
    ends = {table: _End(replace(route, table=table), None, digest) for table in route.leads_to}
    if sources_of(route.template):
        ends[""] = _End(route, Fault("table_not_allowed", "what table becomes is not in the route's tables"))
    return ends


def _by_end(piece: Slice, ends: list[_End]) -> list[tuple[_End, Slice]]:
    """The slice by the ends of its records; as it is where they have one."""
    at: dict[_End, list[int]] = {end: [] for end in dict.fromkeys(ends)}
    if len(at) == 1:
        return [(ends[0], piece)]
    for index, end in enumerate(ends):
        at[end].append(index)
    found = []
    for end, same in at.items():
        offsets, values = [piece.offsets[i] for i in same], [piece.values[i] for i in same]
        found.append((end, Slice(piece.partition, offsets, values, [piece.events[i] for i in same])))
    return found


def _bearable(values: Sequence[bytes], record_max_bytes: int) -> Sequence[bytes]:
    """The values, without those that no route would take."""
    if max(map(len, values), default=0) <= record_max_bytes:
        return values
    return [value if len(value) <= record_max_bytes else b"" for value in values]


def _headers(events: Sequence[func.KafkaEvent], names: Sequence[str]) -> list[list[str | None]]:
    """For each name what the last header of that name is in each record, in base64."""
    last = [
        {header["Key"]: header["Value"] for header in headers or ()}
        for headers in map(columns_of(events).headers, events)
    ]
    return [[each.get(name) for each in last] for name in names]


def _canonical(said: bytes | str | None) -> str | None:
    """One form for whatever is equal; None for nothing, and for what equals nothing."""
    if said is None or said == b"":
        return None
    text = _text(said)
    if text is not None:
        return TEXT + text
    if isinstance(said, str) or said[:1] in b'{["':
        return None
    return said.decode() if said in (b"true", b"false", b"null") else canonical_number(said.decode())


def _text(said: bytes | str) -> str | None:
    """The text that a header or a field is; None where it is none."""
    try:
        if isinstance(said, str):
            return b64decode(said).decode()
        return _string(said) if said[:1] == b'"' else None
    except (ValueError, msgspec.DecodeError):
        return None


_string: Callable[[bytes], str] = msgspec.json.Decoder(str).decode


def _table(route: Route, by_source: dict[Source, bytes | str | None]) -> str:
    """What the route's table becomes; "" where the record does not say it."""
    parts = [part if isinstance(part, str) else _written(by_source[part]) for part in route.template]
    known = [part for part in parts if part is not None]
    return "".join(known) if len(known) == len(parts) else ""


def _written(said: bytes | str | None) -> str | None:
    """A text, or what a number, true or false are written as."""
    if said is None or said == b"":
        return None
    text = _text(said)
    return said.decode() if text is None and isinstance(said, bytes) and said[:1] not in b'{["n' else text


def _json_fault(value: bytes, format_: str) -> Fault | None:
    """Why a value is not what its format wants, and so has no fields."""
    decode = decoder_of(None)
    if format_ == "json":
        return object_fault(value, decode)
    found = objects_in(value, decode)
    return found if isinstance(found, Fault) else None
