"""Every way of proving who asks, against a real broker that insists on it; and a broker that stops answering."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import confluent_kafka.admin
import pytest

from localrunner import kafka as kafka_process
from localrunner.processes import Child, free_ports, stop
from sinkcore.clock import SystemClock
from sinkcore.connections import Kafka
from sinkcore.errors import ConfigError, TransientError
from sinkcore.kafkalog import ConfluentLog
from tests.conftest import START_S
from tests.kafka import secured
from tests.kafka.secured import CLIENT_ID, CLIENT_SECRET, KEY_PASSWORD, PASSWORD, USER
from tests.kafka.topics import ANSWER_S, Topics

MANY = 1_000_000
BUDGET_S = 20.0
# In which a refusal has to come. A client waits for the whole of it: the longer ones are for busy machines.
REFUSED_S = (1.5, 6.0, 24.0)
SCRAM_ITERATIONS = 4_096


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker, its ports by the kind of listener, a topic of three records, and who may come in."""

    child: Child
    ports: dict[str, int]
    topic: str
    certificates: secured.Certificates
    tokens: secured.TokenEndpoint

    def kafka(self, port: str, **settings: Any) -> Kafka:
        return Kafka(brokers=f"127.0.0.1:{self.ports[port]}", **settings)

    def oauth(self, port: str, **settings: Any) -> Kafka:
        return self.kafka(
            port,
            authentication="OAUTHBEARER",
            oauth_token_url=self.tokens.url,
            oauth_client_id=CLIENT_ID,
            **settings,
        )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    names = ("plain", "controller", "sasl", "ssl", "sasl_ssl")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    directory = tmp_path_factory.mktemp("secured")
    certificates = secured.certificates(directory)
    more = secured.properties(directory, **ports)
    child = kafka_process.start(directory, directory / "kafka.log", ports["plain"], ports["controller"], more)
    try:
        kafka_process.wait_ready(child, ports["plain"], START_S)
        topics = Topics(f"127.0.0.1:{ports['plain']}")
        topic = topics.make()
        topics.fill(topic, [b"1", b"2", b"3"])
        topics.commit_offsets(Kafka(brokers="any").group_of(topic), {(topic, 0): 2})
        _add_scram_users(topics)
        _allow_what_the_trigger_needs(topics, topic)
        with secured.token_endpoint() as tokens:
            yield Secured(child, ports, topic, certificates, tokens)
    finally:
        stop(child, kafka_process.STOP_S)


def _add_scram_users(topics: Topics) -> None:
    api: Any = confluent_kafka.admin
    for mechanism in (api.ScramMechanism.SCRAM_SHA_256, api.ScramMechanism.SCRAM_SHA_512):
        info = api.ScramCredentialInfo(mechanism, SCRAM_ITERATIONS)
        change = api.UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
        for outcome in topics.admin.alter_user_scram_credentials([change]).values():
            outcome.result(ANSWER_S)


def _allow_what_the_trigger_needs(topics: Topics, topic: str) -> None:
    """Whoever came in may read the topic as the group that the trigger has, and nothing else."""
    api: Any = confluent_kafka.admin
    rights = [
        api.AclBinding(
            kind,
            name,
            api.ResourcePatternType.LITERAL,
            "User:*",
            "*",
            api.AclOperation.READ,
            api.AclPermissionType.ALLOW,
        )
        for kind, name in (
            (api.ResourceType.TOPIC, topic),
            (api.ResourceType.GROUP, Kafka(brokers="any").group_of(topic)),
        )
    ]
    for outcome in topics.admin.create_acls(rights).values():
        outcome.result(ANSWER_S)


def assert_comes_in(kafka: Kafka, topic: str) -> None:
    """Everything that the sink asks is answered, with the rights that the trigger needs."""
    log = ConfluentLog(kafka, SystemClock())
    state = log.topic(topic)
    assert state is not None
    assert state.partitions == 1
    assert log.end_offsets(topic, [0], committed_only=True) == {0: 3}
    assert log.committed(kafka.group_of(topic), topic) == {0: 2}
    answer = log.read(topic, {0: (0, 3)}, budget_s=BUDGET_S, max_records=MANY, max_bytes=MANY)[0]
    log.close()
    assert [event.get_body() for event in answer.events] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_opens_a_listener_in_the_clear(broker: Secured, mechanism: str) -> None:
    kafka = broker.kafka(
        "sasl", protocol="SASL_PLAINTEXT", authentication=mechanism, username=USER, password=PASSWORD
    )
    assert_comes_in(kafka, broker.topic)


@pytest.mark.parametrize("form", ["paths", "pem", "pem in one line"])
def test_certificates_open_a_listener_as_files_and_as_text(broker: Secured, form: str) -> None:
    """App settings often hold a text with backslash-n for each line's end; the trigger reads it so, and we do."""
    files = (broker.certificates.ca, broker.certificates.certificate, broker.certificates.key)
    texts = [str(path) if form == "paths" else path.read_text().strip() for path in files]
    if form == "pem in one line":
        texts = [text.replace("\n", "\\n") for text in texts]
    ca, certificate, key = texts
    assert_comes_in(
        broker.kafka("ssl", protocol="SSL", ssl_ca=ca, ssl_certificate=certificate, ssl_key=key), broker.topic
    )


def test_a_key_with_a_password_opens_a_listener(broker: Secured) -> None:
    kafka = broker.kafka(
        "ssl",
        protocol="SSL",
        ssl_ca=str(broker.certificates.ca),
        ssl_certificate=str(broker.certificates.certificate),
        ssl_key=broker.certificates.encrypted_key.read_text(),
        ssl_key_password=KEY_PASSWORD,
    )
    assert_comes_in(kafka, broker.topic)


def test_a_password_opens_an_encrypted_listener(broker: Secured) -> None:
    kafka = broker.kafka(
        "sasl_ssl",
        protocol="SASL_SSL",
        authentication="SCRAM-SHA-512",
        username=USER,
        password=PASSWORD,
        ssl_ca=str(broker.certificates.ca),
    )
    assert_comes_in(kafka, broker.topic)


@pytest.mark.parametrize("port", ["sasl", "sasl_ssl"])
def test_a_token_of_an_identity_provider_opens_a_listener(broker: Secured, port: str) -> None:
    """The scope goes to the provider; extensions go to the broker, which takes the ones it knows of."""
    kafka = broker.oauth(port, oauth_client_secret=CLIENT_SECRET, oauth_scope="kafka", protocol="SASL_PLAINTEXT")
    if port == "sasl_ssl":
        kafka = replace(kafka, protocol="SASL_SSL", ssl_ca=str(broker.certificates.ca))
    assert_comes_in(kafka, broker.topic)
    assert "scope=kafka" in broker.tokens.asked[-1][1]


def failures_of(kafka: Kafka, topic: str, reason: str) -> str:
    """What each of the two kinds of client says when it cannot come in, which is `reason` among others."""
    for refused_s in REFUSED_S:
        log = ConfluentLog(kafka, SystemClock(), answer_s=refused_s)
        with pytest.raises(TransientError) as asking:
            log.topic(topic)
        with pytest.raises(TransientError) as reading:
            log.read(topic, {0: (0, 3)}, budget_s=refused_s, max_records=MANY, max_bytes=MANY)
        log.close()
        text = f"{asking.value} / {reading.value}"
        if text.count(reason) == 2:
            return text
    raise AssertionError(f"{reason!r} is not what both say: {text}")


def test_a_wrong_password_is_named_as_the_reason_and_not_shown(broker: Secured) -> None:
    """By itself librdkafka says "timed out", and an operator looks for a network fault."""
    wrong = "wrong-" + PASSWORD
    kafka = broker.kafka("sasl", protocol="SASL_PLAINTEXT", authentication="PLAIN", username=USER, password=wrong)

    assert wrong not in failures_of(kafka, broker.topic, "uthentication failed")


def test_a_broker_of_an_unknown_authority_is_not_believed(broker: Secured, tmp_path: Path) -> None:
    other = secured.certificates(tmp_path)
    kafka = broker.kafka(
        "sasl_ssl",
        protocol="SASL_SSL",
        authentication="PLAIN",
        username=USER,
        password=PASSWORD,
        ssl_ca=str(other.ca),
    )

    failures_of(kafka, broker.topic, "certificate verify failed")


def test_what_an_identity_provider_answers_never_shows_the_secret(broker: Secured) -> None:
    secret = "wrong-" + CLIENT_SECRET
    kafka = broker.oauth("sasl", oauth_client_secret=secret, protocol="SASL_PLAINTEXT")

    assert secret not in failures_of(kafka, broker.topic, "unknown client")


def test_a_key_that_its_password_does_not_open_is_a_fault_of_the_settings(broker: Secured) -> None:
    """It will not get better by trying again."""
    kafka = broker.kafka(
        "ssl",
        protocol="SSL",
        ssl_certificate=str(broker.certificates.certificate),
        ssl_key=broker.certificates.encrypted_key.read_text(),
        ssl_key_password="wrong-" + KEY_PASSWORD,
    )
    log = ConfluentLog(kafka, SystemClock())

    for ask in (
        lambda: log.topic("any"),
        lambda: log.read("any", {0: (0, 1)}, budget_s=1, max_records=1, max_bytes=1),
    ):
        with pytest.raises(ConfigError, match="KAFKA_") as refused:
            ask()
        assert KEY_PASSWORD not in str(refused.value)


def test_a_broker_that_is_frozen_ends_a_read_at_its_deadline_and_answers_when_it_is_thawed(
    broker: Secured,
) -> None:
    """The connection stays open and nothing comes: only our own clock ends that."""
    log = ConfluentLog(broker.kafka("plain"), SystemClock(), answer_s=1.0)
    asked = {0: (0, 3)}
    assert log.read(broker.topic, asked, budget_s=BUDGET_S, max_records=MANY, max_bytes=MANY)[0].why == "settled"
    os.kill(broker.child.pid, signal.SIGSTOP)
    try:
        # That it ends while the broker is frozen is the point; and not before its time.
        started = time.monotonic()
        with pytest.raises(TransientError):
            log.read(broker.topic, asked, budget_s=0.5, max_records=MANY, max_bytes=MANY)
        assert time.monotonic() - started > 0.4
        with pytest.raises(TransientError):
            log.topic(broker.topic)
    finally:
        os.kill(broker.child.pid, signal.SIGCONT)

    assert log.read(broker.topic, asked, budget_s=BUDGET_S, max_records=MANY, max_bytes=MANY)[0].why == "settled"
    log.close()
