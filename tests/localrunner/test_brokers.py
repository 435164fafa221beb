"""A Kafka that `up` does not start is asked before anything is claimed for it."""

from __future__ import annotations

import json
import signal
import socket

from localrunner import brokers
from localrunner.mockkafka import open_broker
from localrunner.plan import Options, make_plan
from tests.localrunner.conftest import END_S, TOPIC, Starter
from tests.localrunner.processes import eventually

ROUTE = {"topic": TOPIC, "db": "db", "table": "Some"}


def asked(kafka: str, *sets: str) -> tuple[bool, list[str]]:
    mapping = json.dumps([ROUTE, ROUTE | {"topic": "absent"}])
    return brokers.ask(make_plan(Options(sets=(f"SINK_TOPICS_MAPPING={mapping}", *sets), kafka=kafka), {}))


def test_up_goes_on_without_its_kafka_and_says_so_instead_of_claiming_that_it_answers(starter: Starter) -> None:
    """The broker may come later; but a slip in its name must not look like a table that stays empty."""
    up = starter.start("--kafka", "nowhere.invalid:9092")
    up.wait_ready()
    eventually("the screen is there", lambda: "Some commands to try" in up.screen.read_text(), END_S)

    screen = up.screen.read_text()
    assert "kafka: nowhere.invalid:9092 does not answer (" in screen
    assert "Failed to resolve" in screen
    assert "; check --kafka and KAFKA_*" in screen
    assert "nowhere.invalid:9092 (does not answer)" in screen
    assert "(Kafka, which is not of its own, does not)" in screen
    assert up.end(signal.SIGTERM)[1] == set()


def test_a_kafka_that_answers_is_asked_for_the_topics_of_the_routes() -> None:
    host, port = open_broker([TOPIC])
    kafka = f"{host}:{port}"

    answers, faults = asked(kafka)

    assert answers
    assert [fault.partition(", ")[0] for fault in faults] == [f"kafka: {kafka} has no topic absent"]


def test_a_wrong_protocol_is_no_answer_and_no_secret_is_told() -> None:
    """The broker speaks plain text: that a handshake fails shows that the security settings are used."""
    host, port = open_broker([TOPIC])
    secure = (
        "KAFKA_PROTOCOL=SASL_SSL",
        "KAFKA_AUTHENTICATION=PLAIN",
        "KAFKA_USERNAME=me",
        "KAFKA_PASSWORD=5ecret",
    )

    answers, (fault,) = asked(f"{host}:{port}", *secure)

    assert not answers
    assert "in state SSL_HANDSHAKE" in fault
    assert "5ecret" not in fault


def test_a_certificate_that_is_none_is_told_without_its_text() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        kafka = f"127.0.0.1:{silent.getsockname()[1]}"
        pem = "-----BEGIN CERTIFICATE-----\\nbm9uZQ==\\n-----END CERTIFICATE-----"

        answers, (fault,) = asked(kafka, "KAFKA_PROTOCOL=SSL", f"KAFKA_SSL_CA={pem}")

    assert not answers
    assert fault.startswith("kafka: no client can be made (")
    assert "bm9uZQ" not in fault
