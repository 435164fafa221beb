"""Who runs next: processes take turns at every call to the outside, in an order that a seed decides.

Each process's code is ordinary blocking code in a thread of its own, and exactly one thread runs at a time: whoever
waits runs what is due next, or hands the baton to whose turn it is. So the order depends on the simulated time
alone. (A switch costs about 8 µs; with the package greenlet it would be 0.6 µs, some hundredths of a run's time.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from tests.support.memory import ManualClock


class Killed(BaseException):
    """The process ends here; nothing catches it, as nothing catches SIGKILL."""


class Process(Protocol):
    """What a task belongs to: while it is frozen, its tasks do not run."""

    frozen_until_ms: int


@dataclass
class Always:
    """A process that is never frozen: the world itself."""

    frozen_until_ms: int = 0


@dataclass(eq=False)
class Task:
    """Code that takes turns with other code. `error` says how it ended, if it ended badly."""

    name: str
    process: Process
    run: Callable[[], object]
    on_end: Callable[[Task], None]
    started_ms: int = 0
    calls: int = 0
    doomed: bool = False
    done: bool = False
    error: BaseException | None = None
    turn: int = -1
    thread: _Thread | None = None


class Scheduler:
    """Simulated time, and the queue of what is due when. Of things due at once, the first one put there goes first."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.world = Task("world", Always(), lambda: None, lambda _: None)
        self.world.thread = _Thread(main=True)
        self.current = self.world
        self.tasks: dict[Task, None] = {}
        self._due: list[tuple[int, int, Task | Callable[[], None]]] = []
        self._count = 0
        self._crash: BaseException | None = None

    def after(self, delay_ms: int, call: Callable[[], None]) -> None:
        """`call` will be made then; it must not wait."""
        self._count += 1
        heappush(self._due, (self.clock.ms + delay_ms, self._count, call))

    def spawn(
        self, name: str, process: Process, run: Callable[[], object], on_end: Callable[[Task], None]
    ) -> Task:
        """A new task, which begins as soon as the one that runs waits."""
        task = Task(name, process, run, on_end, self.clock.ms)
        self.tasks[task] = None
        self._wake(task, self.clock.ms)
        return task

    def sleep(self, delay_ms: int) -> None:
        """The running task goes on after so long, or when its process is no longer frozen."""
        me = self.current
        self._wake(me, self.clock.ms + delay_ms)
        self._give_way(me)
        if me is self.world and self._crash is not None:
            raise self._crash
        if me.doomed:
            raise Killed

    def kill(self, task: Task) -> None:
        """The task ends where it stands; if it is the one that runs, at its next wait."""
        task.doomed = True
        if task is not self.current and not task.done:
            self._wake(task, self.clock.ms)

    def end(self) -> None:
        """No task is left, and no thread holds one."""
        for task in list(self.tasks):
            self.kill(task)
        while self.tasks:
            self.sleep(0)

    def _wake(self, task: Task, at_ms: int) -> None:
        self._count += 1
        task.turn = self._count
        heappush(self._due, (at_ms, self._count, task))

    def _give_way(self, me: Task | None) -> None:
        """What is due is run, until it is `me`'s turn, or (without `me`) another task's."""
        while True:
            at_ms, number, due = heappop(self._due)
            if not isinstance(due, Task):
                self.clock.ms = at_ms
                self.current = self.world
                try:
                    due()
                except BaseException as error:  # noqa: BLE001 - a fault of the simulation: the world's thread raises it
                    self._crash = error
                    self._wake(self.world, 0)
                continue
            if due.turn != number:
                continue
            if due.process.frozen_until_ms > at_ms and not due.doomed:
                self._wake(due, due.process.frozen_until_ms)
                continue
            self.clock.ms = max(at_ms, self.clock.ms)
            self.current = due
            if due is not me:
                self._hand_over(due, me)
            return

    def _hand_over(self, due: Task, me: Task | None) -> None:
        if due.thread is None:
            due.thread = _IDLE.pop() if _IDLE else _Thread()
            due.thread.job = lambda: self._run(due)
        due.thread.go.release()
        if me is not None:
            assert me.thread is not None
            me.thread.go.acquire()

    def _run(self, task: Task) -> None:
        try:
            if not task.doomed:
                task.run()
        except Killed as killed:
            task.error = killed
        except Exception as error:  # noqa: BLE001 - whatever the code under test raises is for the checks to judge
            task.error = error
        if task.doomed and task.error is None:
            task.error = Killed()
        task.done = True
        del self.tasks[task]
        try:
            task.on_end(task)
        except Exception as error:  # noqa: BLE001 - as above
            self._crash = error
            self._wake(self.world, 0)
        assert task.thread is not None
        _IDLE.append(task.thread)
        self._give_way(None)


class _Thread:
    """A thread that runs one job after the other, each when it is given the baton."""

    def __init__(self, *, main: bool = False) -> None:
        self.go = threading.Lock()
        self.go.acquire()
        self.job: Callable[[], None] = lambda: None
        if not main:
            threading.Thread(target=self._work, daemon=True, name="simulated").start()

    def _work(self) -> None:
        while True:
            self.go.acquire()
            self.job()


_IDLE: list[_Thread] = []


@dataclass
class Trace:
    """What happened, one line an event: when, who, what, and how it ended."""

    scheduler: Scheduler
    lines: list[str] = field(default_factory=list)
    since_ms: int = 0

    def __post_init__(self) -> None:
        self.since_ms = self.scheduler.clock.ms

    def add(self, who: str, what: str, outcome: str = "") -> None:
        at_ms = self.scheduler.clock.ms - self.since_ms
        self.lines.append(f"{at_ms / 1000:11.3f} {who:<12} {what}{' -> ' if outcome else ''}{outcome}")
