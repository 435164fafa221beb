"""Keeps one worker running and hands invocations to it: time-outs, crashes, restarts, retry policies."""

from __future__ import annotations

import random
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Final

import msgspec

from localrunner.host import wire
from localrunner.host.logs import WORKER, HostLog
from localrunner.host.process import WorkerProcess
from localrunner.host.triggers import HostedFunction
from localrunner.host.workers import Worker

INDEX_LIMIT_S: Final = 60.0
CRASHES_MAX: Final = 3  # per worker process, of which this host has one
CRASH_MEMORY_S: Final = 1_800.0
RESTART_PAUSE_S: Final = 0.5
WORKER_GRACE_S: Final = 10.0
NO_WORKER: Final = wire.InvocationResponse(
    "", wire.Fault("InvalidOperationException", "Did not find any initialized language workers")
)


class Dispatcher:
    """The worker, whichever process it is just now.

    `on_change` is called when a worker is ready or gone; `on_lost` when it crashed too often, after which
    there is no worker any more.

    Source: azure-functions-host, RpcFunctionInvocationDispatcher.cs: a crash counts, a time-out does not;
    three crashes with less than thirty minutes between them make the host restart itself.
    """

    def __init__(
        self,
        worker: Worker,
        app_dir: Path,
        environment: Mapping[str, str],
        function_timeout_s: float | None,
        log: HostLog,
        on_change: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._chosen = worker
        self._app_dir = app_dir
        self._environment = environment
        self._function_timeout_s = function_timeout_s
        self._log = log
        self._on_change = on_change
        self._on_lost = on_lost
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._state = threading.Condition()
        self._stopping = False
        self._killed: set[int] = set()
        self._names: dict[str, str] = {}
        self._retrying: set[int] = set()
        self.first_index: wire.FunctionMetadataResponse | None = None
        self._keeper = threading.Thread(target=self._keep, name="worker-keeper", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process id of the worker that can take invocations; None while there is none."""
        worker = self._worker
        return worker.pid if worker is not None and self._ready and not worker.ended.is_set() else None

    def activity(self) -> tuple[int, int]:
        """How many invocations run, and how many wait for a retry."""
        return len(self._names), len(self._retrying)

    def start(self) -> None:
        """A worker is being started; `first_index` is set once it has indexed the app."""
        self._keeper.start()

    def stop(self) -> None:
        """There is no worker any more, and there will be none."""
        with self._state:
            self._stopping = True
            worker, ready = self._worker, self._ready
            self._state.notify_all()
        if worker is not None:
            worker.terminate(WORKER_GRACE_S if ready else 0.0)
        self._keeper.join(timeout=INDEX_LIMIT_S)

    def execute(
        self, function: HostedFunction, input_data: msgspec.Raw, metadata: msgspec.Raw, cancelled: threading.Event
    ) -> wire.InvocationResponse:
        """Runs the function, and again as its retry policy says; the last attempt's outcome.

        Source: azure-webjobs-sdk, FunctionExecutorExtensions.TryExecuteAsync: `cancelled` ends the waiting
        between attempts, never an attempt.
        """
        retry = function.retry
        delays = Delays(retry) if retry is not None else None
        context = None if retry is None else wire.RetryContext(0, retry.max_retry_count)
        attempt = 0
        while True:
            outcome = self._attempt(function, input_data, metadata, context)
            if outcome.fault is None or retry is None or delays is None:
                return outcome
            category = f"Function.{function.name}"
            if attempt == retry.max_retry_count:
                self._log.error(category, f"All retries have been exhausted after {attempt} of them")
                return outcome
            attempt += 1
            delay_s = delays.next_s()
            self._log.info(
                category,
                f"Waiting {delay_s:.3f} s before retry {attempt} (policy maximum {retry.max_retry_count})",
            )
            self._retrying.add(threading.get_ident())
            ended = cancelled.wait(delay_s)
            self._retrying.discard(threading.get_ident())
            if ended:
                self._log.info(category, "Retries end because the host stops")
                return outcome
            context = wire.RetryContext(attempt, retry.max_retry_count, outcome.fault)

    def _attempt(
        self,
        function: HostedFunction,
        input_data: msgspec.Raw,
        metadata: msgspec.Raw,
        context: wire.RetryContext | None,
    ) -> wire.InvocationResponse:
        invocation_id = str(uuid.uuid4())
        category = f"Function.{function.name}"
        trace_parent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
        request = wire.InvocationRequest(
            invocation_id, function.function_id, input_data, metadata, trace_parent, context
        )
        self._log.info(category, f"Executing 'Functions.{function.name}' (Id={invocation_id})")
        started = time.monotonic()
        self._names[invocation_id] = function.name
        outcome = self._ask(request, function.name)
        self._names.pop(invocation_id, None)
        fault = outcome.fault
        shown = f"Id={invocation_id}, Duration={(time.monotonic() - started) * 1000:.0f}ms"
        if fault is None:
            self._log.info(category, f"Executed 'Functions.{function.name}' (Succeeded, {shown})")
        else:
            text = fault.stack or f"{fault.kind}: {fault.message}"
            self._log.error(category, f"Executed 'Functions.{function.name}' (Failed, {shown})\n{text}")
        return outcome

    def _ask(self, request: wire.InvocationRequest, name: str) -> wire.InvocationResponse:
        worker = self._wait_for_worker()
        if worker is None:
            return NO_WORKER
        outcome = worker.invoke(request)
        try:
            return outcome.result(self._function_timeout_s)
        except FutureTimeoutError:
            self._log.error(
                f"Function.{name}",
                f"Timeout value of {self._function_timeout_s:g} s exceeded by function 'Functions.{name}' "
                f"(Id={request.invocation_id}). The worker process is killed",
            )
            self._killed.add(worker.pid)
            worker.kill()
            fault = wire.Fault("FunctionTimeoutException", f"the function ran for {self._function_timeout_s:g} s")
            return wire.InvocationResponse(request.invocation_id, fault)

    def _wait_for_worker(self) -> WorkerProcess | None:
        with self._state:
            ready = self._state.wait_for(lambda: self._stopping or self.pid is not None, INDEX_LIMIT_S)
            return self._worker if ready and not self._stopping else None

    def _keep(self) -> None:
        """Runs in the thread that starts all workers, since a worker dies with the thread that started it."""
        crashes: list[float] = []
        while not self._stopping:
            worker = self._start_one()
            worker.ended.wait()
            worker.kill()
            with self._state:
                self._ready = False
            if self._stopping:
                return
            self._on_change()
            if worker.pid in self._killed:
                self._log.warning(WORKER, f"The worker process {worker.pid} was killed; starting another")
            else:
                now = time.monotonic()
                if crashes and now - crashes[-1] > CRASH_MEMORY_S:
                    crashes.clear()
                crashes.append(now)
                self._log.error(
                    WORKER, f"The worker process {worker.pid} ended with code {worker.exit_code()} unasked"
                )
            if len(crashes) >= CRASHES_MAX:
                self._log.error(WORKER, f"The worker crashed {len(crashes)} times; the host restarts itself")
                with self._state:
                    self._stopping = True
                    self._state.notify_all()
                self._on_lost()
                return
            with self._state:
                self._state.wait_for(lambda: self._stopping, RESTART_PAUSE_S)

    def _start_one(self) -> WorkerProcess:
        worker = WorkerProcess(self._chosen, self._app_dir, self._environment, self._print)
        with self._state:
            self._worker = worker
            if self._stopping:
                worker.kill()
        try:
            index = worker.indexed.result(INDEX_LIMIT_S)
        except FutureTimeoutError:
            index = wire.FunctionMetadataResponse(
                [], wire.Fault("TimeoutException", f"the app was not indexed within {INDEX_LIMIT_S:g} s")
            )
            worker.kill()
        with self._state:
            self._ready = True
            if self.first_index is None and not worker.ended.is_set():
                self.first_index = index
            self._state.notify_all()
        self._on_change()
        return worker

    def _print(self, record: wire.RpcLog) -> None:
        name = self._names.get(record.invocation_id or "")
        category = WORKER if name is None else f"Function.{name}.User"
        self._log.write(record.level, category, record.message)


class Delays:
    """How long to wait before each retry, in order.

    Source: azure-webjobs-sdk, RandomizedExponentialBackoffStrategy: the first delay is the minimum; after
    that minimum + 2^n * minimum, each n give or take a fifth, until the maximum is reached for good.
    """

    def __init__(self, retry: wire.RetryOptions) -> None:
        self._retry = retry
        self._exponent = 0
        self._at_maximum = False

    def next_s(self) -> float:
        """Seconds before the next retry."""
        retry = self._retry
        if retry.strategy == "fixed_delay":
            return float(retry.delay_interval_s)
        if self._at_maximum:
            return float(retry.maximum_interval_s)
        delay_s = float(retry.minimum_interval_s)
        if self._exponent > 0:
            delay_s += random.uniform(0.8, 1.2) * 2 ** (self._exponent - 1) * retry.minimum_interval_s
        self._exponent += 1
        if delay_s < retry.maximum_interval_s:
            return delay_s
        self._at_maximum = True
        return float(retry.maximum_interval_s)
