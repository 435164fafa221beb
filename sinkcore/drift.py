"""Schema drift is visible: which schemas, and which top-level names, a route's records have had in this worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from sinkcore.encode.framed import FRAME_BYTES
from sinkcore.records import Slice, utf8_text
from sinkcore.routes import Route
from sinkcore.schemas import Schemas
from sinkcore.telemetry import event

SEEN_MAX = 100
"""Sets of names of one route; behind a producer whose names are data, every record has another one."""
NAMES_MAX = 100
NAME_MAX_CHARACTERS = 64
LOOKED_AT_MAX_BYTES = 1 << 20

_parser = json.JSONDecoder()
_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Drift:
    """What a worker has said of each route's records; `schema_seen` says each thing once."""

    _seen: dict[_Key, set[Any]] = field(default_factory=dict)

    def look(self, route: Route, slices: Sequence[Slice], schemas: Schemas | None) -> None:
        """The schemas of a batch's records, or the names of the first one, are logged where they are new."""
        seen = self._seen.setdefault((route.topic, route.db, route.table, str(route.when)), set())
        if route.framing == "registry":
            self._look_at_ids(route, slices, schemas, seen)
        elif route.lane.fields and len(seen) < SEEN_MAX:
            value = next(filter(None, chain.from_iterable(piece.values for piece in slices)), b"")
            names = names_of(value)
            if names and hash(frozenset(names)) not in seen:
                seen.add(hash(frozenset(names)))
                shown = [utf8_text(name)[:NAME_MAX_CHARACTERS] for name in names[:NAMES_MAX]]
                event("schema_seen", **_route(route), names=shown, names_left_out=len(names) - len(shown))

    def _look_at_ids(self, route: Route, slices: Sequence[Slice], schemas: Schemas | None, seen: set[Any]) -> None:
        heads = {value[:FRAME_BYTES] for piece in slices for value in piece.values}
        for head in sorted(heads - seen):
            if len(head) < FRAME_BYTES or head[0] != 0 or schemas is None:
                continue
            # The encoder has asked for it before, so that this is no question.
            schema = schemas.schema(schema_id := int.from_bytes(head[1:], "big"))
            if schema is not None:
                seen.add(head)
                event("schema_seen", **_route(route), schema_id=schema_id, kind=schema.kind)


def names_of(value: bytes) -> list[str]:
    """The top-level names of the first object in a JSON value, in their order; none where there is no object."""
    if len(value) > LOOKED_AT_MAX_BYTES:
        return []
    try:
        found, _ = _parser.raw_decode(value.decode().lstrip("[ \t\r\n"))
    except (ValueError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []


def _route(route: Route) -> dict[str, Any]:
    return {"topic": route.topic, "db": route.db, "table": route.table}
