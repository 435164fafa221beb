"""Events with facts, through the standard library."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

_log = logging.getLogger("sinkcore")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def event(name: str, level: int = logging.INFO, **facts: Any) -> None:
    """One line is logged: the event's name, then its facts as one JSON object.

    The facts are also the log record's attributes (`extra`), which OpenTelemetry sends as custom dimensions.
    Facts never hold a record's value or key, nor a secret.

    Source: the Functions worker for Python forwards a record's formatted message to the host and drops its
    other attributes (azure-functions-python-worker issues 694, 788 and 1681), so the facts must be in it.
    """
    if _log.isEnabledFor(level):
        # `extra` must not name an attribute that a log record has already.
        _log.log(level, "%s %s", name, _encode(facts).decode(), extra={"event": name, "facts": facts})


def range_facts(partition: int, next_offset: int, end_offset: int) -> dict[str, int]:
    """The facts of an event about the offsets `[next_offset, end_offset)` of a topic-partition."""
    return {"partition": partition, "next_offset": next_offset, "end_offset": end_offset}
