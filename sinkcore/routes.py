"""Where a record goes: database, table, format and ingestion mapping."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of `SINK_TOPICS_MAPPING`, checked, with its defaults filled in.

    `topic` is an exact name, never `*`: a route for `*` is one Route for each topic that it takes.
    `mapping` None is ADX's identity mapping; `metadata` None adds no field to the rows.
    """

    topic: str
    db: str
    table: str
    format: str = "json"
    mapping: str | None = None
    metadata: str | None = None
    key: str = "utf8"
    tombstones: str = "skip"
    start: str = "earliest"
