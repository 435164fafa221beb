"""What runs on this machine, as `ps` sees it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable


def listed() -> dict[int, tuple[int, str]]:
    """Every process id with its parent's and its state (`T` is frozen, `Z` has ended)."""
    lines = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,stat="], text=True).splitlines()
    return {int(pid): (int(parent), state[0]) for pid, parent, state in map(str.split, lines)}


def family(pid: int) -> set[int]:
    """`pid` and all processes that descend from it."""
    parents = {child: parent for child, (parent, _) in listed().items()}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def living(pids: Iterable[int]) -> set[int]:
    """Those of `pids` that have not ended."""
    states = {pid: state for pid, (_, state) in listed().items()}
    return {pid for pid in pids if states.get(pid, "Z") != "Z"}


def age_s(pid: int) -> int:
    """For how many seconds `pid` has run."""
    text = subprocess.check_output(["ps", "-o", "etime=", "-p", str(pid)], text=True).strip()
    parts = [int(part) for part in text.replace("-", ":").split(":")]
    return sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86_400), strict=False))


def eventually(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    """`condition()` was true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.05)
