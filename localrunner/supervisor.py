"""A component that is started again, on the same address, whenever it dies."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from localrunner.processes import Child, NotReadyError, kill, kill_group, stop, thaw

LOGGER = logging.getLogger("localrunner")
WATCH_S = 0.1
# Between two starts that both failed: 0.1 s, 0.2 s, 0.4 s ... 4 s.
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 4.0
THREAD_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Part:
    """How one component is started, and how it shows that it answers.

    `wait_ready` raises NotReadyError where the child ends or takes too long. `pids` names the process ids that
    others may look for, empty while it does not know them all. `stop_s` is how long it may take to end.
    """

    name: str
    log: Path
    start: Callable[[], Child]
    wait_ready: Callable[[Child], None]
    pids: Callable[[Child], Mapping[str, int]]
    stop_s: float


class Component:
    """One part, running: `begin`, then `ready`, then it is watched until `stop`.

    Only its own thread starts it again; whoever else asks gets the state as of now.
    """

    def __init__(self, part: Part, changed: Callable[[], None], stopping: threading.Event) -> None:
        self.part = part
        self._changed = changed
        self._stopping = stopping
        self._child: Child | None = None
        self._pids: Mapping[str, int] = {}
        self._began = 0.0
        self._thread = threading.Thread(target=self._watch, name=f"watch-{part.name}", daemon=True)

    @property
    def pids(self) -> Mapping[str, int]:
        """The ids of the processes that answered last; a dead one's stays until its successor answers."""
        return self._pids

    def begin(self) -> None:
        """The process has been started; it does not answer yet.

        Raises:
            NotReadyError: it cannot be started on this machine as it is.
        """
        self._began = time.monotonic()
        self._child = self.part.start()

    def ready(self) -> None:
        """The process answers, and from now on it is started again when it dies.

        Raises:
            NotReadyError: it ended, or did not answer in time.
        """
        assert self._child is not None, "begin comes first"
        self.part.wait_ready(self._child)
        self._pids = dict(self.part.pids(self._child))
        LOGGER.info("%s: answers after %.1f s", self.part.name, time.monotonic() - self._began)
        self._thread.start()

    def thaw(self) -> None:
        """None of its processes is frozen."""
        if self._child is not None and self._child.alive():
            for pid in {self._child.pid, *self._pids.values()}:
                thaw(pid)

    def stop(self) -> int | None:
        """It has ended and is not started again; its exit code, None where it never ran.

        `stopping` must have been set before.
        """
        assert self._stopping.is_set(), "a component would be started again"
        if self._thread.is_alive():
            self._thread.join(timeout=THREAD_STOP_S)
        return stop(self._child, self.part.stop_s) if self._child is not None else None

    def kill(self) -> None:
        """Its processes have been sent SIGKILL; nobody waits for their end.

        `stopping` must have been set before.
        """
        assert self._stopping.is_set(), "a component would be started again"
        if self._child is not None and self._child.alive():
            kill_group(self._child)

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_S):
            assert self._child is not None
            if self._child.alive():
                self._look()
            else:
                LOGGER.warning("%s: %s; starting it again", self.part.name, ending(self._child))
                self._restart()

    def _look(self) -> None:
        assert self._child is not None
        pids = dict(self.part.pids(self._child))
        if pids and pids != self._pids:
            self._pids = pids
            self._changed()

    def _restart(self) -> None:
        """It answers again, however often that takes, unless the stack is stopping."""
        began = time.monotonic()
        delay_s = RETRY_FIRST_S
        while not self._stopping.is_set():
            assert self._child is not None
            kill(self._child)  # Whatever is left of its group would hold its address.
            try:
                self._child = self.part.start()
                self.part.wait_ready(self._child)
            except (NotReadyError, OSError, subprocess.SubprocessError) as fault:
                if not self._stopping.is_set():
                    LOGGER.error("%s: not started again yet: %s", self.part.name, fault)
                self._stopping.wait(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
            else:
                LOGGER.warning("%s: answers again after %.1f s", self.part.name, time.monotonic() - began)
                self._look()
                return


def ending(child: Child) -> str:
    """How a process that is no more has ended, as part of a sentence."""
    code = child.process.returncode
    if code is not None and code < 0:
        return f"process {child.pid} was ended by {signal.Signals(-code).name}"
    return f"process {child.pid} ended with code {code}"
