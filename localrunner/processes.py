"""Child processes that cannot outlive us, with a log file each and a limit on every wait."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

LIFELINE = Path(__file__).with_name("lifeline.py")
LOG_TAIL_BYTES = 2000
POLL_S = 0.05
GUARD_STOP_S = 5.0
KILL_WAIT_S = 10.0

# Below the ranges from which Linux (32768 up) and macOS (49152 up) take ports for outgoing connections, so
# that nobody is given the port of a component while it is being restarted.
PORTS = range(20_000, 32_000)
# A part of them in an environment variable, as `20000-21000`, for whoever starts several things at once: what one
# process has chosen looks free to another until it is bound.
PORTS_VARIABLE = "LOCALRUNNER_PORTS"
PORT_TRIES_MAX = 200


class NotReadyError(Exception):
    """A process did not do in time what was waited for, or ended before."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running program in a process group of its own; `log` holds what it prints."""

    name: str
    process: subprocess.Popen[bytes] = field(repr=False)
    log: Path

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether it runs; a frozen one does."""
        return self.process.poll() is None


class _Lifeline:
    """The guard process, and the thread that forks.

    One thread forks for all: on Linux a child dies with the thread that forked it, and this one lives as
    long as the process does.
    """

    def __init__(self) -> None:
        self.forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._guard: subprocess.Popen[bytes] | None = None
        self._write_fd = -1

    def fd(self) -> int:
        """The end of the pipe on which a guard, started anew if it is gone, hears of groups."""
        with self._lock:
            if self._guard is None or self._guard.poll() is not None:
                self._start()
            return self._write_fd

    def _start(self) -> None:
        if self._write_fd >= 0:
            os.close(self._write_fd)
        read_fd, self._write_fd = os.pipe()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LIFELINE), "guard"],
            stdin=read_fd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        os.close(read_fd)
        os.write(self._write_fd, b"".join(b"+%d\n" % group for group in self._groups))

    def keep(self, group: int) -> None:
        with self._lock:
            self._groups.add(group)

    def forget(self, group: int) -> None:
        """The guard leaves `group` alone: it has ended, and its number may come back as another's."""
        with self._lock:
            if group in self._groups and self._guard is not None:
                self._groups.discard(group)
                # Without a guard there is nobody to tell: the next one hears of living groups only.
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._write_fd, b"-%d\n" % group)

    def close(self) -> None:
        with self._lock:
            if self._guard is not None:
                os.close(self._write_fd)
                self._guard.wait(timeout=GUARD_STOP_S)
                self._guard, self._write_fd = None, -1


_lifeline = _Lifeline()
atexit.register(_lifeline.close)


def spawn(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Child:
    """`command` runs in its own process group, appends to `log`, and dies when this process does.

    `env` replaces the environment, None passes ours on. Standard input is empty. Any thread may call.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    guard_fd = _lifeline.fd()
    launcher = [sys.executable, "-I", "-S", str(LIFELINE), "launch", str(os.getpid()), str(guard_fd)]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                pass_fds=(guard_fd,),
                process_group=0,
            )

    process = _lifeline.forker.submit(start).result()
    _lifeline.keep(process.pid)
    return Child(name, process, log)


def stop(child: Child, timeout_s: float) -> int:
    """`child` has ended, and all of its group: by SIGTERM, or by SIGKILL after `timeout_s`; its exit code.

    A frozen child is thawed first, so that it can obey.
    """
    if child.alive():
        child.process.send_signal(signal.SIGTERM)
        thaw(child.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(timeout=timeout_s)
    return kill(child)


def kill(child: Child) -> int:
    """`child` and all of its group are dead; its exit code."""
    kill_group(child)
    code = child.process.wait(timeout=KILL_WAIT_S)
    _lifeline.forget(child.pid)
    return code


def kill_group(child: Child) -> None:
    """`child` and all of its group have been sent SIGKILL."""
    # Neither error matters: the whole group has ended (macOS refuses where only zombies are left).
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def thaw(pid: int) -> None:
    """The process `pid` is not frozen by SIGSTOP any more, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def log_tail(log: Path) -> str:
    """The end of a log file, for an error that somebody must understand."""
    if not log.exists():
        return ""
    with log.open("rb") as lines:
        lines.seek(0, os.SEEK_END)
        lines.seek(max(0, lines.tell() - LOG_TAIL_BYTES))
        return lines.read().decode(errors="replace").strip()


def wait_until(
    what: str,
    condition: Callable[[], bool],
    timeout_s: float,
    *,
    child: Child | None = None,
    cancelled: threading.Event | None = None,
) -> None:
    """`condition()` was true once.

    Raises:
        NotReadyError: it was not within `timeout_s`, or `child` ended, or `cancelled` was set; the end of the
            child's log is in the text.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if child is not None and not child.alive():
            raise NotReadyError(
                f"{child.name}: ended with code {child.process.returncode} before {what}; its log ends:\n"
                + log_tail(child.log)
            )
        if cancelled is not None and cancelled.is_set():
            raise NotReadyError(f"{what}: no longer waited for, because the stack is stopping")
        if time.monotonic() > deadline:
            tail = f"; its log ends:\n{log_tail(child.log)}" if child is not None else ""
            raise NotReadyError(f"{what}: not within {timeout_s:g} s{tail}")
        time.sleep(POLL_S)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on this port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int, taken: Iterable[int] = ()) -> list[int]:
    """`count` different free ports of the loopback address, at random, none of them among `taken`."""
    avoided = set(taken)
    first, _, end = os.environ.get(PORTS_VARIABLE, f"{PORTS.start}-{PORTS.stop}").partition("-")
    ports = range(int(first), int(end))
    found: list[int] = []
    for _ in range(PORT_TRIES_MAX):
        port = random.choice(ports)
        if port not in found and port not in avoided and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise NotReadyError(f"loopback ports: fewer than {count} free in {ports}; close some servers")
