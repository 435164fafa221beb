"""The host's admin API, as far as it is emulated: its status, drain mode and how far that has come.

Source: azure-functions-host, HostController.cs; azure-webjobs-sdk, DrainModeManager.cs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from localrunner.host.keys import ADMIN
from localrunner.host.web import Answer, Target, json_reply

PREFIX: Final = "/admin/"


@dataclass(frozen=True, slots=True)
class Controls:
    """What the API asks of a host and does to it.

    `state` is a word of Azure's; `activity` counts invocations that run, and those that wait for a retry.
    """

    host_id: str
    state: Callable[[], str]
    uptime_ms: Callable[[], int]
    errors: Callable[[], list[str]]
    drain: Callable[[], None]
    is_draining: Callable[[], bool]
    activity: Callable[[], tuple[int, int]]


def find(controls: Controls, method: str, path: str) -> Target | None:
    """What answers this request below /admin; None where nothing does."""
    answers: dict[tuple[str, str], Callable[[Controls], Answer]] = {
        ("GET", "/admin/host/status"): _status,
        ("POST", "/admin/host/drain"): _drain,
        ("GET", "/admin/host/drain/status"): _drain_status,
    }
    answer = answers.get((method, path.rstrip("/").lower()))
    if answer is None:
        return None
    return Target(ADMIN, None, lambda _: json_reply(answer(controls)))


def _status(controls: Controls) -> Answer:
    document: dict[str, object] = {
        "id": controls.host_id,
        "state": controls.state(),
        "processUptime": controls.uptime_ms(),
    }
    errors = controls.errors()
    if errors:
        document["errors"] = errors
    return HTTPStatus.OK, document


def _drain(controls: Controls) -> Answer:
    """Accepted at once: listeners stop meanwhile, and the host stays up."""
    controls.drain()
    return HTTPStatus.ACCEPTED, None


def _drain_status(controls: Controls) -> Answer:
    invocations, retries = controls.activity()
    state = "Disabled"
    if controls.is_draining():
        state = "Completed" if invocations == retries == 0 else "InProgress"
    return HTTPStatus.OK, {
        "state": state,
        "outstandingInvocations": invocations,
        "outstandingRetries": retries,
    }
