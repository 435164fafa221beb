"""Ties a child to its parent's life: run as a script, and by `processes.py` alone.

`launch` becomes the child. It tells the guard its process group before it turns into the program, so there is
no moment at which the child runs and nobody would end it. `guard` reads those lines until the parent is gone,
however it went, and kills the groups that are left.

Source: prctl(2): PR_SET_PDEATHSIG survives execve, and is sent when the *thread* that forked ends.
Source: pipe(7): a reader sees the end of a pipe once the last writer is gone; short writes are atomic.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def guard() -> None:
    """Every group named on standard input, and not taken back, is dead after its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def launch(parent: int, guard_fd: int, command: list[str]) -> None:
    """This process is `command`, known to the guard, and dies with `parent`."""
    os.write(guard_fd, b"+%d\n" % os.getpgrp())
    os.set_inheritable(guard_fd, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("lifeline: the parent is already gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 -- there is no shell, and the command is ours
    except OSError as fault:
        sys.exit(f"{command[0]}: cannot be started: {fault.strerror}")


if __name__ == "__main__":
    if sys.argv[1] == "guard":
        guard()
    else:
        launch(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
