"""One function's Kafka consumer: polls, forms batches, and hands them to the function's executor.

Source: Kafka extension 4.3.2, KafkaListener.cs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from localrunner.host import payload
from localrunner.host.channel import Channel, Work
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.executor import Execution
from localrunner.host.hostjson import KafkaOptions
from localrunner.host.logs import KAFKA, HostLog
from localrunner.host.triggers import HostedFunction, KafkaTrigger

SUBSCRIBER_STOP_S: Final = 10.0
POLL_SLICE_S: Final = 0.2  # how late a subscriber notices that the host stops
BUSY_SLICE_S: Final = 0.02  # how late a batch that has ended is stored
CHUNK_RECORDS: Final = 1_000
FETCH_QUEUE_BACKOFF_MS: Final = 10
_OPTIONAL: Final = {
    "session.timeout.ms": "session_timeout_ms",
    "max.poll.interval.ms": "max_poll_interval_ms",
    "metadata.max.age.ms": "metadata_max_age_ms",
    "topic.metadata.refresh.interval.ms": "metadata_max_age_ms",
    "socket.keepalive.enable": "socket_keepalive_enable",
    "queued.min.messages": "queued_min_messages",
    "queued.max.messages.kbytes": "queued_max_messages_kbytes",
    "max.partition.fetch.bytes": "max_partition_fetch_bytes",
    "fetch.max.bytes": "fetch_max_bytes",
    "reconnect.backoff.ms": "reconnect_backoff_ms",
    "reconnect.backoff.max.ms": "reconnect_backoff_max_ms",
    "statistics.interval.ms": "statistics_interval_ms",
    "debug": "libkafka_debug",
}


def client_properties(client: Mapping[str, str], options: KafkaOptions) -> dict[str, Any]:
    """The consumer's librdkafka properties: the trigger's and host.json's.

    Two are ours and not the extension's. A queue that was full is looked at again after 10 ms instead of a
    second, without which a backlog comes at 28,000 records/s instead of 400,000 (measured). And metadata is
    refreshed at the age that metadataMaxAgeMs gives it: by that age alone librdkafka finds topics made later,
    but does not join the group again for partitions made later (measured; its refresh is every 5 minutes).
    """
    properties: dict[str, Any] = {
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
        "auto.commit.interval.ms": options.auto_commit_interval_ms,
        "auto.offset.reset": options.auto_offset_reset,
        "fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS,
        **client,
    }
    for name, option in _OPTIONAL.items():
        value = getattr(options, option)
        if value is not None:
            properties[name] = value
    return properties


class KafkaListener:
    """A consumer in its group, from `start` until `stop`."""

    def __init__(
        self,
        function: HostedFunction,
        trigger: KafkaTrigger,
        options: KafkaOptions,
        dispatcher: Dispatcher,
        log: HostLog,
    ) -> None:
        self._trigger = trigger
        self._options = options
        self._log = log
        self._stopping = threading.Event()
        self._readable = payload.readable(trigger.key_type)
        properties = client_properties(trigger.client, options) | {
            "error_cb": self._on_error,
            "logger": _RdkafkaLog(log),
        }
        self._consumer = Consumer(properties)
        self._turns = Turns()
        self._closing = threading.Lock()
        self._closed = False
        cancelled = threading.Event()
        self._execution = Execution(function, trigger.topic, options, dispatcher, self._store, cancelled, log)
        self._channel = Channel(function.name, options.executor_channel_capacity, cancelled, log)
        self._subscriber = threading.Thread(
            target=self._subscribe, name=f"subscriber-{function.name}", daemon=True
        )

    def start(self) -> None:
        """The consumer joins its group; its functions run from now on."""
        self._consumer.subscribe(
            [self._trigger.topic], on_assign=self._said("Assigned"), on_revoke=self._said("Revoked")
        )
        self._subscriber.start()

    def begin_stop(self) -> None:
        """No further batch is formed."""
        self._stopping.set()

    def stop(self, drain: bool) -> None:
        """The consumer has left its group; see `Channel.close` for what was run. A second stop waits for it."""
        self.begin_stop()
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if not self._channel.close(drain):
                self._log.warning(KAFKA, f"{self._trigger.topic}: the function still runs; it is left behind")
            self._subscriber.join(SUBSCRIBER_STOP_S)
            self._consumer.close()

    def _store(self, partition: int, next_offset: int) -> None:
        position = TopicPartition(self._trigger.topic, partition, next_offset)
        with self._turns.between_polls():
            self._consumer.store_offsets(offsets=[position])

    def _subscribe(self) -> None:
        batch: list[Message] = []
        try:
            while not self._stopping.is_set():
                batch = self._window(batch)
        except KafkaException as fault:
            self._log.error(KAFKA, f"Error in Kafka subscriber: {fault}")
        self._log.info(KAFKA, f"Exiting ProcessSubscription for {self._trigger.topic}")

    def _window(self, batch: list[Message]) -> list[Message]:
        """What is left over after one window: a part of a batch only where a full one was flushed in it.

        The list is never cleared for a rebalance, so it can hold records of partitions that were revoked,
        and run backwards where they came again.
        """
        options = self._options
        deadline = time.monotonic() + options.subscriber_interval_in_seconds
        flushed = False
        while (left_s := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            taken = self._take(options.max_batch_size - len(batch), left_s)
            if taken is None:
                break
            batch += taken
            if len(batch) >= options.max_batch_size:
                batch = self._flush(batch)
                flushed = True
        if not flushed:
            batch = self._flush(batch)
            self._stopping.wait(options.subscriber_idle_backoff_ms / 1000)
        return batch

    def _take(self, room: int, wait_s: float) -> list[Message] | None:
        """Up to `room` records, as soon as there is one; None when there was none for `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            slice_s = BUSY_SLICE_S if self._channel.busy() else POLL_SLICE_S
            with self._turns.polling():
                first = self._consumer.poll(max(0.0, min(slice_s, deadline - time.monotonic())))
                if first is not None:
                    return self._good([first, *self._more(room - 1)])
            if time.monotonic() >= deadline or self._stopping.is_set():
                return None

    def _more(self, room: int) -> list[Message]:
        """What is there without waiting, up to `room` records and to the next look at other duties.

        One by one, as the extension takes them: of what one call for many has collected, librdkafka drops what
        belongs to a partition that is revoked in that moment.
        """
        poll = self._consumer.poll
        more: list[Message] = []
        while len(more) < min(room, CHUNK_RECORDS) and (message := poll(0)) is not None:
            more.append(message)
        return more

    def _good(self, messages: list[Message]) -> list[Message]:
        if self._readable is None and not any(message.error() for message in messages):
            return messages
        good = []
        for message in messages:
            fault = message.error()
            if fault is None and (self._readable is None or self._readable(message)):
                good.append(message)
            else:
                reason = "the key has not the length of its type" if fault is None else fault.str()
                self._log.error(KAFKA, f"Consume error: {reason}")
        return good

    def _flush(self, batch: list[Message]) -> list[Message]:
        if batch:
            interval_s = self._options.channel_full_retry_interval_in_ms / 1000
            self._channel.wait_for_room(self._work(batch), interval_s, self._stopping, self._trigger.topic)
        return []

    def _work(self, messages: list[Message]) -> Work:
        """Built here, in the thread that polls, so that it overlaps with the invocation before."""
        if self._trigger.many:
            batch = payload.batch_of(messages, self._trigger)
            return Work(batch.first, partial(self._execution.run_batch, batch))
        records = payload.records_of(messages, self._trigger)
        return Work(records.first, partial(self._execution.run_records, records))

    def _said(self, what: str) -> Callable[[Consumer, list[TopicPartition]], None]:
        def callback(_: Consumer, partitions: list[TopicPartition]) -> None:
            shown = ", ".join(f"{partition.topic} [{partition.partition}]" for partition in partitions)
            self._log.info(KAFKA, f"{what} partitions: [{shown}]")

        return callback

    def _on_error(self, fault: KafkaError) -> None:
        self._log.error(KAFKA, fault.str())


class Turns:
    """Lets a thread that stores offsets in between two polls, before the next one begins.

    Source: confluent-kafka 2.16 lets one thread at a time into a consumer, in no order: measured, a thread
    that stores can wait for as long as another one polls. The extension's client has no such gate.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._polling = False
        self._storing = 0

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Nobody stores meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._storing == 0)
            self._polling = True
        try:
            yield
        finally:
            with self._changed:
                self._polling = False
                self._changed.notify_all()

    @contextmanager
    def between_polls(self) -> Iterator[None]:
        """Nobody polls meanwhile."""
        with self._changed:
            self._storing += 1
            self._changed.wait_for(lambda: not self._polling)
        try:
            yield
        finally:
            with self._changed:
                self._storing -= 1
                self._changed.notify_all()


class _RdkafkaLog:
    """librdkafka's own lines, in the shape of the logger that the client wants."""

    def __init__(self, log: HostLog) -> None:
        self._log = log

    def log(self, level: int, template: str, *values: object) -> None:
        """One line; `level` is a number of the `logging` module."""
        name = {10: "debug", 20: "information", 30: "warning"}.get(level, "error")
        self._log.write(name, KAFKA, "Libkafka: " + (template % values if values else template))


def describe(trigger: KafkaTrigger) -> str:
    """The trigger for a log line, without secrets."""
    return json.dumps({"topic": trigger.topic, "group": trigger.client["group.id"]})
