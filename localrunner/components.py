"""The components of the local stack: which command each one is, and how it shows that it answers."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localrunner import azurite, kafka, mockkafka
from localrunner.plan import ROOT, Plan, azurite_ports
from localrunner.processes import Child, NotReadyError, spawn, wait_until
from localrunner.supervisor import Part

ADX_START_S = 30.0
ADX_STOP_S = 20.0
REGISTRY_START_S = 20.0
REGISTRY_STOP_S = 5.0
ANSWER_S = 2.0
HOST_START_S = 60.0
# A host drains for as long as one invocation may take; above the longest that the extension itself waits.
HOST_STOP_S = 330.0


def _own_pid(child: Child) -> Mapping[str, int]:
    return {child.name: child.pid}


def kafka_part(plan: Plan, directory: Path, stopping: threading.Event) -> Part:
    """The Kafka of `plan.kafka`, with the topics that routes name."""
    port, log = plan.ports["kafka"], directory / "logs" / "kafka.log"

    def start() -> Child:
        if plan.kafka == "embedded":
            return kafka.start(directory / "kafka", log, port, plan.ports["kafka-controller"])
        if plan.kafka == "docker":
            return kafka.start_in_docker(log, port)
        return mockkafka.start(log, port, plan.topics)

    def wait_ready(child: Child) -> None:
        limit_s = kafka.DOCKER_START_S if plan.kafka == "docker" else kafka.START_S
        kafka.wait_ready(child, port, limit_s, cancelled=stopping)
        if plan.kafka != "mock":
            kafka.create_topics(plan.brokers, plan.topics)

    return Part("kafka", log, start, wait_ready, _own_pid, kafka.STOP_S)


def azurite_part(plan: Plan, directory: Path, stopping: threading.Event) -> Part:
    """Azurite with its data below `directory`."""
    ports, log = azurite_ports(plan.ports), directory / "logs" / "azurite.log"
    return Part(
        "azurite",
        log,
        start=lambda: azurite.start(directory / "azurite", log, ports),
        wait_ready=lambda child: azurite.wait_ready(child, ports, cancelled=stopping),
        pids=_own_pid,
        stop_s=azurite.STOP_S,
    )


def adx_part(plan: Plan, directory: Path, stopping: threading.Event) -> Part:
    """The ADX double with every database that a route names."""
    log = directory / "logs" / "adx.log"
    ports = [plan.ports["dm"], plan.ports["engine"]]
    command = [sys.executable, "-m", "localrunner", "adx", "--data", str(directory / "adx")]
    command += ["--storage", plan.storage, "--dm-port", str(ports[0]), "--engine-port", str(ports[1])]
    command += ["--time-scale", repr(plan.options.adx_time_scale)]
    for name in plan.databases:
        command += ["--database", name]

    def wait_ready(child: Child) -> None:
        wait_until(
            "the ADX double answers",
            lambda: all(is_healthy(port) for port in ports),
            ADX_START_S,
            child=child,
            cancelled=stopping,
        )

    return Part("adx", log, lambda: spawn("adx", command, log, cwd=ROOT), wait_ready, _own_pid, ADX_STOP_S)


def registry_part(plan: Plan, directory: Path, stopping: threading.Event) -> Part:
    """The schema registry, with what it knows below `directory`."""
    log, port = directory / "logs" / "registry.log", plan.ports["registry"]
    command = [sys.executable, "-m", "localrunner", "registry"]
    command += ["--data", str(directory / "registry"), "--port", str(port)]

    def wait_ready(child: Child) -> None:
        wait_until(
            "the schema registry answers",
            lambda: is_healthy(port),
            REGISTRY_START_S,
            child=child,
            cancelled=stopping,
        )

    return Part(
        "registry", log, lambda: spawn("registry", command, log, cwd=ROOT), wait_ready, _own_pid, REGISTRY_STOP_S
    )


def host_part(plan: Plan, directory: Path, stopping: threading.Event, number: int) -> Part:
    """One Functions host with the app, as one instance of a plan."""
    name, log = f"host-{number}", directory / "logs" / f"host-{number}.log"
    status_file = directory / "run" / f"{name}.json"
    command = [sys.executable, "-m", "localrunner", "host", "--app", str(plan.options.app)]
    command += ["--status-file", str(status_file), "--worker", plan.options.worker]
    if plan.settings_file is not None:
        command += ["--settings", str(plan.settings_file)]

    def start() -> Child:
        status_file.parent.mkdir(parents=True, exist_ok=True)
        status_file.unlink(missing_ok=True)
        # Settings go by the environment, which wins over the file, and where no other user sees them.
        return spawn(name, command, log, env=plan.values, cwd=ROOT)

    def running(child: Child) -> bool:
        status = _status(status_file, child)
        if status.get("state") == "failed":
            raise NotReadyError(f"{name}: {status.get('error')}; its log is {log}")
        return status.get("state") == "running" and status.get("worker") is not None

    def pids(child: Child) -> Mapping[str, int]:
        worker = _status(status_file, child).get("worker")
        return {name: child.pid, f"worker-{number}": worker} if isinstance(worker, int) else {}

    return Part(
        name,
        log,
        start,
        lambda child: wait_until(
            f"{name} runs its functions", lambda: running(child), HOST_START_S, child=child, cancelled=stopping
        ),
        pids,
        HOST_STOP_S,
    )


def _status(file: Path, child: Child) -> dict[str, Any]:
    """What the host that is `child` says of itself; empty where it has said nothing yet."""
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return status if status.get("pid") == child.pid else {}


def is_healthy(port: int) -> bool:
    """Whether a part of ours takes work on this loopback port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/local/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
