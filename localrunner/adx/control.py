"""`/local/...`: what only this double has. Tests and people look here; production code never does."""

from __future__ import annotations

from typing import Any

from localrunner.adx.store import Store

_BATCHES_MAX = 10_000


def batches(store: Store, after: int) -> dict[str, Any]:
    """The sealed batches with a number above `after`, oldest first, at most 10,000 of them."""
    with store.reading() as cursor:
        rows = cursor.execute(
            'SELECT number, "database", table_name, blobs, failed_blobs, rows, raw_bytes, seal_reason, outcome,'
            " opened_at, sealed_at, committed_at, extent_id FROM meta.batches WHERE number > ?"
            " ORDER BY number LIMIT ?",
            [after, _BATCHES_MAX],
        ).fetchall()
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
    return {"batches": [dict(zip(names, row, strict=True)) for row in rows]}
