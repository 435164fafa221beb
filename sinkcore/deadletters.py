"""Refused records, whole, as gzip JSON Lines: what a person needs to mend them and to send them again."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from isal import igzip

from sinkcore.encode import Body
from sinkcore.records import Refused
from sinkcore.routes import Route

NAME = ".jsonl.gz"
_COMPRESSION_LEVEL = 2


class DeadLetter(msgspec.Struct):
    """One line, as the contract's section 4 has it: bytes are base64 there. `db` and `table` are null without a
    route."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    reason: str
    detail: str
    db: str | None
    table: str | None
    at: str


def encode_dead_letters(refused: Sequence[tuple[Route | None, Refused]], at_ms: int) -> Body:
    """One line a refused record."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = msgspec.json.Encoder().encode_lines([_letter(route, each, at) for route, each in refused])
    return Body(igzip.compress(lines, _COMPRESSION_LEVEL), len(lines), len(refused))


def dead_letters_in(data: bytes) -> list[DeadLetter]:
    """What `encode_dead_letters` made lines of."""
    return msgspec.json.Decoder(DeadLetter).decode_lines(gzip.decompress(data))


def _letter(route: Route | None, refused: Refused, at: str) -> DeadLetter:
    record = refused.record
    return DeadLetter(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp_ms,
        record.key,
        # A null value and an empty one reach the trigger alike; both are tombstones.
        record.value or None,
        record.headers,
        refused.reason,
        refused.detail,
        route.db if route else None,
        route.table if route else None,
        at,
    )
