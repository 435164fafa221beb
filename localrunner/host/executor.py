"""Runs a function for what was consumed, and stores the offsets of what it is done with.

Source: Kafka extension 4.3.2, MultipleItemFunctionExecutor.cs, SingleItemFunctionExecutor.cs and the retry
counters of FunctionExecutorBase.cs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException

from localrunner.host import wire
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.hostjson import KafkaOptions
from localrunner.host.logs import KAFKA, HostLog
from localrunner.host.payload import Batch, Record, Records
from localrunner.host.triggers import HostedFunction

PARTITIONS_MAX: Final = 128  # side by side, where each record is an invocation of its own

Positions = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Execution:
    """A function, where its offsets go, and what a failure means.

    `store` takes a partition and its next offset and may raise KafkaException. `cancelled` is set by a stop
    without drain.
    """

    function: HostedFunction
    topic: str
    options: KafkaOptions
    dispatcher: Dispatcher
    store: Callable[[int, int], None]
    cancelled: threading.Event
    log: HostLog
    _retries: dict[tuple[int, int], int] = field(default_factory=dict)

    def run_batch(self, batch: Batch) -> None:
        """The function has had the batch as often as it failed and may, and its offsets are stored.

        Not so after a stop without drain: then nothing is stored, and even a good batch comes again.
        """
        positions, count = batch.positions, batch.count
        fault = self._execute(batch.input_data, batch.trigger_metadata)
        if self.cancelled.is_set():
            return
        if fault is None or self.options.commit_on_failure:
            self._done(positions)
            return
        shown = f"{count} items in {self._shown(positions)}"
        # From here on a success is stored even while stopping: the source checks only before each attempt.
        while not self.cancelled.is_set():
            if self._exceeded(positions):
                self._say_exceeded(f"Batch execution failed with {shown}")
                self._done(positions)
                return
            self.log.warning(KAFKA, f"Function execution failed with {shown}. Batch will be retried in-place")
            fault = self._execute(batch.input_data, batch.trigger_metadata)
            if fault is None:
                self._done(positions)
                return

    def run_records(self, records: Records) -> None:
        """The function has had each record, partitions side by side, and after each its offset is stored."""
        by_partition: dict[int, list[Record]] = {}
        for record in records.records:
            by_partition.setdefault(record.partition, []).append(record)
        with ThreadPoolExecutor(min(len(by_partition), PARTITIONS_MAX)) as pool:
            for _ in pool.map(self._run_partition, by_partition.values()):
                pass

    def _run_partition(self, records: list[Record]) -> None:
        for record in records:
            self._run_record(record)

    def _run_record(self, record: Record) -> None:
        """Unlike a batch, a record that succeeds is stored though the host stops without drain."""
        position = (record.partition, record.offset + 1)
        shown = f"{self.topic} / {record.partition} / {record.offset}"
        while not self.cancelled.is_set():
            fault = self._execute(record.input_data, record.trigger_metadata)
            if fault is None or self.options.commit_on_failure:
                self._done([position])
                return
            if self._exceeded([position]):
                self._say_exceeded(f"Message at {shown} failed")
                self._done([position])
                return
            self.log.warning(KAFKA, f"Function execution failed for {shown}. Message will be retried in-place")

    def _execute(self, input_data: msgspec.Raw, metadata: msgspec.Raw) -> wire.Fault | None:
        return self.dispatcher.execute(self.function, input_data, metadata, self.cancelled).fault

    def _exceeded(self, positions: Positions) -> bool:
        """Counts a failure; whether `maxRetries` is used up.

        Source: IncrementRetryAndCheckExceeded, which `Any` stops at the first true.
        """
        if self.options.max_retries < 0:
            return False
        for position in positions:
            self._retries[position] = self._retries.get(position, 0) + 1
            if self._retries[position] > self.options.max_retries:
                return True
        return False

    def _say_exceeded(self, what: str) -> None:
        self.log.error(
            KAFKA,
            f"{what} and max retries ({self.options.max_retries}) exceeded. Offsets will be force-committed",
        )

    def _done(self, positions: Positions) -> None:
        """The offsets are stored, up to the first partition that refuses."""
        for position in positions:
            self._retries.pop(position, None)
        for partition, next_offset in positions:
            try:
                self.store(partition, next_offset)
            except KafkaException as fault:
                # A revoked partition refuses; the rest of the batch's partitions are then left out too.
                self.log.error(KAFKA, f"Commit error: {KafkaError(fault.args[0].code()).str()}")
                return
            self.log.info(KAFKA, f"Stored commit offset {self.topic} / {partition} / {next_offset}")

    def _shown(self, positions: Positions) -> str:
        partitions = ",".join(str(partition) for partition, _ in positions)
        offsets = ",".join(str(next_offset) for _, next_offset in positions)
        return f"{self.topic} / {partitions} / {offsets}"
