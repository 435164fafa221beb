"""Azurite: Azure's blob, queue and table storage in one process on the loopback address."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from localrunner.processes import Child, NotReadyError, spawn, wait_until

ROOT = Path(__file__).resolve().parent.parent
DURABLE = Path(__file__).resolve().parent / "parts" / "durable.js"
MAIN = ROOT / ".local" / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"

START_S = 30.0
# It waits for clients that keep their connections; what it acknowledged is safe by then.
STOP_S = 8.0
ANSWER_S = 2.0
ACCOUNT = "devstoreaccount1"
# Source: Azurite's documentation; the one key that every installation knows, and no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SERVICES = ("blob", "queue", "table")


def installed() -> bool:
    """Whether Node and Azurite are here."""
    return shutil.which("node") is not None and MAIN.exists()


def start(directory: Path, log: Path, ports: Sequence[int], *, in_memory: bool = False) -> Child:
    """Azurite is starting on the three `ports` (blob, queue, table); wait with `wait_ready`.

    Its data lies in `directory/data`, where what it acknowledged survives SIGKILL; with `in_memory` nowhere.

    Raises:
        NotReadyError: Node or Azurite is missing.
    """
    if not installed():
        raise NotReadyError("azurite: Node or the package is missing; run `make setup`")
    directory.mkdir(parents=True, exist_ok=True)
    durable = [] if in_memory else ["--require", str(DURABLE)]
    command = ["node", *durable, str(MAIN), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    for service, port in zip(SERVICES, ports, strict=True):
        command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    command += ["--inMemoryPersistence"] if in_memory else ["--location", str(directory / "data")]
    return spawn("azurite", command, log, cwd=directory)


def wait_ready(
    child: Child, ports: Sequence[int], timeout_s: float = START_S, *, cancelled: Event | None = None
) -> None:
    """All three services of Azurite have answered a request."""
    wait_until(
        "azurite answers",
        lambda: all(answers(port) for port in ports),
        timeout_s,
        child=child,
        cancelled=cancelled,
    )


def answers(port: int) -> bool:
    """Whether an HTTP server answers on this loopback port, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", f"/{ACCOUNT}?comp=list")
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def connection_string(ports: Sequence[int]) -> str:
    """What a client needs: plain http, the account every Azurite has, an endpoint for each service."""
    endpoints = "".join(
        f"{service.capitalize()}Endpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        for service, port in zip(SERVICES, ports, strict=True)
    )
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoints}"
