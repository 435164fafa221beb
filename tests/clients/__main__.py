"""`python -m tests.clients`: Microsoft's unmodified clients against the double, as a table of behaviour by client.

Exit 1 if any of them answers otherwise than `cases.py` says.
"""

from __future__ import annotations

import json
import os
import re
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

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".local" / "clients"
JARS = HERE.parents[1] / ".local" / "clients-java"
PROCESS_TIMEOUT_S = 300


def main() -> int:
    """Print the table; the exit code."""
    say = sys.stdout.write
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, place(Path(folder)) as where:
        answers = {"Python": by_python(where), "JavaScript": by_javascript(where)}
        if missing := without_java():
            say(f"Java is left out: {missing}\n")
        else:
            answers["Java"] = by_java(where, Path(folder))
    for client, packages in versions().items():
        say(f"{client}: {packages}\n")
    wide = max(len(case.what) for case in CASES)
    say(f"\n{'':{wide}}" + "".join(f"  {client:28}" for client in answers).rstrip() + "\n")
    wrong = 0
    for case in CASES:
        told = {client: answers[client].get(case.name, "-") for client in answers}
        say(f"{case.what:{wide}}" + "".join(f"  {answer:28}" for answer in told.values()).rstrip() + "\n")
        for client, answer in told.items():
            if answer != (expected := case.expected(client)):
                wrong += 1
                say(f"    {client} was expected to answer: {expected}\n")
    say(f"\n{len(CASES)} behaviours, {wrong} answers that were not expected\n")
    return 1 if wrong else 0


def versions() -> dict[str, str]:
    """The packages of each client, with the version that is pinned."""
    npm = json.loads((HERE / "package.json").read_text())["dependencies"]["azure-kusto-ingest"]
    (maven,) = re.findall(
        r"<artifactId>kusto-ingest</artifactId>\s*<version>(.*)</version>", (HERE / "pom.xml").read_text()
    )
    return {
        "Python": f"azure-kusto-data and azure-kusto-ingest {version('azure-kusto-ingest')}",
        "JavaScript": f"azure-kusto-data and azure-kusto-ingest {npm}",
        "Java": f"kusto-data and kusto-ingest {maven}",
    }


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
    script = MODULES / "javascript_cases.mjs"
    shutil.copyfile(HERE / script.name, script)
    return _told(["node", str(script), json.dumps(where.as_config())], {"NODE_EXTRA_CA_CERTS": where.authority})


def without_java() -> str:
    """Why Java's clients cannot be tried here; empty where they can."""
    if not shutil.which("javac"):
        return "there is no javac of a JDK"
    return "" if JARS.exists() else f"{JARS} is missing; `make clients` makes it where Maven is"


def by_java(where: Place, folder: Path) -> dict[str, str]:
    """The answers of Java's clients by case. They trust what a store of this run's own holds."""
    classpath = os.pathsep.join((str(JARS / "*"), str(folder / "classes")))
    compiler = ["javac", "-cp", classpath, "-d", str(folder / "classes"), str(HERE / "JavaCases.java")]
    subprocess.run(compiler, timeout=PROCESS_TIMEOUT_S, check=True)
    store = folder / "trust.p12"
    authorities = Path(where.authority).read_text().split("-----END CERTIFICATE-----\n")[:-1]
    for number, authority in enumerate(authorities):
        add = ["keytool", "-importcert", "-noprompt", "-storetype", "PKCS12", "-keystore", str(store)]
        add += ["-storepass", "public", "-alias", f"authority{number}"]
        pem = f"{authority}-----END CERTIFICATE-----\n"
        subprocess.run(add, input=pem, text=True, capture_output=True, timeout=PROCESS_TIMEOUT_S, check=True)
    trust = [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=public"]
    quiet = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]
    config = [f"{name}={value}" for name, value in where.as_config().items()]
    return _told(["java", *trust, *quiet, "-cp", classpath, "JavaCases", *config], {})


def _told(command: list[str], environment: dict[str, str]) -> dict[str, str]:
    run = subprocess.run(
        command,
        cwd=MODULES,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PROCESS_TIMEOUT_S,
        check=True,
    )
    told = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {one["name"]: str(one["answer"]) for one in told}


if __name__ == "__main__":
    sys.exit(main())
