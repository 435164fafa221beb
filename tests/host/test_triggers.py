"""A trigger's attributes as librdkafka's properties."""

from __future__ import annotations

import json

from localrunner.host.hostjson import KafkaOptions
from localrunner.host.listener import client_properties
from localrunner.host.settings import AppSettings
from localrunner.host.triggers import KafkaTrigger, accept
from localrunner.host.wire import FunctionMetadata, RetryOptions

PEM = (
    "-----BEGIN CERTIFICATE-----\\nabc\\n-----END CERTIFICATE-----\n"
    "-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----"
)


def accepted(settings: dict[str, str], **attributes: str) -> KafkaTrigger:
    binding = {
        "type": "kafkaTrigger",
        "name": "records",
        "topic": "orders",
        "brokerList": "broker:9092",
        "consumerGroup": "group",
        "cardinality": "MANY",
        "dataType": "BINARY",
        **attributes,
    }
    function = FunctionMetadata("take", "id", [json.dumps(binding)])
    (found,) = accept([function], AppSettings.of(settings)).functions
    assert isinstance(found.trigger, KafkaTrigger)
    return found.trigger


def test_credentials_count_only_where_a_mode_or_a_protocol_is_set() -> None:
    """Kafka extension 4.3.2, CreateConsumerConfiguration: without either, they are not even resolved."""
    ignored = accepted({}, username="%UNSET%", authenticationMode="NOTSET", protocol="NotSet")
    used = accepted({"SECRET": "s"}, username="u", password="%SECRET%", authenticationMode="SCRAMSHA512")

    assert set(ignored.client) == {"bootstrap.servers", "group.id"}
    assert used.client["sasl.username"] == "u"
    assert used.client["sasl.password"] == "s"
    assert used.client["sasl.mechanism"] == "SCRAM-SHA-512"
    assert "security.protocol" not in used.client
    assert "sasl.password" not in repr(used)


def test_pem_text_is_cut_to_its_section_with_line_breaks_restored() -> None:
    """Kafka extension 4.3.2, ExtractSection: `\\n` written out in a setting becomes a line break."""
    trigger = accepted({"BOTH": PEM}, protocol="SSL", sslCertificateAndKeyPem="%BOTH%", sslCaPem="%BOTH%")

    certificate = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"
    assert trigger.client["ssl.certificate.pem"] == certificate
    assert trigger.client["ssl.ca.pem"] == certificate
    assert trigger.client["ssl.key.pem"] == "-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----"
    assert trigger.client["security.protocol"] == "ssl"


def test_oauth_attributes_count_only_with_oauthbearer() -> None:
    """authentication_mode="OAuthBearer" is not in the library's enum, so it comes through generic_trigger."""
    trigger = accepted(
        {"ID": "id"},
        authenticationMode="OAuthBearer",
        protocol="SaslSsl",
        oAuthBearerMethod="OIDC",
        oAuthBearerClientId="%ID%",
        oAuthBearerTokenEndpointUrl="https://login.example/token",
    )

    assert trigger.client["sasl.mechanism"] == "OAUTHBEARER"
    assert trigger.client["security.protocol"] == "sasl_ssl"
    assert trigger.client["sasl.oauthbearer.method"] == "oidc"
    assert trigger.client["sasl.oauthbearer.client.id"] == "id"
    assert trigger.client["sasl.oauthbearer.token.endpoint.url"] == "https://login.example/token"


def test_the_consumer_is_set_as_the_extension_sets_it() -> None:
    """KafkaListener.cs, GetConsumerConfiguration: unset options are left to librdkafka."""
    options = KafkaOptions(max_poll_interval_ms=900_000, queued_min_messages=20_000)

    properties = client_properties(accepted({}).client, options)

    assert properties == {
        "bootstrap.servers": "broker:9092",
        "group.id": "group",
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
        "auto.commit.interval.ms": 200,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 10_000,
        "max.poll.interval.ms": 900_000,
        "metadata.max.age.ms": 180_000,
        "topic.metadata.refresh.interval.ms": 180_000,
        "socket.keepalive.enable": True,
        "queued.min.messages": 20_000,
        "fetch.queue.backoff.ms": 10,
    }


def test_a_retry_policy_whose_minimum_exceeds_its_maximum_is_in_error() -> None:
    """RandomizedExponentialBackoffStrategy.ValidateIntervals."""
    binding = {"type": "timerTrigger", "name": "timer", "schedule": "0 * * * * *"}
    retry = RetryOptions("exponential_backoff", -1, minimum_interval_s=60, maximum_interval_s=2)
    function = FunctionMetadata("sweep", "id", [json.dumps(binding)], retry)

    result = accept([function], AppSettings.of({}))

    assert result.functions == ()
    assert result.faults == ("sweep: retry: the minimum interval is greater than the maximum; swap them",)
