"""Settings become the attributes of the Kafka trigger, and a topic the name of its function."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sinkcore.connections import PEM_BEGINS, Kafka
from sinkcore.declared import declared
from sinkcore.settings import Settings

# The scale controller wants one instance for this many records of lag; about what one takes in half a minute.
# Source: KafkaGenericTargetScaler divides the lag by it; with its default, 1,000, it soon asks for an instance per
# partition.
LAG_THRESHOLD = 100_000
# Unlimited: whoever gives up on a batch loses it. Source: an exhausted policy makes the extension's own retry
# start at once, without a pause.
RETRY: dict[str, Any] = {
    "strategy": "exponential_backoff",
    "max_retry_count": "-1",
    "minimum_interval": "00:00:02",
    "maximum_interval": "00:01:00",
}
_NAME_MAX = 100  # of 128 that the host allows, without prefix and hash
# Protocols and mechanisms as the extension calls them.
_CALLED = {
    "PLAINTEXT": "Plaintext",
    "SSL": "Ssl",
    "SASL_PLAINTEXT": "SaslPlaintext",
    "SASL_SSL": "SaslSsl",
    "PLAIN": "Plain",
    "SCRAM-SHA-256": "ScramSha256",
    "SCRAM-SHA-512": "ScramSha512",
    "OAUTHBEARER": "OAuthBearer",
}
# What stands there as `%NAME%`, by its field of Kafka; where it is PEM text, `PEM` is in the place of `Location`.
_ATTRIBUTES = {
    "brokers": "brokerList",
    "username": "username",
    "password": "password",
    "oauth_token_url": "oAuthBearerTokenEndpointUrl",
    "oauth_client_id": "oAuthBearerClientId",
    "oauth_client_secret": "oAuthBearerClientSecret",
    "oauth_scope": "oAuthBearerScope",
    "oauth_extensions": "oAuthBearerExtensions",
    "ssl_ca": "sslCaLocation",
    "ssl_certificate": "sslCertificateLocation",
    "ssl_key": "sslKeyLocation",
    "ssl_key_password": "sslKeyPassword",
}


def function_name_of(topic: str) -> str:
    """`kafka_<topic>_<hash>`: lower-case letters, digits and underscores, different for every topic.

    Source: the host wants `^[a-z][a-z0-9_\\-]{0,127}$` in any case and skips a function whose name differs from
    another's by case only; without hyphens and dots a name can stand in a setting
    (`AzureWebJobs.<name>.Disabled`). The hash tells `a.b` from `a-b`.
    """
    readable = re.sub(r"[^a-z0-9]+", "_", topic.lower())[:_NAME_MAX].strip("_")
    return f"kafka_{readable}_{hashlib.sha256(topic.encode()).hexdigest()[:8]}"


def kafka_trigger_of(settings: Settings, topic: str) -> dict[str, Any]:
    """The attributes of the topic's Kafka trigger; secrets stand there by the name of their setting.

    Source: attributes reach the host's metadata in the clear, and `%NAME%` is resolved only by the listener.
    Values and keys are binary: the extension's string mode puts an envelope around values and spoils what is not
    UTF-8.
    """
    kafka = settings.kafka
    attributes: dict[str, Any] = {
        "topic": topic,
        "consumerGroup": kafka.group_of(topic),
        "cardinality": "MANY",
        "dataType": "binary",
        "keyDataType": "Binary",
        "protocol": _CALLED[kafka.protocol],
        "lagThreshold": LAG_THRESHOLD,
    }
    if kafka.authentication is not None:
        attributes["authenticationMode"] = _CALLED[kafka.authentication]
    if kafka.authentication == "OAUTHBEARER":
        attributes["oAuthBearerMethod"] = "Oidc"
    for name, attribute in _ATTRIBUTES.items():
        if value := getattr(kafka, name):
            kind = attribute.replace("Location", "PEM") if value.startswith(PEM_BEGINS) else attribute
            attributes[kind] = f"%{declared(Kafka)[name].name}%"
    return attributes
