"""Topics on a real broker, filled as a test needs them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import confluent_kafka.admin
from confluent_kafka import Consumer, IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

ANSWER_S = 60.0
POLL_S = 0.05
BATCH_BYTES = 16_384  # a broker hands out whole batches, so that this is the least a question can cost


class Topics:
    """What tests do to topics: each call returns when the broker has done it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._transactional: Producer | None = None

    def make(self, name: str = "", partitions: int = 1, **config: str) -> str:
        """There is a new topic of this name, or of a name of its own; in `config`, `_` stands for a dot.

        It keeps records with old timestamps, which would otherwise be gone at the broker's next look at retention.
        """
        name = name or f"test-{uuid.uuid4().hex[:12]}"
        settings = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in config.items()}
        self._done(self.admin.create_topics([NewTopic(name, partitions, config=settings)]))
        # The broker answers before every part of it knows the topic.
        wait_for("the new topic is known", lambda: name in self.admin.list_topics(timeout=ANSWER_S).topics)
        return name

    def drop(self, name: str) -> None:
        """There is no topic of this name."""
        self._done(self.admin.delete_topics([name]))
        wait_for("the topic is gone", lambda: name not in self.admin.list_topics(timeout=ANSWER_S).topics)

    def enlarge(self, name: str, partitions: int) -> None:
        """The topic has so many partitions."""
        self._done(self.admin.create_partitions([NewPartitions(name, partitions)]))

        def known() -> bool:
            found = self.admin.list_topics(name, timeout=ANSWER_S).topics[name]
            return len(found.partitions) == partitions

        wait_for("the new partitions are known", known)

    def delete_before(self, name: str, partition: int, offset: int) -> None:
        """The low watermark is `offset`, as after retention."""
        self._done(self.admin.delete_records([TopicPartition(name, partition, offset)]))

    def commit_offsets(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """The group has these offsets, by topic and partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0})
        places = [TopicPartition(name, partition, offset) for (name, partition), offset in offsets.items()]
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()

    def compact_soon(self) -> None:
        """The broker looks for segments to compact twenty times a second, not every 15 s."""
        api: Any = confluent_kafka.admin
        backoff = api.ConfigEntry("log.cleaner.backoff.ms", "50", incremental_operation=api.AlterConfigOpType.SET)
        broker = api.ConfigResource(api.ConfigResource.Type.BROKER, "1", incremental_configs=[backoff])
        self._done(self.admin.incremental_alter_configs([broker]))

    def fill(
        self, name: str, values: Sequence[bytes | None], partition: int = 0, **columns: Sequence[Any]
    ) -> None:
        """The values are in the partition; `columns` are `key`, `timestamp` and `headers`, one entry a value."""
        # A producer remembers the partitions that a topic had, so each gets a new one.
        config = {
            "message.max.bytes": 10_000_000,
            "batch.size": BATCH_BYTES,
            "enable.idempotence": True,
            "log_level": 0,
        }
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True, **config})
        self._produce(producer, name, values, partition, columns)

    def commit(self, name: str, count: int, partition: int = 0) -> None:
        """A transaction of `count` records is committed; its marker takes one offset more."""
        self.open(name, count, partition).commit_transaction(ANSWER_S)
        self._await_marker(name, partition)

    def abort(self, name: str, count: int, partition: int = 0) -> None:
        """A transaction of `count` records is aborted; its marker takes one offset more."""
        self.open(name, count, partition).abort_transaction(ANSWER_S)
        self._await_marker(name, partition)

    def open(self, name: str, count: int, partition: int = 0) -> Producer:
        """A transaction of `count` records is in the log, neither committed nor aborted."""
        if self._transactional is None:
            config = {"bootstrap.servers": self.bootstrap, "transactional.id": uuid.uuid4().hex, "log_level": 0}
            self._transactional = Producer(config)
            self._transactional.init_transactions(ANSWER_S)
        self._transactional.begin_transaction()
        self._produce(self._transactional, name, [b"in a transaction"] * count, partition, {})
        return self._transactional

    def _await_marker(self, name: str, partition: int) -> None:
        """The transaction's marker is in the log. A broker answers before, and other records could come first."""

        def end(level: IsolationLevel) -> int:
            place = TopicPartition(name, partition)
            latest: Any = confluent_kafka.admin
            asked = {place: latest.OffsetSpec.latest()}
            future = self.admin.list_offsets(asked, isolation_level=level)[place]
            return int(future.result(ANSWER_S).offset)

        # Until then the last stable offset is the transaction's first.
        wait_for(
            "the marker is written",
            lambda: end(IsolationLevel.READ_COMMITTED) == end(IsolationLevel.READ_UNCOMMITTED),
        )

    def _produce(
        self,
        producer: Producer,
        name: str,
        values: Sequence[bytes | None],
        partition: int,
        columns: Mapping[str, Sequence[Any]],
    ) -> None:
        faults: list[Any] = []
        for n, value in enumerate(values):
            each = {column: entries[n] for column, entries in columns.items() if entries[n] is not None}
            producer.produce(
                name, value, partition=partition, on_delivery=lambda error, _: faults.append(error), **each
            )
        assert producer.flush(ANSWER_S) == 0
        assert faults == [None] * len(values)

    @staticmethod
    def _done(futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            future.result(ANSWER_S)


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = ANSWER_S) -> None:
    """`condition()` was true once, before the time was over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
