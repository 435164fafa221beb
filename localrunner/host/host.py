"""The host: one worker, the listeners of its app, and their beginning and end."""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from localrunner.host import admin
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.hostjson import HostOptions
from localrunner.host.listeners import Listeners
from localrunner.host.logs import HOST, HostLog
from localrunner.host.settings import AppSettings
from localrunner.host.status import Status, write_status
from localrunner.host.storage import host_id_of
from localrunner.host.web import Target, WebServer
from localrunner.host.workers import Worker

DRAIN_SETTING: Final = "FUNCTIONS_ENABLE_DRAIN_ON_APP_STOPPING"
LOOK_S: Final = 0.1


class Outcome(enum.Enum):
    """How a run of the host ended."""

    STOPPED = "stopped"
    RESTART = "restart"


class Host:
    """One app, run once: `run` returns when the host was asked to stop, or must restart itself."""

    def __init__(
        self,
        app_dir: Path,
        worker: Worker,
        settings: AppSettings,
        options: HostOptions,
        web: WebServer,
        status_file: Path | None,
    ) -> None:
        self._settings = settings
        self._options = options
        self._web = web
        self._status_file = status_file
        self._log = HostLog(options.log_levels)
        self._changing = threading.Lock()
        self._state = "starting"
        self._written: Status | None = None
        self._changed = threading.Event()
        self._worker_lost = threading.Event()
        self._must_restart = threading.Event()
        self._drain_mode = threading.Event()
        self._dispatcher = Dispatcher(
            worker,
            app_dir,
            _environment(settings),
            options.function_timeout_s,
            self._log,
            on_change=self._worker_changed,
            on_lost=self._worker_lost.set,
        )
        self._listeners = Listeners(
            app_dir, settings, options, self._dispatcher, self._must_restart.set, self._log
        )
        self._controls = self._made_controls(app_dir)

    def run(self, stop: threading.Event) -> Outcome:
        """Runs the app until `stop` is set, or the worker or a timer's lock is lost for good."""
        self._say("starting")
        for path in self._options.unknown:
            self._log.warning(HOST, f"host.json {path}: is no option of the Kafka extension; it has no effect")
        self._dispatcher.start()
        self._web.serve(self._find)
        while not self._ended(stop) and self._dispatcher.first_index is None:
            self._changed.wait(LOOK_S)
        if not self._ended(stop) and self._dispatcher.first_index is not None:
            self._listeners.start(self._dispatcher.first_index)
            self._say("running")
        while not self._ended(stop):
            stop.wait(LOOK_S)
        outcome = Outcome.STOPPED if stop.is_set() else Outcome.RESTART
        self._stop()
        if outcome is Outcome.STOPPED:
            self._say("stopped")
        return outcome

    def _ended(self, stop: threading.Event) -> bool:
        return stop.is_set() or self._worker_lost.is_set() or self._must_restart.is_set()

    def _stop(self) -> None:
        """Listeners first, so that what executes can end; then the worker.

        Source: on SIGTERM Azure drains only where this setting is true (or on Kubernetes). A host that lost
        its worker has nothing that could drain.
        """
        asked = self._settings.is_on(DRAIN_SETTING) or self._settings.get("KUBERNETES_SERVICE_HOST") is not None
        drain = (asked or self._drain_mode.is_set()) and not self._worker_lost.is_set()
        self._say("draining")
        self._log.info(HOST, f"Stopping, with drain mode {'on' if drain else 'off'}")
        self._listeners.stop(drain)
        self._web.serve(None)
        self._dispatcher.stop()

    def _find(self, method: str, path: str) -> tuple[Target, dict[str, str]] | None:
        """What answers a request; functions cannot have routes below /admin."""
        if path.lower().startswith(admin.PREFIX):
            target = admin.find(self._controls, method, path)
            return None if target is None else (target, {})
        return self._listeners.http.find(method, path)

    def _made_controls(self, app_dir: Path) -> admin.Controls:
        began = time.monotonic()
        return admin.Controls(
            host_id=host_id_of(self._settings, app_dir),
            state=lambda: "Starting" if self._state == "starting" else "Running",
            uptime_ms=lambda: round((time.monotonic() - began) * 1000),
            errors=lambda: list(self._listeners.faults),
            drain=self._enter_drain_mode,
            is_draining=self._drain_mode.is_set,
            activity=self._dispatcher.activity,
        )

    def _enter_drain_mode(self) -> None:
        """Listeners stop, and the host stays up; a second request changes nothing."""
        with self._changing:
            if self._drain_mode.is_set():
                return
            self._drain_mode.set()
        self._log.info(HOST, "DrainMode mode enabled")
        threading.Thread(target=self._listeners.stop, args=(True,), name="drain", daemon=True).start()
        self._say("draining")

    def _worker_changed(self) -> None:
        self._changed.set()
        self._say(self._state)

    def _say(self, state: str) -> None:
        """The status file says `state`, and what else is true now."""
        with self._changing:
            self._state = state
            up = state != "stopped"
            status = Status(
                state,
                os.getpid(),
                self._dispatcher.pid if up else None,
                self._listeners.functions,
                "\n".join(self._listeners.faults) or None,
                self._web.url if up else None,
                self._web.keys.as_document() if up else None,
            )
            if self._status_file is not None and status != self._written:
                write_status(self._status_file, status)
                self._written = status


def _environment(settings: AppSettings) -> Mapping[str, str]:
    # What print() in the app writes must not stay in a buffer that dies with the worker.
    return {"PYTHONUNBUFFERED": "1", **settings.environment}
