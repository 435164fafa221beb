"""A listener that runs on one host of an app at a time: the one that holds a lease on a blob.

Source: azure-webjobs-sdk, SingletonListener.cs, SingletonManager.cs and BlobLeaseDistributedLockManager.cs; timers
are such listeners (azure-webjobs-sdk-extensions, TimerListener.cs).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobLeaseClient

from localrunner.host.hostjson import SingletonOptions
from localrunner.host.logs import SINGLETON, HostLog
from localrunner.host.storage import HostStorage
from localrunner.host.timers import TimerListener

RENEW_AGAIN_MIN_S: Final = 1.0
START_AGAIN_FIRST_S: Final = 2.0
START_AGAIN_MAX_S: Final = 120.0
STOP_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Lock:
    """The blob whose lease makes a host the one that runs the function `name`."""

    storage: HostStorage
    name: str

    @property
    def path(self) -> str:
        """Where it is in the container."""
        return f"locks/{self.storage.host_id}/Host.Functions.{self.name}.Listener"

    def acquire(self, period_s: int) -> BlobLeaseClient | None:
        """The lease, until it ends or is renewed; None where another host has it.

        Raises:
            AzureError: storage does not answer, or refuses.
        """
        blob = self.storage.container.get_blob_client(self.path)
        for _ in range(2):
            try:
                return blob.acquire_lease(lease_duration=period_s)
            except ResourceNotFoundError:
                with contextlib.suppress(ResourceExistsError):
                    self.storage.container.create_container()
                with contextlib.suppress(HttpResponseError):
                    blob.upload_blob(b"", overwrite=False)  # another host may have made it, and lease it already
            except HttpResponseError as refused:
                if refused.status_code != 409:
                    raise
                return None
        return None


class SingletonListener:
    """`inner` runs while this host holds the lock; it is tried for again and again where another one has it.

    `on_lost` is called when a lease that was held cannot be renewed: in Azure that shuts the host down, which is
    then started anew, since two hosts might run the function otherwise.
    """

    def __init__(
        self,
        inner: TimerListener,
        lock: Lock,
        options: SingletonOptions,
        on_lost: Callable[[], None],
        log: HostLog,
    ) -> None:
        self._inner = inner
        self._lock = lock
        self._options = options
        self._on_lost = on_lost
        self._log = log
        self._stopping = threading.Event()
        self._inner_ended = threading.Event()
        self._lease: BlobLeaseClient | None = None
        self._thread = threading.Thread(target=self._run, name=f"singleton-{lock.name}", daemon=True)

    def start(self) -> None:
        """The lock is being tried for."""
        self._thread.start()

    def begin_stop(self) -> None:
        """No further invocation begins."""
        self._stopping.set()
        self._inner.begin_stop()

    def stop(self, drain: bool) -> None:
        """No invocation runs any more, and then another host can have the lock."""
        self.begin_stop()
        self._inner.stop(drain)
        self._inner_ended.set()
        self._thread.join(STOP_LIMIT_S)
        if self._lease is not None and not self._thread.is_alive():
            # Source: a lease that is over, or another's by now, is no error.
            with contextlib.suppress(AzureError):
                self._lease.release()
                self._log.debug(SINGLETON, f"Singleton lock released ({self._lock.path})")

    def _run(self) -> None:
        lease = self._acquire()
        if lease is None:
            return
        self._lease = lease
        self._log.debug(SINGLETON, f"Singleton lock acquired ({self._lock.path})")
        self._inner.start()
        self._renew(lease)

    def _acquire(self) -> BlobLeaseClient | None:
        """The lease, however long that takes; None when the host stops before."""
        again_s = START_AGAIN_FIRST_S
        while not self._stopping.is_set():
            try:
                lease = self._lock.acquire(self._options.listener_lock_period_s)
            except AzureError as fault:
                self._log.error(
                    SINGLETON,
                    f"The listener for function '{self._lock.name}' was unable to start: {type(fault).__name__}; "
                    f"trying again in {again_s:g} s",
                )
                self._stopping.wait(again_s)
                again_s = min(2 * again_s, START_AGAIN_MAX_S)
                continue
            if lease is not None:
                return lease
            self._log.debug(SINGLETON, f"Unable to acquire Singleton lock ({self._lock.path})")
            self._stopping.wait(self._options.listener_lock_recovery_polling_interval_s)
        return None

    def _renew(self, lease: BlobLeaseClient) -> None:
        """The lease is renewed at half its time until the function has ended, or is lost.

        Source: SingletonManager.cs: a 5xx is tried again, twice as soon each time; anything else is an unhandled
        exception.
        """
        normal_s = self._options.listener_lock_period_s / 2
        wait_s = normal_s
        while not self._inner_ended.wait(wait_s):
            try:
                lease.renew()
                wait_s = normal_s
            except AzureError as fault:
                status = fault.status_code if isinstance(fault, HttpResponseError) else None
                shown = f"Singleton lock renewal failed for blob '{self._lock.path}' with error code {status}"
                if status is not None and 500 <= status < 600:
                    self._log.warning(SINGLETON, shown)
                    wait_s = max(wait_s / 2, RENEW_AGAIN_MIN_S)
                    continue
                self._log.error(SINGLETON, f"{shown}. An unhandled exception has occurred. Host is shutting down")
                self._lease = None
                self._on_lost()
                return
