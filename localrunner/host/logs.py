"""What the host prints: one line an event, with level and category, filtered by host.json's `logLevel`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from localrunner.host.hostjson import LOG_LEVELS

_RANK: Final = {level: rank for rank, level in enumerate(LOG_LEVELS)}
KAFKA: Final = "Host.Triggers.Kafka"
TIMER: Final = "Host.Triggers.Timer"
SINGLETON: Final = "Host.Singleton"
HOST: Final = "Host.General"
WORKER: Final = "Worker"


class HostLog:
    """Prints what the levels let through; errors go to standard error, the rest to standard output.

    Source: the level of the longest category prefix counts, else that of `default`, else Information.
    """

    def __init__(self, levels: Mapping[str, str]) -> None:
        self._levels = levels
        self._printing = threading.Lock()

    def enabled(self, level: str, category: str) -> bool:
        """Whether a line of this level and category is printed."""
        name = category.lower()
        prefixes = [known for known in self._levels if name.startswith(known)]
        found = max(prefixes, key=len, default="default")
        return _RANK[level] >= _RANK[self._levels.get(found, "information")]

    def write(self, level: str, category: str, message: str) -> None:
        """One line on the screen, line breaks in `message` shown as ` | `."""
        if not self.enabled(level, category):
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = " | ".join(line.strip() for line in message.splitlines() if line.strip())
        stream = sys.stderr if level in ("error", "critical") else sys.stdout
        with self._printing:
            try:
                stream.write(f"{at} [{level.capitalize()}] {category}: {text}\n")
                stream.flush()
            except (OSError, ValueError):
                return  # nobody reads any more; the work goes on

    def debug(self, category: str, message: str) -> None:
        """A line of level Debug."""
        self.write("debug", category, message)

    def info(self, category: str, message: str) -> None:
        """A line of level Information."""
        self.write("information", category, message)

    def warning(self, category: str, message: str) -> None:
        """A line of level Warning."""
        self.write("warning", category, message)

    def error(self, category: str, message: str) -> None:
        """A line of level Error."""
        self.write("error", category, message)
