"""Which worker runs the app, and by which Python: ours, or Microsoft's own where Python 3.13 is there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localrunner.host.settings import SettingsError

EMULATED: Final = "emulated"
MICROSOFT: Final = "microsoft"
NAMES: Final = (EMULATED, MICROSOFT)
MICROSOFT_HOME: Final = Path(__file__).resolve().parents[2] / ".local" / "worker-microsoft"
MICROSOFT_PYTHON: Final = MICROSOFT_HOME / "bin" / "python"
LOOK_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker by name, and the interpreter that runs it."""

    name: str = EMULATED
    python: str = sys.executable


def choose(name: str, python: Path | None = None) -> Worker:
    """The worker of that name, by `python` or the interpreter that `make setup` made for it.

    Raises:
        SettingsError: Microsoft's runtime is not there.
    """
    if name == EMULATED:
        return Worker(EMULATED, sys.executable if python is None else str(python))
    found = MICROSOFT_PYTHON if python is None else python
    fault = _missing(found)
    if fault is not None:
        raise SettingsError(f"--worker {MICROSOFT}: {fault}")
    return Worker(MICROSOFT, str(found))


def _missing(python: Path) -> str | None:
    """Why `python` cannot run Microsoft's runtime; None where it can."""
    hint = "install Python 3.13 and run `make setup`, or name one that has it with --python"
    if not python.exists():
        return f"there is no {python}; {hint}"
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('azure_functions_runtime') is None)"
    try:
        done = subprocess.run([str(python), "-c", look], capture_output=True, timeout=LOOK_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        return f"{python} does not run: {type(fault).__name__}; {hint}"
    return None if done.returncode == 0 else f"{python} has no azure-functions-runtime; {hint}"
