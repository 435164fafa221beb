"""Runs a function's batches one after the other, and stores the offsets of those that it is done with.

Source: Kafka extension 4.3.2, FunctionExecutorBase.cs and MultipleItemFunctionExecutor.cs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from localrunner.host import wire
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.hostjson import KafkaOptions
from localrunner.host.logs import KAFKA, HostLog
from localrunner.host.payload import Batch
from localrunner.host.triggers import HostedFunction, KafkaTrigger

CLOSE_LIMIT_S: Final = 300.0
LOOK_S: Final = 0.1  # how late a reader with nothing to do notices that it should end

Positions = Sequence[tuple[int, int]]


class BatchExecutor:
    """One batch executing and `executorChannelCapacity` queued; `offer` refuses what exceeds that.

    `store` takes a partition and its next offset and may raise KafkaException.
    """

    def __init__(
        self,
        function: HostedFunction,
        trigger: KafkaTrigger,
        options: KafkaOptions,
        dispatcher: Dispatcher,
        store: Callable[[int, int], None],
        log: HostLog,
    ) -> None:
        self._function = function
        self._trigger = trigger
        self._options = options
        self._dispatcher = dispatcher
        self._store = store
        self._log = log
        self._channel: queue.Queue[Batch] = queue.Queue(options.executor_channel_capacity)
        self._cancelled = threading.Event()
        self._complete = threading.Event()
        self._retries: dict[tuple[int, int], int] = {}
        self._executing = False
        self._reader = threading.Thread(target=self._read, name=f"executor-{function.name}", daemon=True)
        self._reader.start()

    def offer(self, batch: Batch) -> bool:
        """Whether the channel had room for `batch`."""
        try:
            self._channel.put_nowait(batch)
        except queue.Full:
            return False
        return True

    def busy(self) -> bool:
        """Whether offsets may be stored before another batch is offered."""
        return self._executing or not self._channel.empty()

    def close(self, drain: bool) -> bool:
        """Whether the reader has ended in time: after all queued batches when draining, else after the
        executing one, whose offsets then stay as they were."""
        if not drain:
            self._cancelled.set()
        self._complete.set()
        self._reader.join(CLOSE_LIMIT_S)
        return not self._reader.is_alive()

    def _read(self) -> None:
        while not self._cancelled.is_set():
            try:
                batch = self._channel.get(timeout=LOOK_S)
            except queue.Empty:
                if self._complete.is_set():
                    return
                continue
            self._executing = True
            try:
                self._run(batch)
            except Exception as fault:  # noqa: BLE001 -- as in Azure: the batch is dropped, the trigger lives on
                self._log.error(KAFKA, f"Error in executor reader: {type(fault).__name__}: {fault}")
            finally:
                self._executing = False

    def _run(self, batch: Batch) -> None:
        positions, count = batch.positions, batch.count
        fault = self._execute(batch)
        if self._cancelled.is_set():
            return  # a stop without drain stores nothing, so that even a good batch comes again
        if fault is None or self._options.commit_on_failure:
            self._done(positions)
            return
        # From here on a success is stored even while stopping: the source checks only before each attempt.
        while not self._cancelled.is_set():
            if self._exceeded(positions):
                self._log.error(
                    KAFKA,
                    f"Batch execution failed with {count} items in {self._shown(positions)} and max retries "
                    f"({self._options.max_retries}) exceeded. Offsets will be force-committed",
                )
                self._done(positions)
                return
            self._log.warning(
                KAFKA,
                f"Function execution failed with {count} items in {self._shown(positions)}. Batch will be "
                "retried in-place",
            )
            fault = self._execute(batch)
            if fault is None:
                self._done(positions)
                return

    def _execute(self, batch: Batch) -> wire.Fault | None:
        return self._dispatcher.execute(self._function, batch.input_data, batch.trigger_metadata, self._cancelled)

    def _exceeded(self, positions: Positions) -> bool:
        """Counts a failure of the batch; whether `maxRetries` is used up.

        Source: FunctionExecutorBase.IncrementRetryAndCheckExceeded, which `Any` stops at the first true.
        """
        if self._options.max_retries < 0:
            return False
        for position in positions:
            self._retries[position] = self._retries.get(position, 0) + 1
            if self._retries[position] > self._options.max_retries:
                return True
        return False

    def _done(self, positions: Positions) -> None:
        """The offsets are stored, up to the first partition that refuses."""
        for position in positions:
            self._retries.pop(position, None)
        for partition, next_offset in positions:
            try:
                self._store(partition, next_offset)
            except KafkaException as fault:
                # A revoked partition refuses; the rest of the batch's partitions are then left out too.
                self._log.error(KAFKA, f"Commit error: {KafkaError(fault.args[0].code()).str()}")
                return
            self._log.info(KAFKA, f"Stored commit offset {self._trigger.topic} / {partition} / {next_offset}")

    def _shown(self, positions: Positions) -> str:
        partitions = ",".join(str(partition) for partition, _ in positions)
        offsets = ",".join(str(next_offset) for _, next_offset in positions)
        return f"{self._trigger.topic} / {partitions} / {offsets}"


def wait_for_room(
    executor: BatchExecutor, batch: Batch, interval_s: float, stopping: threading.Event, log: HostLog, topic: str
) -> bool:
    """Whether the executor took `batch` before the host began to stop; nothing is polled meanwhile.

    Source: FunctionExecutorBase.Flush: a stop drops the batch that waits here, and it is delivered again.
    """
    said = False
    while not stopping.is_set():
        if executor.offer(batch):
            return True
        if not said:
            partition, offset = batch.first
            log.info(
                KAFKA,
                f"Channel {topic} / {partition} / {offset} is full, waiting for the function execution to "
                "catch up",
            )
            said = True
        time.sleep(interval_s)
    return False
