"""Settings become the attributes of the Kafka trigger, and a topic the name of its function."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sinkcore.connections import Kafka
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
_PROTOCOLS = {
    "PLAINTEXT": "Plaintext",
    "SSL": "Ssl",
    "SASL_PLAINTEXT": "SaslPlaintext",
    "SASL_SSL": "SaslSsl",
}
_MECHANISMS = {
    "PLAIN": "Plain",
    "SCRAM-SHA-256": "ScramSha256",
    "SCRAM-SHA-512": "ScramSha512",
    "OAUTHBEARER": "OAuthBearer",
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
        "brokerList": "%KAFKA_BROKERS%",
        "consumerGroup": kafka.group_of(topic),
        "cardinality": "MANY",
        "dataType": "binary",
        "keyDataType": "Binary",
        "protocol": _PROTOCOLS[kafka.protocol],
        "lagThreshold": LAG_THRESHOLD,
    }
    if kafka.authentication is not None:
        attributes["authenticationMode"] = _MECHANISMS[kafka.authentication]
    return attributes | _credentials(kafka) | _certificates(kafka)


def _credentials(kafka: Kafka) -> dict[str, Any]:
    oauth = kafka.authentication == "OAUTHBEARER"
    names = {
        "username": ("KAFKA_USERNAME", kafka.username),
        "password": ("KAFKA_PASSWORD", kafka.password),
        "oAuthBearerClientId": ("KAFKA_OAUTH_CLIENT_ID", kafka.oauth_client_id),
        "oAuthBearerClientSecret": ("KAFKA_OAUTH_CLIENT_SECRET", kafka.oauth_client_secret),
        "oAuthBearerScope": ("KAFKA_OAUTH_SCOPE", kafka.oauth_scope),
        "oAuthBearerTokenEndpointUrl": ("KAFKA_OAUTH_TOKEN_URL", kafka.oauth_token_url),
        "oAuthBearerExtensions": ("KAFKA_OAUTH_EXTENSIONS", kafka.oauth_extensions),
    }
    found: dict[str, Any] = {key: f"%{name}%" for key, (name, value) in names.items() if value}
    return found | {"oAuthBearerMethod": "Oidc"} if oauth else found


def _certificates(kafka: Kafka) -> dict[str, Any]:
    """Each by the attribute for PEM text or the one for a path, as the value is."""
    found: dict[str, Any] = {}
    for name, value, path, pem in (
        ("KAFKA_SSL_CA", kafka.ssl_ca, "sslCaLocation", "sslCaPEM"),
        ("KAFKA_SSL_CERTIFICATE", kafka.ssl_certificate, "sslCertificateLocation", "sslCertificatePEM"),
        ("KAFKA_SSL_KEY", kafka.ssl_key, "sslKeyLocation", "sslKeyPEM"),
    ):
        if value:
            found[pem if value.lstrip().startswith("-----BEGIN") else path] = f"%{name}%"
    if kafka.ssl_key_password:
        found["sslKeyPassword"] = "%KAFKA_SSL_KEY_PASSWORD%"
    return found
