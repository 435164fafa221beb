"""Every client of Kafka that the sink has, and why one got no answer.

The library is imported only where a client is made: a worker that never asks Kafka anything never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sinkcore.connections import Kafka
from sinkcore.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

_Client = TypeVar("_Client")


def partitions_in(metadata: Any, topic: str) -> set[int]:
    """The topic's partitions; none if there is no such topic, or cannot be one.

    Raises:
        KafkaException: the broker refuses to say.
    """
    from confluent_kafka import KafkaError, KafkaException

    found = metadata.topics[topic]
    if found.error is None:
        return set(found.partitions)
    if found.error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION):
        raise KafkaException(found.error)
    return set()


@dataclass(slots=True)
class Connection:
    """Makes clients, and knows the last thing that went wrong on the way to the brokers."""

    kafka: Kafka
    _last: str | None = field(default=None, init=False)

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A consumer with these properties beside the connection's.

        Raises:
            ConfigError: librdkafka refuses a setting, such as a key that its password does not open.
        """
        from confluent_kafka import Consumer

        return self._made(Consumer, config)

    def admin(self) -> AdminClient:
        """A client for questions about topics, groups and offsets.

        Raises:
            ConfigError: as for a consumer.
        """
        from confluent_kafka.admin import AdminClient

        return self._made(AdminClient, {})

    def _made(self, make: Callable[[dict[str, Any]], _Client], config: dict[str, Any]) -> _Client:
        from confluent_kafka import KafkaException

        try:
            return make(self.kafka.client_config() | config | {"error_cb": self._keep})
        except KafkaException as refused:
            text = self.kafka.without_secrets(_text(refused))
            raise ConfigError((f"KAFKA_*: librdkafka refuses the settings: {text}; correct them",)) from None

    def unanswered(
        self, subject: str, fault: KafkaException | TimeoutError, client: AdminClient | Consumer | None = None
    ) -> TransientError:
        """What to raise where Kafka did not answer, or refused to: with the reason, as far as the client knows it.

        Source: a request that nobody could be asked for ends as "timed out"; why the connections failed (refused,
        a certificate, a password) is told to the client's error callback alone.
        """
        if client is not None:
            client.poll(0)
        text = "no answer in time" if isinstance(fault, TimeoutError) else _text(fault)
        known = f" (last: {self._last})" if self._last else ""
        self._last = None
        said = self.kafka.without_secrets(f"kafka: {subject}: {text}{known}")
        return TransientError(f"{said}; it is asked again, see the KAFKA_* settings if it lasts")

    def _keep(self, error: KafkaError) -> None:
        # "All brokers are down" follows upon the reason, and says less.
        if self._last is None or error.name() != "_ALL_BROKERS_DOWN":
            self._last = error.str()


def _text(fault: KafkaException) -> str:
    error: KafkaError = fault.args[0]
    return error.str()
