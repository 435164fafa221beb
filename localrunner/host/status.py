"""The status file: what a host says of itself to whoever started it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """What the file holds; `worker` is None while no worker can take invocations, `url` while nothing listens.

    `keys` open the functions and the admin API below `url`.
    """

    state: str
    pid: int
    worker: int | None = None
    functions: tuple[str, ...] = ()
    error: str | None = None
    url: str | None = None
    keys: Mapping[str, Any] | None = field(default=None, repr=False)


def write_status(file: Path, status: Status) -> None:
    """The file holds `status`; a reader sees the old one or the new one, never a part. It is its owner's alone."""
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(json.dumps(asdict(status)))
    beside.replace(file)
