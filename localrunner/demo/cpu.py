"""How much CPU each process of the stack has used, over all its lives."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


class CpuMeter:
    """Sums CPU seconds by name while processes come and go: `sample` before one is killed, and now and then."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int], float] = {}

    def sample(self, pids: Mapping[str, int]) -> None:
        """What the processes have used until now is noted; one that has ended keeps its last figure."""
        for name, pid in pids.items():
            used = cpu_seconds(pid)
            if used is not None:
                self._seconds[name, pid] = used

    def by_name(self) -> dict[str, float]:
        """CPU seconds of each process name."""
        names = dict.fromkeys(name for name, _ in self._seconds)
        return {name: sum(s for (n, _), s in self._seconds.items() if n == name) for name in names}


def cpu_seconds(pid: int) -> float | None:
    """User and system time of the process, in seconds; None if there is no such process.

    Source: proc(5), fields 14 and 15 after the name in brackets; elsewhere what `ps` prints.
    """
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    done = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=False)
    found = _CLOCK.fullmatch(done.stdout.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
