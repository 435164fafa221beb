"""Settings as the attributes of a Kafka trigger, and as what the host's own client makes of these."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from confluent_kafka import Consumer
from hypothesis import given
from hypothesis import strategies as st

from localrunner.host.settings import AppSettings
from localrunner.host.triggers import FUNCTION_NAME, KafkaTrigger, accept
from localrunner.host.wire import FunctionMetadata
from sinkcore.triggers import function_name_of, kafka_trigger_of
from tests.support.app import TOPIC, settings_of

PEM = "-----BEGIN {0}-----\nc2VjcmV0\n-----END {0}-----"
SASL = {"KAFKA_PROTOCOL": "SASL_SSL", "KAFKA_USERNAME": "somebody", "KAFKA_PASSWORD": "a secret"}
OAUTH = {
    "KAFKA_PROTOCOL": "SASL_SSL",
    "KAFKA_AUTHENTICATION": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://login.example.com/token",
    "KAFKA_OAUTH_CLIENT_ID": "an app",
    "KAFKA_OAUTH_CLIENT_SECRET": "an app's secret",
    "KAFKA_OAUTH_SCOPE": "api://kafka/.default",
    "KAFKA_OAUTH_EXTENSIONS": "logicalCluster=lkc-1",
}


def attributes_of(**values: str) -> dict[str, Any]:
    return kafka_trigger_of(settings_of(None, **values), TOPIC)


def client_of(**values: str) -> dict[str, str]:
    """librdkafka's properties, as the host makes them of the attributes and the same settings."""
    binding = {"type": "kafkaTrigger", "name": "events", **attributes_of(**values)}
    settings = AppSettings.of({"KAFKA_BROKERS": "127.0.0.1:9092", **values})
    accepted = accept([FunctionMetadata("take", "id", [json.dumps(binding)])], settings)
    assert accepted.faults == ()
    (function,) = accepted.functions
    assert isinstance(function.trigger, KafkaTrigger)
    return dict(function.trigger.client)


def test_values_and_keys_come_as_bytes_and_in_batches() -> None:
    """As text the extension would put an envelope around values and spoil what is not UTF-8."""
    assert attributes_of() == {
        "topic": TOPIC,
        "brokerList": "%KAFKA_BROKERS%",
        "consumerGroup": f"adx-sink-{TOPIC}",
        "cardinality": "MANY",
        "dataType": "binary",
        "keyDataType": "Binary",
        "protocol": "Plaintext",
        "lagThreshold": 100_000,
    }


@pytest.mark.parametrize(
    ("values", "protocol", "mechanism"),
    [
        ({}, "plaintext", None),
        ({"KAFKA_PROTOCOL": "SSL"}, "ssl", None),
        (
            SASL | {"KAFKA_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_AUTHENTICATION": "PLAIN"},
            "sasl_plaintext",
            "PLAIN",
        ),
        (SASL | {"KAFKA_AUTHENTICATION": "PLAIN"}, "sasl_ssl", "PLAIN"),
        (SASL | {"KAFKA_AUTHENTICATION": "SCRAM-SHA-256"}, "sasl_ssl", "SCRAM-SHA-256"),
        (SASL | {"KAFKA_AUTHENTICATION": "SCRAM-SHA-512"}, "sasl_ssl", "SCRAM-SHA-512"),
        (OAUTH, "sasl_ssl", "OAUTHBEARER"),
    ],
)
def test_each_protocol_and_mechanism_reaches_the_client(
    values: dict[str, str], protocol: str, mechanism: str | None
) -> None:
    """Under the extension's names for them, which are not Kafka's."""
    client = client_of(**values)

    assert client["bootstrap.servers"] == "127.0.0.1:9092"
    assert client["group.id"] == f"adx-sink-{TOPIC}"
    assert client.get("security.protocol") == protocol
    assert client.get("sasl.mechanism") == mechanism
    Consumer(client).close()


def test_a_password_reaches_the_client_and_no_attribute() -> None:
    """Attributes lie in the clear in the host's metadata, and what it tells the platform of an app."""
    values = SASL | {"KAFKA_AUTHENTICATION": "PLAIN"}
    attributes = attributes_of(**values)

    assert (attributes["username"], attributes["password"]) == ("%KAFKA_USERNAME%", "%KAFKA_PASSWORD%")
    assert client_of(**values)["sasl.password"] == "a secret"


def test_oauth_reaches_the_client_and_its_secret_no_attribute() -> None:
    client = client_of(**OAUTH)

    assert {name: value for name, value in client.items() if "oauth" in name} == {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "an app",
        "sasl.oauthbearer.client.secret": "an app's secret",
        "sasl.oauthbearer.scope": "api://kafka/.default",
        "sasl.oauthbearer.token.endpoint.url": "https://login.example.com/token",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1",
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {
                "KAFKA_SSL_CA": "/certs/ca.pem",
                "KAFKA_SSL_CERTIFICATE": "/certs/app.pem",
                "KAFKA_SSL_KEY": "/certs/app.key",
                "KAFKA_SSL_KEY_PASSWORD": "the key's secret",
            },
            {
                "ssl.ca.location": "/certs/ca.pem",
                "ssl.certificate.location": "/certs/app.pem",
                "ssl.key.location": "/certs/app.key",
                "ssl.key.password": "the key's secret",
            },
        ),
        (
            {
                "KAFKA_SSL_CA": PEM.format("CERTIFICATE"),
                "KAFKA_SSL_CERTIFICATE": PEM.format("CERTIFICATE"),
                "KAFKA_SSL_KEY": PEM.format("PRIVATE KEY"),
            },
            {
                "ssl.ca.pem": PEM.format("CERTIFICATE"),
                "ssl.certificate.pem": PEM.format("CERTIFICATE"),
                "ssl.key.pem": PEM.format("PRIVATE KEY"),
            },
        ),
        (
            {"KAFKA_SSL_CA": PEM.format("CERTIFICATE").replace("\n", "\\n")},
            {"ssl.ca.pem": PEM.format("CERTIFICATE")},
        ),
    ],
    ids=["paths", "PEM text", "PEM text in one line"],
)
def test_certificates_are_paths_or_text_as_they_are_set(values: dict[str, str], expected: dict[str, str]) -> None:
    client = client_of(KAFKA_PROTOCOL="SSL", **values)

    assert {name: value for name, value in client.items() if name.startswith("ssl.")} == expected


@pytest.mark.parametrize(
    "values",
    [
        SASL | {"KAFKA_AUTHENTICATION": "SCRAM-SHA-512"},
        OAUTH,
        {
            "KAFKA_PROTOCOL": "SSL",
            "KAFKA_SSL_CA": PEM.format("CERTIFICATE"),
            "KAFKA_SSL_CERTIFICATE": PEM.format("CERTIFICATE"),
            "KAFKA_SSL_KEY": PEM.format("PRIVATE KEY"),
            "KAFKA_SSL_KEY_PASSWORD": "the key's secret",
        },
    ],
    ids=["password", "oauth", "certificates"],
)
def test_no_attribute_holds_what_a_setting_says(values: dict[str, str]) -> None:
    shown = json.dumps(attributes_of(**values))

    for name, value in values.items():
        if name not in ("KAFKA_PROTOCOL", "KAFKA_AUTHENTICATION"):
            assert json.dumps(value)[1:-1] not in shown
            assert f"%{name}%" in shown


def test_each_topic_has_a_consumer_group_of_its_own() -> None:
    """Two topics in one group starve each other."""
    assert attributes_of(KAFKA_CONSUMER_GROUP="team a")["consumerGroup"] == f"team a-{TOPIC}"


@pytest.mark.parametrize(
    "topic", [TOPIC, "a", "9.9", "...a", "_", "Orders.EU-" * 24 + "Orders.EU", "host", "HOST"]
)
def test_a_function_name_is_one_that_the_host_takes_and_settings_can_hold(topic: str) -> None:
    name = function_name_of(topic)

    assert FUNCTION_NAME.fullmatch(name)
    assert re.fullmatch(r"kafka_[a-z0-9_]+", name), "so that AzureWebJobs.<name>.Disabled can be set"


@given(st.lists(st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True), min_size=2, max_size=2, unique=True))
def test_different_topics_have_different_functions_in_any_case_of_letters(topics: list[str]) -> None:
    """The host takes names that differ by case only for one, and skips the second."""
    one, other = (function_name_of(topic) for topic in topics)

    assert one.lower() != other.lower()
    assert FUNCTION_NAME.fullmatch(one)


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a-b"), ("a.b", "a_b"), ("Orders", "orders"), ("x" * 248 + "a", "x" * 248 + "b")]
)
def test_topics_that_read_alike_have_different_functions(one: str, other: str) -> None:
    assert function_name_of(one).lower() != function_name_of(other).lower()


def test_the_name_of_a_topics_function_is_kept() -> None:
    """It stands in settings and dashboards."""
    assert function_name_of("Orders.EU") == "kafka_orders_eu_8bc6d77e"
