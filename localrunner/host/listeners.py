"""What listens for an app's functions: one listener each, started and stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from localrunner.host import triggers, wire
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.hostjson import HostOptions
from localrunner.host.httpfunctions import HttpFunctions
from localrunner.host.listener import KafkaListener, describe
from localrunner.host.logs import HOST, HostLog
from localrunner.host.routing import RouteError
from localrunner.host.schedulestatus import StatusStore
from localrunner.host.settings import AppSettings
from localrunner.host.singleton import Lock, SingletonListener
from localrunner.host.storage import open_storage
from localrunner.host.timers import TimerListener
from localrunner.host.triggers import HttpTrigger, KafkaTrigger

STOP_LIMIT_S: Final = 330.0  # an executor may take 300 s, its subscriber 10 s, its consumer the rest

Listener = KafkaListener | TimerListener | SingletonListener


class Listeners:
    """The listeners of an app; `functions` are those that run, `faults` say why others do not.

    `on_lost` is called when a timer's lock is lost, after which the host must start anew.
    """

    def __init__(
        self,
        app_dir: Path,
        settings: AppSettings,
        options: HostOptions,
        dispatcher: Dispatcher,
        on_lost: Callable[[], None],
        log: HostLog,
    ) -> None:
        self._settings = settings
        self._options = options
        self._dispatcher = dispatcher
        self._on_lost = on_lost
        self._log = log
        self._storage = open_storage(settings, app_dir, log)
        self._running: list[Listener] = []
        self.http = HttpFunctions(options.route_prefix, dispatcher)
        self.functions: tuple[str, ...] = ()
        self.faults: tuple[str, ...] = ()

    def start(self, index: wire.FunctionMetadataResponse) -> None:
        """Each indexed function that can run does."""
        if index.fault is not None:
            self.faults = (f"{index.fault.kind}: {index.fault.message}",)
            self._log.error(HOST, f"The app could not be indexed, so it has no functions\n{index.fault.stack}")
        accepted = triggers.accept(index.functions, self._settings)
        for fault in accepted.faults:
            self._log.error(HOST, f"The function is in error: {fault}")
        self.faults += accepted.faults
        for name in accepted.disabled:
            self._log.info(HOST, f"Function '{name}' is disabled")
        for function in accepted.functions:
            try:
                self._start(function)
            except (KafkaException, RouteError) as fault:
                shown = fault.args[0].str() if isinstance(fault, KafkaException) else str(fault)
                text = f"{function.name}: the listener was unable to start: {shown}"
                self._log.error(HOST, text)
                self.faults += (text,)
                continue
            self.functions += (function.name,)
        if not self.functions:
            self._log.warning(HOST, "No functions found; the host runs on, as in Azure")

    def stop(self, drain: bool) -> None:
        """None of them takes anything new, and what they had begun has ended; HTTP requests are not concerned."""
        threads = [
            threading.Thread(target=listener.stop, args=(drain,), name="stop", daemon=True)
            for listener in self._running
        ]
        for listener in self._running:
            listener.begin_stop()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(STOP_LIMIT_S)

    def _start(self, function: triggers.HostedFunction) -> None:
        trigger = function.trigger
        if isinstance(trigger, HttpTrigger):
            self._log.info(HOST, f"Function '{function.name}': httpTrigger /{trigger.template}")
            self.http.add(function, trigger)
            return
        listener: Listener
        if isinstance(trigger, KafkaTrigger):
            self._log.info(HOST, f"Function '{function.name}': kafkaTrigger {describe(trigger)}")
            listener = KafkaListener(function, trigger, self._options.kafka, self._dispatcher, self._log)
        else:
            self._log.info(HOST, f"Function '{function.name}': timerTrigger")
            listener = self._timer(function, trigger)
        listener.start()
        self._running.append(listener)

    def _timer(self, function: triggers.HostedFunction, trigger: triggers.TimerTrigger) -> Listener:
        """Without storage hosts know nothing of each other, so the timer runs on each of them."""
        if self._storage is None:
            return TimerListener(function, trigger, self._dispatcher, None, self._log)
        statuses = StatusStore(self._storage, self._log)
        timer = TimerListener(function, trigger, self._dispatcher, statuses, self._log)
        lock = Lock(self._storage, function.name)
        return SingletonListener(timer, lock, self._options.singleton, self._on_lost, self._log)
