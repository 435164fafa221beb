"""The local stack as an object: what `up`, `demo` and end-to-end tests start, ask and stop."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

from localrunner.components import adx_part, azurite_part, host_part, kafka_part, registry_part
from localrunner.plan import PORTS_FILE, Plan
from localrunner.processes import NotReadyError, wait_until
from localrunner.settingsfile import SETTINGS_FILE, write_private, write_settings
from localrunner.supervisor import Component, Part

RESTART_S = 20.0
REMOVE_TRIES = 30
REMOVE_PAUSE_S = 0.1


class Stack:
    """Kafka, Azurite, the ADX double and the hosts of a plan; each is started again when it dies.

    `with Stack(plan) as stack:` starts and drains it. `on_change` is called, from a thread of the stack, after
    the first start and whenever a process id has changed.
    """

    def __init__(self, plan: Plan, on_change: Callable[[Stack], None] | None = None) -> None:
        self.plan = plan
        self.stopping = threading.Event()
        self._on_change = on_change
        self._change_lock = threading.Lock()
        self._components: list[Component] = []
        self._answered = False
        self._lock_file: IO[str] | None = None
        self.directory = plan.options.data or Path()

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def addresses(self) -> dict[str, str]:
        """Where everything listens, by the names of the ready file."""
        plan = self.plan
        found = {"kafka": plan.brokers, "engine": plan.engine, "dm": plan.dm, "storage": plan.storage}
        return found if plan.schema_registry is None else {**found, "registry": plan.schema_registry}

    @property
    def settings_file(self) -> Path:
        """The settings that the hosts have, for `sinkctl --settings`; there while the stack is."""
        return self.directory / SETTINGS_FILE

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by name: `supervisor`, `kafka`, `azurite`, `adx`, `host-0`, `worker-0`, ..."""
        pids = {"supervisor": os.getpid()}
        for component in list(self._components):
            pids.update(component.pids)
        return pids

    def start(self) -> None:
        """Every component answers.

        Raises:
            NotReadyError: one did not, or the data directory is another stack's; everything has been stopped.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        self._answered = True
        self._changed()

    def stop(self) -> bool:
        """Nothing runs any more, hosts first; whether every host drained in time.

        What was killed besides has lost nothing: Kafka and Azurite keep what they acknowledged.
        """
        self.stopping.set()
        # Frozen ones are thawed, for hosts cannot drain into a storage that does not answer.
        for component in self._components:
            component.thaw()
        hosts = [one for one in self._components if one.part.name.startswith("host-")]
        adx = [one for one in self._components if one.part.name == "adx"]
        rest = [one for one in self._components if one not in hosts and one not in adx]
        codes = _stop_all(hosts)
        for group in (adx, rest):
            _stop_all(group)
        self._components = []
        if self._lock_file is not None:
            # It may hold secrets, and leads to what does not answer any more.
            self.settings_file.unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None
        self._remove_temporary()
        return -signal.SIGKILL not in codes

    def end_at_once(self) -> None:
        """Every process has been sent SIGKILL, and the temporary directory is gone; fit for a signal's handler."""
        self.stopping.set()
        for component in list(self._components):
            component.kill()
        self._remove_temporary()

    def kill(self, name: str) -> int:
        """The process `name` has been sent SIGKILL; its id. It is started again."""
        pid = self.pids[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, name: str, old_pid: int, timeout_s: float = RESTART_S) -> int:
        """Another process than `old_pid` answers as `name`; its id.

        Raises:
            NotReadyError: not within `timeout_s`.
        """
        wait_until(f"{name} is started again", lambda: self.pids[name] != old_pid, timeout_s)
        return self.pids[name]

    def _start(self) -> None:
        plan = self.plan
        if plan.options.data is None:
            self.directory = Path(tempfile.mkdtemp(prefix="localrunner-"))
        else:
            self._lock_file = _claim(self.directory)
        (self.directory / PORTS_FILE).write_text(json.dumps(dict(plan.ports)))
        write_settings(self.settings_file, plan.values)

        # Azurite comes up while Kafka's directory is formatted, the double while Kafka comes up.
        storage = self._begin(azurite_part) if plan.azurite else None
        kafka = self._begin(kafka_part) if plan.kafka is not None else None
        registry = self._begin(registry_part) if plan.registry else None
        if storage is not None:
            storage.ready()
        adx = self._begin(adx_part) if plan.adx else None
        for component in (kafka, registry, adx):
            if component is not None:
                component.ready()
        hosts = [self._begin(partial(host_part, number=number)) for number in range(plan.options.hosts)]
        for component in hosts:
            component.ready()

    def _remove_temporary(self) -> None:
        if self.plan.options.data is not None or self.directory == Path():
            return
        # Whoever has just been killed may still be writing.
        for _ in range(REMOVE_TRIES):
            shutil.rmtree(self.directory, ignore_errors=True)
            if not self.directory.exists():
                return
            time.sleep(REMOVE_PAUSE_S)

    def _begin(self, part: Callable[[Plan, Path, threading.Event], Part]) -> Component:
        component = Component(part(self.plan, self.directory, self.stopping), self._changed, self.stopping)
        self._components.append(component)
        component.begin()
        return component

    def _changed(self) -> None:
        if self._on_change is not None and self._answered:
            with self._change_lock:
                self._on_change(self)


def _stop_all(components: Sequence[Component]) -> list[int | None]:
    """All of `components` have ended, side by side; their exit codes."""
    with ThreadPoolExecutor(max_workers=max(1, len(components))) as pool:
        return list(pool.map(Component.stop, components))


def _claim(directory: Path) -> IO[str]:
    """`directory` exists and is ours for as long as the file that is returned stays open.

    Raises:
        NotReadyError: another stack has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        lock.close()
        raise NotReadyError(f"--data: {directory} is in use by another stack; stop it, or name another") from fault
    return lock


def write_ready_file(file: Path, stack: Stack) -> None:
    """`file` holds the addresses and process ids of `stack`; nobody ever reads half of it."""
    # The connection string has a key.
    write_private(file, json.dumps({**stack.addresses, "pids": stack.pids}))
