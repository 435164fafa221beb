"""The worker's process: `python -m localrunner.host.worker SOCKET_FD APP_DIR HOST_PID`, started by the host."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localrunner.host import wire
from localrunner.host.worker import logs
from localrunner.host.worker.indexing import IndexedFunction, index
from localrunner.host.worker.invocations import fault_of, invoke

PR_SET_PDEATHSIG = 1
HOST_GONE_EXIT = 3


class Worker:
    """The functions of one app, and the event loop on which they are invoked."""

    def __init__(self, line: wire.Line) -> None:
        self._line = line
        self._loop = asyncio.new_event_loop()
        self._functions: dict[str, IndexedFunction] = {}
        self._running: set[asyncio.Task[None]] = set()
        count = os.environ.get("PYTHON_THREADPOOL_THREAD_COUNT", "")
        self._pool = ThreadPoolExecutor(int(count) if count.isdecimal() and int(count) > 0 else None)

    def run(self) -> None:
        """Returns once the host has said so; a host that is gone ends the process at once."""
        threading.Thread(target=self._listen, name="from-host", daemon=True).start()
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._index)
        self._loop.run_forever()

    def _index(self) -> None:
        try:
            functions = index()
        except Exception as error:  # noqa: BLE001 -- whatever importing the app raises means no functions
            self._line.send(wire.FunctionMetadataResponse([], fault_of(error)))
            return
        self._functions = {function.metadata.function_id: function for function in functions}
        self._line.send(wire.FunctionMetadataResponse([function.metadata for function in functions]))

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
                task = self._loop.create_task(self._invoke(message))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            case wire.WorkerTerminate():
                self._loop.stop()

    async def _invoke(self, request: wire.InvocationRequest) -> None:
        response = await invoke(request, self._functions, self._pool)
        try:
            self._line.send(response)
        except wire.ClosedError:
            os._exit(HOST_GONE_EXIT)


def main() -> None:
    """Serves one host until it ends."""
    fd, app_dir, host_pid = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    _die_with(host_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = wire.Line(socket.socket(fileno=fd))
    root = logging.getLogger()
    debug = os.environ.get("PYTHON_ENABLE_DEBUG_LOGGING", "").lower() in ("1", "true")
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.addHandler(logs.ToHost(line))
    # The app sees its own directory first, as in Azure, and not the one that this worker was started from.
    sys.path[0] = str(app_dir)
    os.chdir(app_dir)
    Worker(line).run()


def _die_with(host_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != host_pid:
        os._exit(HOST_GONE_EXIT)


if __name__ == "__main__":
    main()
