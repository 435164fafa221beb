"""`/local/...`: what only this double has. Tests and people look here; production code never does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool

from localrunner.adx.errors import KustoError, of_status
from localrunner.adx.exchange import BODY_MAX_BYTES, Endpoint, Exchange, inflated
from localrunner.adx.mgmt import Role
from localrunner.adx.observer import Observer
from localrunner.adx.store import Store

_BATCHES_MAX = 10_000


def endpoints(store: Store, observer: Observer, role: Role) -> Iterator[tuple[str, str, Endpoint]]:
    """Path, method and function of each page that the endpoint `role` has."""

    async def health(_asked: Exchange) -> bytes:
        return msgspec.json.encode({"status": "ok", "role": role.name.lower()})

    async def sealed(asked: Exchange) -> bytes:
        return msgspec.json.encode(await run_in_threadpool(batches, store, _after(asked)))

    async def repeated(_asked: Exchange) -> bytes:
        return msgspec.json.encode(await run_in_threadpool(repeats, store))

    async def requests(asked: Exchange) -> bytes:
        return msgspec.json.encode({"requests": observer.requests.after(_after(asked))})

    async def counters(_asked: Exchange) -> bytes:
        return msgspec.json.encode({"counters": observer.counters.all()})

    async def listed(_asked: Exchange) -> bytes:
        return msgspec.json.encode({"faults": observer.faults.listed()})

    async def added(asked: Exchange) -> bytes:
        try:
            wanted = json.loads(inflated(asked.request, asked.body, BODY_MAX_BYTES))
        except (ValueError, RecursionError):
            raise KustoError("The body is not JSON") from None
        return msgspec.json.encode({"faults": [fault.as_dict() for fault in observer.faults.add(wanted)]})

    async def cleared(asked: Exchange) -> bytes:
        number = asked.request.path_params.get("number")
        removed = observer.faults.clear(number)
        if number is not None and not removed:
            raise of_status(404, f"There is no fault {number}")
        return msgspec.json.encode({"removed": removed})

    yield "/local/health", "GET", health
    if role is Role.DM:
        yield "/local/batches", "GET", sealed
        yield "/local/repeats", "GET", repeated
        yield "/local/requests", "GET", requests
        yield "/local/counters", "GET", counters
        yield "/local/faults", "GET", listed
        yield "/local/faults", "POST", added
        yield "/local/faults", "DELETE", cleared
        yield "/local/faults/{number:int}", "DELETE", cleared


def _after(asked: Exchange) -> int:
    text = asked.request.query_params.get("after", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise KustoError("'after' is the number of an entry")
    return int(text)


def batches(store: Store, after: int) -> dict[str, Any]:
    """The sealed batches with a number above `after`, oldest first, at most 10,000 of them."""
    names = (
        "number",
        "database",
        "table",
        "blobs",
        "failed_blobs",
        "rows",
        "raw_bytes",
        "seal_reason",
        "outcome",
        "opened_at",
        "sealed_at",
        "committed_at",
        "extent_id",
    )
    with store.reading() as cursor:
        rows = cursor.execute(
            'SELECT number, "database", table_name, blobs, failed_blobs, rows, raw_bytes, seal_reason, outcome,'
            " opened_at, sealed_at, committed_at, extent_id FROM meta.batches WHERE number > ?"
            " ORDER BY number LIMIT ?",
            [after, _BATCHES_MAX],
        ).fetchall()
    return {"batches": [dict(zip(names, row, strict=True)) for row in rows]}


def repeats(store: Store) -> dict[str, Any]:
    """By a blob's path: how often its rows were repeated because one message was ingested more than once."""
    with store.reading() as cursor:
        rows = cursor.execute(
            "SELECT path, sum(times - 1)::BIGINT FROM (SELECT path, count(*) AS times FROM meta.ingested"
            " GROUP BY message_id, path) WHERE times > 1 GROUP BY path ORDER BY path"
        ).fetchall()
    return {"repeats": dict(rows)}
