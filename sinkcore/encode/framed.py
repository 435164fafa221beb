"""Values whose schema a registry's frame names, or the route: what each schema comes to, and its rows.

Source: Confluent's wire format: a zero, the schema's id in four bytes, then the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Generic, ParamSpec, TypeVar, cast

from sinkcore.encode.rows import Batch, Fault, Rows
from sinkcore.schemas import Schema, SchemaError

FRAME_BYTES = 5
_SCHEMAS_KEPT = 1024

P = ParamSpec("P")
T = TypeVar("T")


def remembered(make: Callable[P, T | Fault]) -> Callable[P, T | Fault]:
    """What `make` makes of a schema, made once; or why its records are refused, where it raises a SchemaError."""

    @lru_cache(maxsize=_SCHEMAS_KEPT)
    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T | Fault:
        try:
            return make(*args, **kwargs)
        except SchemaError as error:
            return Fault("decode_failed", f"its schema cannot be used: {error}")
        except RecursionError:
            return Fault("decode_failed", "its schema cannot be used: it is nested too deep")

    return cast(Callable[P, T | Fault], made)


class Framed(Generic[T]):
    """The schemas of one batch, each of which `use` makes something of, or a Fault."""

    def __init__(self, batch: Batch, kinds: tuple[str, ...], use: Callable[[Schema], T | Fault]) -> None:
        self._batch = batch
        self._kinds = kinds
        self._use = use
        self._known: dict[bytes, T | Fault] = {}

    def parts(self, rows: Rows) -> Iterator[tuple[T, Rows]]:
        """What each schema comes to, with its rows, their values without frames. Those of a Fault are refused."""
        own = self._batch.route.schema
        if own is not None:
            from sinkcore.schemas.files import read_own

            yield from self._part(self._use(read_own(own)), rows)
            return
        for head, part in rows.by([value[:FRAME_BYTES] for value in rows.values]):
            yield from self._part(self.of(head), part.with_values([value[FRAME_BYTES:] for value in part.values]))

    def of(self, head: bytes) -> T | Fault:
        """What the schema comes to that the frame `head` names."""
        if head not in self._known:
            schema = self._schema(head)
            self._known[head] = schema if isinstance(schema, Fault) else self._use(schema)
        return self._known[head]

    def _part(self, found: T | Fault, rows: Rows) -> Iterator[tuple[T, Rows]]:
        if isinstance(found, Fault):
            self._batch.sieve.without(rows, [found] * len(rows.values))
        else:
            yield found, rows

    def _schema(self, head: bytes) -> Schema | Fault:
        if len(head) < FRAME_BYTES:
            return Fault("decode_failed", f"{len(head)} bytes; a registry's frame alone has {FRAME_BYTES}")
        if head[0] != 0:
            return Fault("decode_failed", "the first byte is not the 0 of a registry's frame")
        assert self._batch.schemas is not None, "settings want a registry for such routes"
        schema_id = int.from_bytes(head[1:], "big")
        schema = self._batch.schemas.schema(schema_id)
        if schema is None:
            return Fault("unknown_schema", f"the registry has no schema {schema_id}")
        if schema.kind not in self._kinds:
            kinds = ", ".join(self._kinds)
            return Fault("decode_failed", f"schema {schema_id} is {schema.kind}; this format takes {kinds}")
        return schema
