"""Children that cannot outlive their parent, and waits that end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localrunner.plan import ROOT
from localrunner.processes import Child, NotReadyError, free_ports, kill, spawn, stop, wait_until
from tests.localrunner.processes import eventually, family, living

PARENT = """\
import pathlib, sys, time
from localrunner.processes import spawn
spawn("child", ["sh", "-c", "sleep 300 & sleep 300; :"], pathlib.Path(sys.argv[1]))
print("spawned", flush=True)
time.sleep(300)
"""

Spawned = Callable[..., Child]


@pytest.fixture
def spawned(tmp_path: Path) -> Iterator[Spawned]:
    """Spawns shell scripts, and ends what is left of them."""
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(spawn("script", ["sh", "-c", script], tmp_path / "log"))
        return children[-1]

    yield start
    for child in children:
        kill(child)


def test_children_and_theirs_are_gone_when_their_parent_is_killed(tmp_path: Path) -> None:
    """The parent cannot clean up here: the kernel ends the child, and the guard what the child has started."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == b"spawned\n"
        # The parent, its guard, the shell and its two sleeps.
        eventually("all of the family runs", lambda: len(family(parent.pid)) == 5, 20)
        everyone = family(parent.pid)
        parent.kill()
        parent.wait()
    eventually("nobody of the family is left", lambda: not living(everyone), 20)


def test_a_child_outlives_the_thread_that_asked_for_it(spawned: Spawned) -> None:
    """On Linux a child that wants to die with its parent dies with the thread that forked it."""
    found: list[Child] = []

    def ask() -> None:
        found.append(spawned("echo ready; sleep 300"))
        wait_until("the child runs", lambda: "ready" in found[0].log.read_text(), 20, child=found[0])

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        found[0].process.wait(timeout=0.5)


def test_stop_gives_a_child_the_time_to_end_by_itself(spawned: Spawned) -> None:
    child = spawned("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    wait_until("the trap is set", lambda: "ready" in child.log.read_text(), 20, child=child)
    assert stop(child, 20) == 7


def test_stop_kills_what_does_not_end_in_time_and_all_of_its_group(spawned: Spawned) -> None:
    child = spawned("trap '' TERM; sleep 300 & echo ready; wait; sleep 300")
    wait_until("the trap is set", lambda: "ready" in child.log.read_text(), 20, child=child)
    everyone = family(child.pid)
    assert stop(child, 0.2) == -signal.SIGKILL
    eventually("its group is gone", lambda: not living(everyone), 20)


def test_stop_thaws_a_frozen_child(spawned: Spawned) -> None:
    """A frozen one could not obey, and would be killed with its work half done."""
    child = spawned("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    wait_until("the trap is set", lambda: "ready" in child.log.read_text(), 20, child=child)
    os.kill(child.pid, signal.SIGSTOP)
    assert stop(child, 20) == 7


def test_waiting_for_a_child_that_ends_shows_the_end_of_its_log(spawned: Spawned) -> None:
    """Nobody should have to look for the log file to learn what was wrong."""
    child = spawned("echo what was wrong; exit 3")
    with pytest.raises(NotReadyError, match=r"code 3 before it answers(.|\n)*what was wrong"):
        wait_until("it answers", lambda: False, 20, child=child)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    child = spawn("missing", ["no-such-program"], tmp_path / "log")
    with pytest.raises(NotReadyError, match="no-such-program: cannot be started"):
        wait_until("it answers", lambda: False, 20, child=child)
    kill(child)


def test_a_wait_ends_at_its_limit_and_when_it_is_cancelled() -> None:
    with pytest.raises(NotReadyError, match=r"something: not within 0\.1 s"):
        wait_until("something", lambda: False, 0.1)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(NotReadyError, match="no longer waited for"):
        wait_until("something", lambda: False, 60, cancelled=cancelled)


def test_free_ports_are_different_and_lie_outside_of_the_kernels_own_choice() -> None:
    """A port from the kernel's range may be given to anybody's outgoing connection while a server is down."""
    ports = free_ports(50, taken=[20_000])
    assert len(set(ports)) == 50
    assert all(20_000 < port < 32_000 for port in ports)
