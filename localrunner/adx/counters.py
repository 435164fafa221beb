"""What has happened since the process started, for `/local/counters` and `/local/requests`."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter, deque
from typing import Any

REQUESTS_MAX = 10_000
_TEXT_MAX = 300

# A literal may hold a secret, or somebody's data, and so may what follows the `<|` of an inline ingestion.
LITERAL = re.compile(
    r"```.*?(?:```|\Z)|@\"(?:[^\"]|\"\")*(?:\"|\Z)|@'(?:[^']|'')*(?:'|\Z)"
    r"|\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)",
    re.DOTALL,
)


class Counters:
    """Named numbers that only grow; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """The number of that name is larger by `amount`."""
        with self._lock:
            self._values[name] += amount

    def all(self) -> dict[str, int]:
        """Every number, by name."""
        with self._lock:
            return dict(sorted(self._values.items()))


class RequestLog:
    """The last requests: what was asked and answered, without bodies, tokens, signatures or literals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[dict[str, Any]] = deque(maxlen=REQUESTS_MAX)
        self._numbers = itertools.count(1)

    def add(self, entry: dict[str, Any]) -> None:
        """The entry is in the log, under the next number."""
        with self._lock:
            self._entries.append({"number": next(self._numbers), **entry})

    def after(self, number: int) -> list[dict[str, Any]]:
        """The entries above `number`, oldest first."""
        with self._lock:
            return [entry for entry in self._entries if entry["number"] > number]


def shown(text: str) -> str:
    """The beginning of a command or query with `'...'` for every literal."""
    return LITERAL.sub("'...'", text.partition("<|")[0])[:_TEXT_MAX]
