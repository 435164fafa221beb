"""The `KAFKA_*` settings as librdkafka's properties: for every connection those that the trigger's client has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localrunner.host.settings import AppSettings
from localrunner.host.triggers import KafkaTrigger, accept
from localrunner.host.wire import FunctionMetadata
from sinkcore.connections import APP, Kafka
from sinkcore.errors import ConfigError
from sinkcore.kafka import Connection
from sinkcore.reading import NARROW, WIDE
from sinkcore.triggers import kafka_trigger_of
from tests.kafka import secured
from tests.support.app import TOPIC, settings_of

PASSWORDS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
USER = {"KAFKA_USERNAME": "$ConnectionString", "KAFKA_PASSWORD": "Endpoint=sb://x/;Key=a=b"}
OAUTH = {
    "KAFKA_AUTHENTICATION": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://login.example.com/token?tenant=1",
    "KAFKA_OAUTH_CLIENT_ID": "an app",
    "KAFKA_OAUTH_CLIENT_SECRET": "an app's secret",
    "KAFKA_OAUTH_SCOPE": "api://kafka/.default",
    "KAFKA_OAUTH_EXTENSIONS": "logicalCluster=lkc-1,identityPoolId=pool-2",
}
CLIENT_IDS = {"group.id"}  # the trigger's group is not ours


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> secured.Certificates:
    return secured.certificates(tmp_path_factory.mktemp("certificates"))


def tls_of(certificates: secured.Certificates, form: str) -> dict[str, str]:
    if form == "none":
        return {}
    files = {"KAFKA_SSL_CA": certificates.ca}
    if form != "ca":
        files |= {"KAFKA_SSL_CERTIFICATE": certificates.certificate, "KAFKA_SSL_KEY": certificates.key}
    if form == "path with password":
        files["KAFKA_SSL_KEY"] = certificates.encrypted_key
        return {name: str(path) for name, path in files.items()} | {"KAFKA_SSL_KEY_PASSWORD": secured.KEY_PASSWORD}
    if form == "pem":
        return {name: path.read_text() for name, path in files.items()}
    if form == "pem in one line":
        return {name: path.read_text().strip().replace("\n", "\\n") for name, path in files.items()}
    return {name: str(path) for name, path in files.items()}


LOGINS: dict[str, dict[str, str]] = {
    "nobody": {},
    **{name: USER | {"KAFKA_AUTHENTICATION": name} for name in PASSWORDS},
    "OAUTHBEARER": OAUTH,
}
COMBINATIONS = [
    (protocol, login, form)
    for protocol in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    for login in LOGINS
    for form in ("none", "ca", "path", "path with password", "pem", "pem in one line")
    if protocol.startswith("SASL") == (login != "nobody") and (protocol.endswith("SSL") or form == "none")
]


def values_of(protocol: str, login: str, form: str, certificates: secured.Certificates) -> dict[str, str]:
    return {"KAFKA_PROTOCOL": protocol} | LOGINS[login] | tls_of(certificates, form)


def kafka_of(values: dict[str, str]) -> Kafka:
    return settings_of(None, **values).kafka


def trigger_properties(values: dict[str, str]) -> dict[str, Any]:
    """librdkafka's properties, as the Functions host makes them of the same settings."""
    binding = {"type": "kafkaTrigger", "name": "events", **kafka_trigger_of(settings_of(None, **values), TOPIC)}
    settings = AppSettings.of({"KAFKA_BROKERS": kafka_of(values).brokers, **values})
    (function,) = accept([FunctionMetadata("take", "id", [json.dumps(binding)])], settings).functions
    assert isinstance(function.trigger, KafkaTrigger)
    return dict(function.trigger.client)


@pytest.mark.parametrize(("protocol", "login", "form"), COMBINATIONS)
def test_the_sink_reaches_kafka_by_the_properties_of_the_trigger(
    certificates: secured.Certificates, protocol: str, login: str, form: str
) -> None:
    """Where the trigger comes in and the sink does not, no gap is ever settled."""
    values = values_of(protocol, login, form, certificates)
    theirs = trigger_properties(values)
    ours = kafka_of(values).client_config()

    theirs["security.protocol"] = theirs["security.protocol"].upper()
    stripped = {name: value.strip() if isinstance(value, str) else value for name, value in ours.items()}
    assert {name: stripped.get(name) for name in theirs if name not in CLIENT_IDS} == {
        name: value for name, value in theirs.items() if name not in CLIENT_IDS
    }


@pytest.mark.parametrize(("protocol", "login", "form"), COMBINATIONS)
def test_librdkafka_takes_the_properties_of_every_connection(
    certificates: secured.Certificates, protocol: str, login: str, form: str
) -> None:
    """It refuses unknown ones, and keys and certificates that it cannot read, when a client is made."""
    connection = Connection(kafka_of(values_of(protocol, login, form, certificates)))

    connection.consumer(NARROW).close()
    connection.consumer(WIDE).close()
    connection.admin()


def test_a_certificate_that_cannot_be_read_is_a_fault_of_the_settings(certificates: secured.Certificates) -> None:
    """Trying again would not help, and the text may hold a key."""
    broken = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----"
    connection = Connection(kafka_of({"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_CA": broken}))

    for make in (connection.admin, lambda: connection.consumer(NARROW)):
        with pytest.raises(ConfigError, match=r"KAFKA_\*: librdkafka refuses") as refused:
            make()
        assert "bm8gY2" not in str(refused.value)


def test_a_file_that_is_not_at_its_path_is_looked_for_beside_the_app(tmp_path: Path) -> None:
    """The Kafka extension does so: a path that is right on the developer's machine works in Azure too."""
    found = Kafka(brokers="b:1", protocol="SSL", ssl_ca=str(tmp_path / "host.json")).client_config()
    assert found["ssl.ca.location"] == str(APP / "host.json")

    (tmp_path / "host.json").touch()
    found = Kafka(brokers="b:1", protocol="SSL", ssl_ca=str(tmp_path / "host.json")).client_config()
    assert found["ssl.ca.location"] == str(tmp_path / "host.json")

    missing = str(tmp_path / "missing.pem")
    assert Kafka(brokers="b:1", ssl_ca=missing).client_config()["ssl.ca.location"] == missing


def test_a_worker_that_asks_kafka_nothing_does_not_load_its_client() -> None:
    """Every start and every recovery after a crash would pay for it."""
    code = (
        "import sys\n"
        "from sinkcore.clock import SystemClock\n"
        "from sinkcore.connections import Kafka\n"
        "from sinkcore.kafkalog import ConfluentLog\n"
        "ConfluentLog(Kafka(brokers='127.0.0.1:1'), SystemClock()).close()\n"
        "sys.exit(int('confluent_kafka' in sys.modules or 'azure.functions' in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=APP, timeout=60, check=False).returncode == 0
