"""One worker process as the host sees it: started, asked, killed, and never outliving the host."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Final

import localrunner
from localrunner.host import wire
from localrunner.host.workers import Worker

KILL_WAIT_S: Final = 10.0
_PACKAGE_ROOT: Final = Path(localrunner.__file__).resolve().parent.parent


class WorkerProcess:
    """A running worker. Functions run in it until it ends; then every invocation on it has failed.

    `indexed` resolves to what the app registers. Not reading the worker's messages for long would stop it, so
    `on_log` must be quick.
    """

    def __init__(
        self,
        worker: Worker,
        app_dir: Path,
        environment: Mapping[str, str],
        on_log: Callable[[wire.RpcLog], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        self.indexed: Future[wire.FunctionMetadataResponse] = Future()
        self.ended = threading.Event()
        self._on_log = on_log
        self._line = wire.Line(ours)
        self._pending: dict[str, Future[wire.InvocationResponse]] = {}
        self._lock = threading.Lock()
        with theirs:
            # A session of its own keeps Ctrl-C from it: the host ends it, in order. It asks the kernel to be
            # killed with the thread that starts it here, so that thread must live as long as the host.
            self._process = subprocess.Popen(
                [
                    *(worker.python, "-m", "localrunner.host.worker"),
                    *(str(theirs.fileno()), str(app_dir), str(os.getpid()), worker.name),
                ],
                env=dict(environment),
                cwd=_PACKAGE_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        threading.Thread(target=self._listen, name="from-worker", daemon=True).start()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def invoke(self, request: wire.InvocationRequest) -> Future[wire.InvocationResponse]:
        """A future of the outcome; a worker that ends first makes it a fault."""
        outcome: Future[wire.InvocationResponse] = Future()
        with self._lock:
            if self.ended.is_set():
                outcome.set_result(_died(request.invocation_id))
                return outcome
            self._pending[request.invocation_id] = outcome
        try:
            self._line.send(request)
        except wire.ClosedError:
            self._finish(_died(request.invocation_id))
        except ValueError as too_large:
            self._finish(
                wire.InvocationResponse(request.invocation_id, wire.Fault("RpcException", str(too_large)))
            )
        return outcome

    def terminate(self, grace_period_s: float) -> None:
        """The worker has ended: by itself within the grace period, or killed after it."""
        try:
            self._line.send(wire.WorkerTerminate(grace_period_s))
            self._process.wait(timeout=grace_period_s)
        except (wire.ClosedError, subprocess.TimeoutExpired):
            pass  # killed next, whatever kept it
        self.kill()

    def kill(self) -> None:
        """The worker is dead, and every invocation on it has failed."""
        self._process.kill()
        self._process.wait(timeout=KILL_WAIT_S)
        self._line.close()
        self._end()

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def _listen(self) -> None:
        while True:
            try:
                message = self._line.receive_from_worker()
            except wire.ClosedError:
                self._process.wait()
                self._end()
                return
            match message:
                case wire.InvocationResponse():
                    self._finish(message)
                case wire.RpcLog():
                    self._on_log(message)
                case wire.FunctionMetadataResponse():
                    self.indexed.set_result(message)

    def _finish(self, response: wire.InvocationResponse) -> None:
        with self._lock:
            outcome = self._pending.pop(response.invocation_id, None)
        if outcome is not None:
            outcome.set_result(response)

    def _end(self) -> None:
        with self._lock:
            self.ended.set()
            invocations = list(self._pending)
        for invocation_id in invocations:
            self._finish(_died(invocation_id))
        try:
            self.indexed.set_result(wire.FunctionMetadataResponse([], _died("").fault))
        except InvalidStateError:
            return  # it had answered before it died


def _died(invocation_id: str) -> wire.InvocationResponse:
    fault = wire.Fault("WorkerProcessExitException", "the worker process ended while the function was running")
    return wire.InvocationResponse(invocation_id, fault)
