"""The worker's process: `python -m localrunner.host.worker SOCKET_FD APP_DIR HOST_PID RUNTIME`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from localrunner.host import wire
from localrunner.host.worker.logs import ToHost
from localrunner.host.worker.runtime import Runtime

PR_SET_PDEATHSIG = 1
HOST_GONE_EXIT = 3


class Worker:
    """The functions of one app, and the event loop on which they are invoked."""

    def __init__(self, line: wire.Line, runtime: Runtime) -> None:
        self._line = line
        self._runtime = runtime
        self._loop = asyncio.new_event_loop()
        self._running: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Returns once the host has said so; a host that is gone ends the process at once."""
        threading.Thread(target=self._listen, name="from-host", daemon=True).start()
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(lambda: self._begin(self._index()))
        self._loop.run_forever()

    async def _index(self) -> None:
        self._send(await self._runtime.index())

    def _listen(self) -> None:
        while True:
            try:
                message = self._line.receive_from_host()
            except wire.ClosedError:
                os._exit(HOST_GONE_EXIT)  # no clean-up: nobody is left to report to
            self._loop.call_soon_threadsafe(self._take, message)

    def _take(self, message: wire.HostMessage) -> None:
        match message:
            case wire.InvocationRequest():
                self._begin(self._invoke(message))
            case wire.WorkerTerminate():
                self._loop.stop()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _invoke(self, request: wire.InvocationRequest) -> None:
        self._send(await self._runtime.invoke(request))

    def _send(self, message: wire.WorkerMessage) -> None:
        try:
            self._line.send(message)
        except wire.ClosedError:
            os._exit(HOST_GONE_EXIT)


def main() -> None:
    """Serves one host until it ends."""
    fd, app_dir, host_pid, name = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    _die_with(host_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = wire.Line(socket.socket(fileno=fd))
    runtime = _runtime(name)
    root = logging.getLogger()
    debug = os.environ.get("PYTHON_ENABLE_DEBUG_LOGGING", "").lower() in ("1", "true")
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.addHandler(ToHost(line, runtime.invocation_id))
    # The app sees its own directory first, as in Azure, and not the one that this worker was started from.
    sys.path[0] = str(app_dir)
    os.chdir(app_dir)
    Worker(line, runtime).run()


def _runtime(name: str) -> Runtime:
    """Imported here, since each of them is in the environment of its own Python alone."""
    if name == "microsoft":
        from localrunner.host.worker.microsoft import Microsoft

        return Microsoft()
    from localrunner.host.worker.emulated import Emulated

    return Emulated()


def _die_with(host_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != host_pid:
        os._exit(HOST_GONE_EXIT)


if __name__ == "__main__":
    main()
