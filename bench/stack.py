"""The local stack for the cases that need one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from localrunner.plan import Options, make_plan
from localrunner.stack import Stack

_OURS = ("SINK", "KAFKA_", "KUSTO_", "AZUREWEBJOBSSTORAGE", "AZUREFUNCTIONSJOBHOST")


@contextmanager
def stack(routes: Sequence[Mapping[str, str]], sets: Sequence[str] = ()) -> Iterator[Stack]:
    """A running stack with `routes`, on all cores and untouched by settings of somebody's own."""
    if hasattr(os, "sched_setaffinity"):
        # Timing pinned this process to one core, and its children would inherit that.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(_OURS)}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "settings.json"
        file.write_text(json.dumps({"Values": {"SINK_TOPICS_MAPPING": json.dumps(list(routes))}}))
        with Stack(make_plan(Options(settings_file=file, sets=tuple(sets)), environment)) as running:
            yield running
