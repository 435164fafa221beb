"""The host: one worker, a listener a function, and their beginning and end."""

from __future__ import annotations

import enum
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from localrunner.host import triggers
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.hostjson import HostOptions
from localrunner.host.listener import KafkaListener, describe
from localrunner.host.logs import HOST, HostLog
from localrunner.host.schedulestatus import StatusStore
from localrunner.host.settings import AppSettings
from localrunner.host.singleton import Lock, SingletonListener
from localrunner.host.storage import HostStorage, open_storage
from localrunner.host.timers import TimerListener
from localrunner.host.triggers import KafkaTrigger
from localrunner.host.workers import Worker

DRAIN_SETTING: Final = "FUNCTIONS_ENABLE_DRAIN_ON_APP_STOPPING"
STOP_LIMIT_S: Final = 330.0  # an executor may take 300 s, its subscriber 10 s, its consumer the rest
LOOK_S: Final = 0.1

Listener = KafkaListener | TimerListener | SingletonListener


class Outcome(enum.Enum):
    """How a run of the host ended."""

    STOPPED = "stopped"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Status:
    """What the status file says."""

    state: str
    pid: int
    worker: int | None
    functions: list[str]
    error: str | None


class Host:
    """One app, run once: `run` returns when the host was asked to stop, or must restart itself."""

    def __init__(
        self,
        app_dir: Path,
        worker: Worker,
        settings: AppSettings,
        options: HostOptions,
        status_file: Path | None,
    ) -> None:
        self._app_dir = app_dir
        self._settings = settings
        self._options = options
        self._status_file = status_file
        self._log = HostLog(options.log_levels)
        self._changing = threading.Lock()
        self._state = "starting"
        self._functions: list[str] = []
        self._error: str | None = None
        self._written: Status | None = None
        self._changed = threading.Event()
        self._worker_lost = threading.Event()
        self._must_restart = threading.Event()
        self._dispatcher = Dispatcher(
            worker,
            app_dir,
            _environment(settings),
            options.function_timeout_s,
            self._log,
            on_change=self._worker_changed,
            on_lost=self._worker_lost.set,
        )

    def run(self, stop: threading.Event) -> Outcome:
        """Runs the app until `stop` is set, or the worker or a timer's lock is lost for good."""
        self._say("starting")
        for path in self._options.unknown:
            self._log.warning(HOST, f"host.json {path}: is no option of the Kafka extension; it has no effect")
        self._dispatcher.start()
        listeners: list[Listener] = []
        while not self._ended(stop) and self._dispatcher.first_index is None:
            self._changed.wait(LOOK_S)
        if not self._ended(stop):
            listeners = self._start_listeners()
            self._say("running")
        while not self._ended(stop):
            stop.wait(LOOK_S)
        outcome = Outcome.STOPPED if stop.is_set() else Outcome.RESTART
        self._stop(listeners)
        if outcome is Outcome.STOPPED:
            self._say("stopped")
        return outcome

    def _ended(self, stop: threading.Event) -> bool:
        return stop.is_set() or self._worker_lost.is_set() or self._must_restart.is_set()

    def _start_listeners(self) -> list[Listener]:
        index = self._dispatcher.first_index
        if index is None:
            return []
        if index.fault is not None:
            self._error = f"{index.fault.kind}: {index.fault.message}"
            self._log.error(HOST, f"The app could not be indexed, so it has no functions\n{index.fault.stack}")
        accepted = triggers.accept(index.functions, self._settings)
        for fault in accepted.faults:
            self._log.error(HOST, f"The function is in error: {fault}")
        if accepted.faults:
            self._error = "\n".join(accepted.faults)
        for name in accepted.disabled:
            self._log.info(HOST, f"Function '{name}' is disabled")
        storage = open_storage(self._settings, self._app_dir, self._log)
        listeners: list[Listener] = []
        for function in accepted.functions:
            try:
                listener = self._listener(function, storage)
                listener.start()
            except KafkaException as fault:
                text = f"{function.name}: the listener was unable to start: {fault.args[0].str()}"
                self._log.error(HOST, text)
                self._error = text if self._error is None else f"{self._error}\n{text}"
                continue
            listeners.append(listener)
            self._functions.append(function.name)
        if not listeners:
            self._log.warning(HOST, "No functions found; the host runs on, as in Azure")
        return listeners

    def _listener(self, function: triggers.HostedFunction, storage: HostStorage | None) -> Listener:
        trigger = function.trigger
        if isinstance(trigger, KafkaTrigger):
            self._log.info(HOST, f"Function '{function.name}': kafkaTrigger {describe(trigger)}")
            return KafkaListener(function, trigger, self._options.kafka, self._dispatcher, self._log)
        self._log.info(HOST, f"Function '{function.name}': timerTrigger")
        if storage is None:
            return TimerListener(function, trigger, self._dispatcher, None, self._log)
        timer = TimerListener(function, trigger, self._dispatcher, StatusStore(storage, self._log), self._log)
        lock = Lock(storage, function.name)
        return SingletonListener(timer, lock, self._options.singleton, self._must_restart.set, self._log)

    def _stop(self, listeners: list[Listener]) -> None:
        """Listeners first, so that what executes can end; then the worker.

        Source: on SIGTERM Azure drains only where this setting is true (or on Kubernetes). A host that lost
        its worker has nothing that could drain.
        """
        asked = self._settings.is_on(DRAIN_SETTING) or self._settings.get("KUBERNETES_SERVICE_HOST") is not None
        drain = asked and not self._worker_lost.is_set()
        self._say("draining")
        self._log.info(HOST, f"Stopping, with drain mode {'on' if drain else 'off'}")
        threads = [
            threading.Thread(target=listener.stop, args=(drain,), name="stop", daemon=True)
            for listener in listeners
        ]
        for listener in listeners:
            listener.begin_stop()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(STOP_LIMIT_S)
        self._dispatcher.stop()

    def _worker_changed(self) -> None:
        self._changed.set()
        self._say(self._state)

    def _say(self, state: str) -> None:
        """The status file says `state`, and what else is true now."""
        with self._changing:
            self._state = state
            worker = self._dispatcher.pid if state != "stopped" else None
            status = Status(state, os.getpid(), worker, list(self._functions), self._error)
            if self._status_file is not None and status != self._written:
                write_status(self._status_file, status)
                self._written = status


def write_status(file: Path, status: Status) -> None:
    """The file holds `status`; a reader sees the old one or the new one, never a part."""
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    beside.write_text(json.dumps(asdict(status)))
    beside.replace(file)


def _environment(settings: AppSettings) -> Mapping[str, str]:
    # What print() in the app writes must not stay in a buffer that dies with the worker.
    return {"PYTHONUNBUFFERED": "1", **settings.environment}
