"""What one batch adds to the worker's memory, above the `list[KafkaEvent]` it was given."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from bench.cases import Options
from bench.cases.handler import PLAIN, WITH_METADATA, handler
from bench.data import payload, records
from bench.measure import Result

_MARK = 3.0
_CHILD_TIMEOUT_S = 120


def run(options: Options) -> Iterator[Result]:
    """A child process for each figure, so that nothing measured earlier has grown its heap."""
    batch = options.batches[-1]
    for route in ("plain", "metadata"):
        child = subprocess.run(
            [sys.executable, "-m", "bench.cases.memory", route, str(batch)],
            capture_output=True,
            check=True,
            text=True,
            timeout=_CHILD_TIMEOUT_S,
        )
        for what, times_raw in json.loads(child.stdout).items():
            yield Result("memory", "1 KB", batch, f"{route}: {what}", times_raw, "x raw", _MARK)


def _main(route_name: str, batch: int) -> None:
    """Print the peak of one batch as multiples of its raw size: resident, and as Python counts it."""
    values = records("1 KB", batch)
    raw_size_bytes = sum(map(len, values))
    events = payload(values).decode()
    route = PLAIN if route_name == "plain" else WITH_METADATA
    handler(events[:10], route)  # what is built once for a process
    records.cache_clear()
    gc.collect()

    before = _reset_peak_resident_bytes()
    handler(events, route)
    resident = _peak_resident_bytes() - before
    tracemalloc.start()
    handler(events, route)
    traced = tracemalloc.get_traced_memory()[1]
    print(json.dumps({"resident peak": resident / raw_size_bytes, "Python's peak": traced / raw_size_bytes}))


def _reset_peak_resident_bytes() -> int:
    """The resident set as it is; the peak starts from here, on Linux."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
