"""`python -m tests.clients`: Microsoft's unmodified clients against the double, as a table of behaviour by client.

Exit 1 if any of them answers otherwise than `cases.py` says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import requests

from tests.clients import python_cases
from tests.clients.cases import CASES
from tests.clients.place import Place, place

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / ".local" / "clients"
SCRIPT = Path(__file__).with_name("javascript_cases.mjs")
NODE_TIMEOUT_S = 300


def main() -> int:
    """Print the table; the exit code."""
    say = sys.stdout.write
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, place(Path(folder)) as where:
        answers = {"Python": by_python(where), "JavaScript": by_javascript(where)}
    packages = json.loads((Path(__file__).with_name("package.json")).read_text())["dependencies"]
    say(f"Python: azure-kusto-data and azure-kusto-ingest {version('azure-kusto-ingest')}\n")
    say(f"JavaScript: azure-kusto-data and azure-kusto-ingest {packages['azure-kusto-ingest']}\n\n")
    wide = max(len(case.what) for case in CASES)
    say(f"{'':{wide}}  {'Python':28}  JavaScript\n")
    wrong = 0
    for case in CASES:
        python, javascript = (answers[client].get(case.name, "-") for client in answers)
        say(f"{case.what:{wide}}  {python:28}  {javascript}\n")
        for client, answer, expected in (
            ("Python", python, case.python),
            ("JavaScript", javascript, case.javascript),
        ):
            if answer != expected:
                wrong += 1
                say(f"    {client} was expected to answer: {expected}\n")
    say(f"\n{len(CASES)} behaviours, {wrong} answers that were not expected\n")
    return 1 if wrong else 0


def by_python(where: Place) -> dict[str, str]:
    """The answers of Python's clients by case."""
    config = where.as_config()
    clients = python_cases.Clients(config)
    answers = {}
    for case in CASES:
        tried: Callable[[python_cases.Clients], str] | None = getattr(python_cases, case.name, None)
        if tried is None:
            continue
        try:
            answers[case.name] = tried(clients)
        except Exception as error:  # noqa: BLE001 - the other cases go on
            answers[case.name] = f"failed: {type(error).__name__}: {str(error)[:200]}"
        requests.delete(f"{config['control']}/local/faults", timeout=10)
    return answers


def by_javascript(where: Place) -> dict[str, str]:
    """The answers of JavaScript's clients by case. Modules are found from the script's own folder."""
    script = MODULES / SCRIPT.name
    shutil.copyfile(SCRIPT, script)
    run = subprocess.run(
        ["node", str(script), json.dumps(where.as_config())],
        cwd=MODULES,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": where.authority},
        stdout=subprocess.PIPE,
        text=True,
        timeout=NODE_TIMEOUT_S,
        check=True,
    )
    told = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {one["name"]: str(one["answer"]) for one in told}


if __name__ == "__main__":
    sys.exit(main())
