"""The `KAFKA_*` settings as librdkafka's configuration: one translation for every client that the sink has.

The library is imported only where a client is made: a worker that never asks Kafka anything never pays for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sinkcore.connections import Kafka
from sinkcore.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

# Azure's load balancers forget a connection that was silent for 4 minutes, and so does Event Hubs.
IDLE_MAX_MS = 180_000
PEM_BEGINS = "-----BEGIN"
APP = Path(__file__).resolve().parent.parent
_FILES = (("ca", "ssl_ca"), ("certificate", "ssl_certificate"), ("key", "ssl_key"))
_SECRETS = ("password", "oauth_client_secret", "ssl_key_password")


def client_config(kafka: Kafka) -> dict[str, Any]:
    """librdkafka's properties for a connection by these settings; only those that are set.

    Source: librdkafka's CONFIGURATION.md. Its log lines are off, since what matters also comes as an error.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.brokers,
        "client.id": "adx-sink",
        "allow.auto.create.topics": False,  # brokers make topics that a client mentions, unless it says this
        "security.protocol": kafka.protocol,
        "sasl.mechanism": kafka.authentication,
        "sasl.username": kafka.username,
        "sasl.password": kafka.password,
        "ssl.key.password": kafka.ssl_key_password,
        "connections.max.idle.ms": IDLE_MAX_MS,
        "metadata.max.age.ms": IDLE_MAX_MS,
        "socket.keepalive.enable": True,
        "log_level": 0,
    }
    for name, setting in _FILES:
        value = getattr(kafka, setting)
        if value is not None:
            config |= _pem_or_path(name, value)
    if kafka.authentication == "OAUTHBEARER":
        config |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": kafka.oauth_token_url,
            "sasl.oauthbearer.client.id": kafka.oauth_client_id,
            "sasl.oauthbearer.client.secret": kafka.oauth_client_secret,
            "sasl.oauthbearer.scope": kafka.oauth_scope,
            "sasl.oauthbearer.extensions": kafka.oauth_extensions,
        }
    return {name: value for name, value in config.items() if value is not None}


def _pem_or_path(name: str, value: str) -> dict[str, str]:
    """PEM text by one property, a file by another, as the trigger takes them.

    Source: the Kafka extension's PEMExtractor.cs reads a backslash and an n in PEM text as a line's end, and its
    AzureFunctionsFileHelper.cs looks for a file that is not at its path by its name in the app's directory.
    """
    if value.startswith(PEM_BEGINS):
        return {f"ssl.{name}.pem": value.replace("\\n", "\n")}
    beside = APP / Path(value).name
    return {f"ssl.{name}.location": str(beside) if beside.exists() and not Path(value).exists() else value}


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
        from confluent_kafka import Consumer, KafkaException

        try:
            return Consumer(client_config(self.kafka) | config | {"error_cb": self._keep})
        except KafkaException as refused:
            raise self._unusable(refused) from None

    def admin(self) -> AdminClient:
        """A client for questions about topics, groups and offsets.

        Raises:
            ConfigError: librdkafka refuses a setting.
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            return AdminClient(client_config(self.kafka) | {"error_cb": self._keep})
        except KafkaException as refused:
            raise self._unusable(refused) from None

    def unanswered(
        self, subject: str, fault: KafkaException | TimeoutError, client: AdminClient | Consumer | None = None
    ) -> TransientError:
        """What to raise where Kafka did not answer, or refused to: with the reason, as far as the client knows it.

        Source: a request that nobody could be asked for ends as "timed out"; why the connections failed (refused,
        a certificate, a password) is told to the client's error callback alone.
        """
        if client is not None:
            client.poll(0)
        found = _error_of(fault)
        text = "no answer in time" if found is None else found.str()
        known = f" (last: {self._last})" if self._last else ""
        self._last = None
        return TransientError(
            self._clean(
                f"kafka: {subject}: {text}{known}; it is asked again, see the KAFKA_* settings if it lasts"
            )
        )

    def _keep(self, error: KafkaError) -> None:
        # "All brokers are down" follows upon the reason, and says less.
        if self._last is None or error.name() != "_ALL_BROKERS_DOWN":
            self._last = error.str()

    def _unusable(self, fault: KafkaException) -> ConfigError:
        error = _error_of(fault)
        text = str(fault) if error is None else error.str()
        return ConfigError((self._clean(f"KAFKA_*: librdkafka refuses the settings: {text}; correct them"),))

    def _clean(self, text: str) -> str:
        """The library does not print secrets, but what an identity provider answers may."""
        for name in _SECRETS:
            secret = getattr(self.kafka, name)
            if secret:
                text = text.replace(secret, "***")
        return text


def _error_of(fault: KafkaException | TimeoutError) -> KafkaError | None:
    return None if isinstance(fault, TimeoutError) else fault.args[0]
