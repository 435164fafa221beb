"""Refused records, whole, as gzip JSON Lines: what a person needs to mend them and to send them again."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from isal import igzip

from sinkcore.encode import Body
from sinkcore.records import Refused
from sinkcore.routes import Route

NAME = ".jsonl.gz"
_COMPRESSION_LEVEL = 2


def encode_dead_letters(refused: Sequence[tuple[Route | None, Refused]], at_ms: int) -> Body:
    """One line a refused record, as the contract's section 4 has it; `db` and `table` are null without a route."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = b"".join(_line(route, letter, at) for route, letter in refused)
    return Body(igzip.compress(lines, _COMPRESSION_LEVEL), len(lines), len(refused))


def reasons_in(data: bytes) -> list[tuple[str, int]]:
    """Each reason in a blob of dead letters, with how many have it, the most frequent first."""
    lines = gzip.decompress(data).splitlines()
    return Counter(msgspec.json.decode(line, type=_Reason).reason for line in lines).most_common()


class _Reason(msgspec.Struct):
    reason: str


def _line(route: Route | None, letter: Refused, at: str) -> bytes:
    record = letter.record
    return (
        msgspec.json.encode(
            {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp_ms,
                "key": _base64(record.key),
                # A null value and an empty one reach the trigger alike; both are tombstones.
                "value": _base64(record.value or None),
                "headers": [[name, _base64(value)] for name, value in record.headers],
                "reason": letter.reason,
                "detail": letter.detail,
                "db": route.db if route else None,
                "table": route.table if route else None,
                "at": at,
            }
        )
        + b"\n"
    )


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()
