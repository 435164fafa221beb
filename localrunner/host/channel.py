"""The queue between the thread that polls and the one that runs a function: one executing, a few queued.

Source: Kafka extension 4.3.2, FunctionExecutorBase.cs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from localrunner.host.logs import KAFKA, HostLog

CLOSE_LIMIT_S: Final = 300.0
LOOK_S: Final = 0.1  # how late a reader with nothing to do notices that it should end


@dataclass(frozen=True, slots=True)
class Work:
    """A list of records that the function is to have; `first` is the partition and offset where it begins."""

    first: tuple[int, int]
    run: Callable[[], None]


class Channel:
    """One list is run at a time and `capacity` are queued; `offer` refuses what exceeds that.

    `cancelled` is set by a stop without drain: what runs finishes, and nothing else is run.
    """

    def __init__(self, name: str, capacity: int, cancelled: threading.Event, log: HostLog) -> None:
        self._cancelled = cancelled
        self._log = log
        self._queue: queue.Queue[Work] = queue.Queue(capacity)
        self._complete = threading.Event()
        self._executing = False
        self._reader = threading.Thread(target=self._read, name=f"executor-{name}", daemon=True)
        self._reader.start()

    def offer(self, work: Work) -> bool:
        """Whether there was room."""
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            return False
        return True

    def busy(self) -> bool:
        """Whether offsets may be stored before anything else is offered."""
        return self._executing or not self._queue.empty()

    def close(self, drain: bool) -> bool:
        """Whether the reader ended in time: after all that is queued when draining, else after what executes."""
        if not drain:
            self._cancelled.set()
        self._complete.set()
        self._reader.join(CLOSE_LIMIT_S)
        return not self._reader.is_alive()

    def wait_for_room(self, work: Work, interval_s: float, stopping: threading.Event, topic: str) -> bool:
        """Whether the channel took `work` before the host began to stop; nothing is polled meanwhile.

        Source: Flush: a stop drops what waits here, and it is delivered again.
        """
        said = False
        while not stopping.is_set():
            if self.offer(work):
                return True
            if not said:
                partition, offset = work.first
                self._log.info(
                    KAFKA,
                    f"Channel {topic} / {partition} / {offset} is full, waiting for the function execution to "
                    "catch up",
                )
                said = True
            time.sleep(interval_s)
        return False

    def _read(self) -> None:
        while not self._cancelled.is_set():
            try:
                work = self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                if self._complete.is_set():
                    return
                continue
            self._executing = True
            try:
                work.run()
            except Exception as fault:  # noqa: BLE001 -- as in Azure: the batch is dropped, the trigger lives on
                self._log.error(KAFKA, f"Error in executor reader: {type(fault).__name__}: {fault}")
            finally:
                self._executing = False
