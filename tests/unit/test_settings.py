"""App settings: what is read, what is refused, and that a fault never shows a secret."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinkcore.connections import Kafka, Kusto, SchemaRegistry
from sinkcore.declared import declared
from sinkcore.errors import ConfigError
from sinkcore.settings import KNOWN, Settings, read_settings
from sinkcore.storage import AZURITE_CONNECTION_STRING

Changes = Mapping[str, str | None]
ROOT = Path(__file__).parents[2]
HOST = json.loads((ROOT / "host.json").read_text())
NAMES = [setting.name for setting in declared(Settings).values()]
ROUTE = {"topic": "flights", "db": "db", "table": "Flights"}
LEAST = {
    "SINK_TOPICS_MAPPING": json.dumps([ROUTE]),
    "KAFKA_BROKERS": "localhost:9092",
    "KUSTO_INGESTION_URL": "https://ingest-c.westeurope.kusto.windows.net",
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
}
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
IDENTITY = "11111111-2222-3333-4444-555555555555"
SASL = {
    "KAFKA_PROTOCOL": "SASL_SSL",
    "KAFKA_AUTHENTICATION": "PLAIN",
    "KAFKA_USERNAME": "u",
    "KAFKA_PASSWORD": "p",
}
BASIC = {
    "SCHEMA_REGISTRY_URL": "https://registry.example.com/apis/v7",
    "SCHEMA_REGISTRY_USERNAME": "u",
    "SCHEMA_REGISTRY_PASSWORD": "p",
}
OAUTH = {
    "KAFKA_PROTOCOL": "SASL_SSL",
    "KAFKA_AUTHENTICATION": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://login.example.com/token?tenant=1",
    "KAFKA_OAUTH_CLIENT_ID": "client",
    "KAFKA_OAUTH_CLIENT_SECRET": "hush",
    "KAFKA_OAUTH_SCOPE": "kafka",
    "KAFKA_OAUTH_EXTENSIONS": "logicalCluster=lkc-1",
}
APPLICATION = {
    "KUSTO_AUTHENTICATION": "application",
    "KUSTO_CLIENT_ID": IDENTITY,
    "KUSTO_CLIENT_SECRET": "hush",
    "KUSTO_TENANT_ID": "contoso.example",
}
DOUBLE = {
    "KUSTO_INGESTION_URL": "http://127.0.0.1:4001",
    "KUSTO_QUERY_URL": "http://127.0.0.1:4002",
    "KUSTO_AUTHENTICATION": "none",
}


def read(changes: Changes | None = None, host: Mapping[str, Any] | None = None) -> Settings:
    """The least that works, with `changes`; None takes a setting away."""
    values = {**LEAST, **(changes or {})}
    return read_settings(
        {name: value for name, value in values.items() if value is not None}, HOST if host is None else host
    )


def faults(changes: Changes, host: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        read(changes, host)
    return raised.value.faults


def test_the_least_settings_give_every_default_of_the_contract() -> None:
    """A default is a promise: whoever sets nothing gets these."""
    found = read()

    assert found.topics == ("flights",)
    assert found.kafka == Kafka(brokers="localhost:9092", consumer_group="adx-sink", protocol="PLAINTEXT")
    assert found.kafka.group_of("flights") == "adx-sink-flights"
    assert found.kusto.query_url == "https://c.westeurope.kusto.windows.net"
    assert found.kusto.authentication == "managed_identity"
    assert found.storage.name == "AzureWebJobsStorage"
    simple = {
        each.name: getattr(found, each.name)
        for each in dataclasses.fields(Settings)
        if each.name not in ("routes", "topics", "kafka", "kusto", "registry", "storage")
    }
    assert simple == {
        "staging_container": "sink-staging",
        "dead_letters_container": "sink-dead-letters",
        "ledger_table": "sinkledger",
        "delivery": "effectively_once",
        "doubt_margin_s": 300,
        "on_bad_record": "dead_letter",
        "record_max_bytes": 33554432,
        "blob_max_bytes": 268435456,
        "invocation_max_s": 240,
        "gap_max_records": 10000000,
        "staged_blob_ttl_days": 14,
        "sweep_schedule": "*/30 * * * * *",
        "confirm": "",
        "pending_max": 1000,
        "staged_blob_access": "sas",
    }


ACCEPTED: list[tuple[Changes, str, object]] = [
    ({"SINK_INVOCATION_MAX_S": "5"}, "invocation_max_s", 5),
    ({"SINK_DOUBT_MARGIN_S": " 0 "}, "doubt_margin_s", 0),
    ({"SINK_STAGED_BLOB_TTL_DAYS": "7"}, "staged_blob_ttl_days", 7),
    ({"SINK_PENDING_MAX": ""}, "pending_max", 1000),
    ({"SINK_DELIVERY": "exactly_once"}, "delivery", "exactly_once"),
    ({"SINK_CONFIRM": "none"}, "confirm", "none"),
    ({"SINK_CONFIRM": "query"}, "confirm", "query"),
    ({"SINK_ON_BAD_RECORD": "fail"}, "on_bad_record", "fail"),
    ({"SINK_STAGED_BLOB_ACCESS": "managed_identity=system"}, "staged_blob_access", "managed_identity=system"),
    (
        {"SINK_STAGED_BLOB_ACCESS": f"managed_identity={IDENTITY}"},
        "staged_blob_access",
        f"managed_identity={IDENTITY}",
    ),
    ({"SINK_LEDGER_TABLE": "L2d"}, "ledger_table", "L2d"),
    ({"SINK_STAGING_CONTAINER": "a" * 63}, "staging_container", "a" * 63),
    (
        {"SINK_SWEEP_SCHEDULE": "0  */5 9-17 1,15 Jan-Mar mon-FRI"},
        "sweep_schedule",
        "0 */5 9-17 1,15 Jan-Mar mon-FRI",
    ),
    ({"SINK_SWEEP_SCHEDULE": "5/10 * * * * 0"}, "sweep_schedule", "5/10 * * * * 0"),
    ({"KAFKA_BROKERS": "a:1, b.c:65535,[::1]:9092,d"}, "kafka.brokers", "a:1,b.c:65535,[::1]:9092,d"),
    ({"KAFKA_CONSUMER_GROUP": "my group/1"}, "kafka.consumer_group", "my group/1"),
    (BASIC, "registry.url", "https://registry.example.com/apis/v7"),
    ({**BASIC, "SCHEMA_REGISTRY_PASSWORD": " spaces stay "}, "registry.password", " spaces stay "),
    ({"SCHEMA_REGISTRY_URL": "HTTP://Registry:8081/"}, "registry.url", "http://registry:8081"),
    (SASL, "kafka.password", "p"),
    ({**SASL, "KAFKA_PASSWORD": " spaces stay "}, "kafka.password", " spaces stay "),
    ({**SASL, "KAFKA_AUTHENTICATION": "SCRAM-SHA-512"}, "kafka.authentication", "SCRAM-SHA-512"),
    (OAUTH, "kafka.oauth_token_url", "https://login.example.com/token?tenant=1"),
    ({"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_CA": PEM}, "kafka.ssl_ca", PEM.strip()),
    (
        {"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE": "/c.pem", "KAFKA_SSL_KEY": "/k.pem"},
        "kafka.ssl_key",
        "/k.pem",
    ),
    (APPLICATION, "kusto.client_secret", "hush"),
    ({"KUSTO_CLIENT_ID": IDENTITY}, "kusto.client_id", IDENTITY),
    ({"KUSTO_AUTHENTICATION": "workload_identity", "KUSTO_TENANT_ID": "t"}, "kusto.tenant_id", "t"),
    (DOUBLE, "kusto.query_url", "http://127.0.0.1:4002"),
    ({**DOUBLE, "KUSTO_QUERY_URL": "http://localhost:4002/"}, "kusto.query_url", "http://localhost:4002"),
    ({**DOUBLE, "KUSTO_QUERY_URL": "http://[::1]:4002"}, "kusto.query_url", "http://[::1]:4002"),
    (
        {"KUSTO_INGESTION_URL": "https://Ingest-C.kusto.windows.net/"},
        "kusto.query_url",
        "https://c.kusto.windows.net",
    ),
    ({"KUSTO_QUERY_URL": "https://proxy.example:8443"}, "kusto.query_url", "https://proxy.example:8443"),
]


@pytest.mark.parametrize(("changes", "path", "expected"), ACCEPTED)
def test_a_usable_setting_is_read(changes: Changes, path: str, expected: object) -> None:
    """Bounds are inclusive, spaces around a value and an empty value mean nothing, secrets stay as they are."""
    found: object = read(changes)
    for name in path.split("."):
        found = getattr(found, name)

    assert found == expected


REFUSED: list[tuple[Changes, str, str]] = [
    ({"SINK_TOPICS_MAPPING": None}, "SINK_TOPICS_MAPPING", "not set"),
    ({"KAFKA_BROKERS": " "}, "KAFKA_BROKERS", "not set"),
    ({"KUSTO_INGESTION_URL": None}, "KUSTO_INGESTION_URL", "not set"),
    ({"AzureWebJobsStorage": None}, "SinkStorage", "neither"),
    # Numbers.
    ({"SINK_PENDING_MAX": "many"}, "SINK_PENDING_MAX", "1 to 100000"),
    ({"SINK_PENDING_MAX": "1_000"}, "SINK_PENDING_MAX", "whole number"),
    ({"SINK_PENDING_MAX": "١٢"}, "SINK_PENDING_MAX", "whole number"),
    ({"SINK_PENDING_MAX": "9" * 5000}, "SINK_PENDING_MAX", "whole number"),
    ({"SINK_PENDING_MAX": "0"}, "SINK_PENDING_MAX", "0 is not within 1 to 100000"),
    ({"SINK_STAGED_BLOB_TTL_DAYS": "6"}, "SINK_STAGED_BLOB_TTL_DAYS", "6 is not within 7"),
    ({"SINK_DOUBT_MARGIN_S": "-1"}, "SINK_DOUBT_MARGIN_S", "not within 0"),
    ({"SINK_BLOB_MAX_BYTES": "1000000"}, "SINK_RECORD_MAX_BYTES", "more than SINK_BLOB_MAX_BYTES, 1000000"),
    # Words.
    ({"SINK_DELIVERY": "exactly-once"}, "SINK_DELIVERY", "exactly_once is the nearest"),
    ({"SINK_CONFIRM": "ask"}, "SINK_CONFIRM", "not one of query, none"),
    ({"SINK_ON_BAD_RECORD": "drop"}, "SINK_ON_BAD_RECORD", "not one of dead_letter, fail"),
    ({"SINK_STAGED_BLOB_ACCESS": "managed_identity"}, "SINK_STAGED_BLOB_ACCESS", "managed_identity=system"),
    ({"SINK_STAGED_BLOB_ACCESS": "managed_identity=me"}, "SINK_STAGED_BLOB_ACCESS", "object id"),
    # Names that Azure refuses.
    *(
        ({"SINK_STAGING_CONTAINER": name}, "SINK_STAGING_CONTAINER", "3 to 63")
        for name in ("ab", "a" * 64, "Upper", "-a-a", "aaa-", "a--b", "a_b", "$logs", "azure-webjobs-hosts", "aaé")
    ),
    *(
        ({"SINK_LEDGER_TABLE": name}, "SINK_LEDGER_TABLE", "3 to 63")
        for name in ("ab", "a" * 64, "1abc", "a-bc", "a_bc", "Tables", "tables")
    ),
    ({"SINK_DEAD_LETTERS_CONTAINER": "sink-staging"}, "SINK_DEAD_LETTERS_CONTAINER", "of their own"),
    # Schedules.
    *(
        ({"SINK_SWEEP_SCHEDULE": schedule}, "SINK_SWEEP_SCHEDULE", words)
        for schedule, words in (
            ("*/5 * * * *", "5 fields"),
            ("00:00:30", "1 fields"),
            ("60 * * * * *", "second"),
            ("* 5-1 * * * *", "minute"),
            ("* * 24 * * *", "hour"),
            ("* * * 0 * *", "day"),
            ("* * * * sun *", "month"),
            ("* * * * * 7", "day of the week"),
            ("*/0 * * * * *", "second"),
            (", * * * * *", "second"),
            ("٣ * * * * *", "second"),
        )
    ),
    # Names of settings.
    ({"SINK_TOPIC_MAPPING": "x"}, "SINK_TOPIC_MAPPING", "SINK_TOPICS_MAPPING is the nearest"),
    ({"sink_delivery": "exactly_once"}, "sink_delivery", "SINK_DELIVERY is the nearest"),
    ({"SINK_WHATEVER_THIS_IS": "x"}, "SINK_WHATEVER_THIS_IS", "no setting"),
    ({"KAFKA_BROKER": "x"}, "KAFKA_BROKER", "KAFKA_BROKERS is the nearest"),
    ({"Kafka_Password": "x"}, "Kafka_Password", "KAFKA_PASSWORD is the nearest"),
    ({"KUSTO_INGEST_URL": "x"}, "KUSTO_INGEST_URL", "KUSTO_INGESTION_URL is the nearest"),
    # The schema registry.
    ({"SCHEMA_REGISTRY_URI": "https://r"}, "SCHEMA_REGISTRY_URI", "SCHEMA_REGISTRY_URL is the nearest"),
    ({"SCHEMA_REGISTRY_URL": "r:8081"}, "SCHEMA_REGISTRY_URL", "not a URL"),
    ({"SCHEMA_REGISTRY_URL": "https://u:p@r"}, "SCHEMA_REGISTRY_URL", "not a URL"),
    ({"SCHEMA_REGISTRY_URL": "http://r/?x=1"}, "SCHEMA_REGISTRY_URL", "end it after the path"),
    ({**BASIC, "SCHEMA_REGISTRY_URL": "http://r:8081"}, "SCHEMA_REGISTRY_URL", "use https"),
    ({**BASIC, "SCHEMA_REGISTRY_PASSWORD": None}, "SCHEMA_REGISTRY_PASSWORD", "basic authentication needs it"),
    ({"SCHEMA_REGISTRY_TOKEN": "t"}, "SCHEMA_REGISTRY_TOKEN", "means nothing without SCHEMA_REGISTRY_URL"),
    (
        {"SCHEMA_REGISTRY_URL": "https://r", "SCHEMA_REGISTRY_TOKEN": "secret\n"},
        "SCHEMA_REGISTRY_TOKEN",
        "cannot stand in a header",
    ),
    ({"SinkStorage__blobServiceUrl": "https://b"}, "SinkStorage__blobServiceUrl", "blobServiceUri is the nearest"),
    # Kafka: values, and what goes together.
    *(
        ({"KAFKA_BROKERS": brokers}, "KAFKA_BROKERS", "HOST:PORT")
        for brokers in ("a:0", "a:65536", "a:b", "a,,b", "PLAINTEXT://a:1", "u:p@a:1", "a b:1")
    ),
    ({"KAFKA_CONSUMER_GROUP": "%PREFIX%"}, "KAFKA_CONSUMER_GROUP", "without %"),
    ({"KAFKA_CONSUMER_GROUP": "g" * 81}, "KAFKA_CONSUMER_GROUP", "1 to 80"),
    ({"KAFKA_PROTOCOL": "sasl_ssl"}, "KAFKA_PROTOCOL", "SASL_SSL is the nearest"),
    ({"KAFKA_PROTOCOL": "SASL_SSL"}, "KAFKA_AUTHENTICATION", "SASL_SSL needs it"),
    ({**SASL, "KAFKA_PROTOCOL": "SSL"}, "KAFKA_AUTHENTICATION", "means nothing without"),
    ({"KAFKA_USERNAME": "u"}, "KAFKA_USERNAME", "means nothing without"),
    ({**SASL, "KAFKA_PASSWORD": None}, "KAFKA_PASSWORD", "PLAIN needs it"),
    ({**OAUTH, "KAFKA_USERNAME": "u"}, "KAFKA_USERNAME", "means nothing without"),
    ({**OAUTH, "KAFKA_OAUTH_CLIENT_SECRET": None}, "KAFKA_OAUTH_CLIENT_SECRET", "OAUTHBEARER needs it"),
    ({**OAUTH, "KAFKA_OAUTH_TOKEN_URL": "http://login.example.com"}, "KAFKA_OAUTH_TOKEN_URL", "use https"),
    ({**SASL, "KAFKA_OAUTH_SCOPE": "s"}, "KAFKA_OAUTH_SCOPE", "without KAFKA_AUTHENTICATION OAUTHBEARER"),
    ({"KAFKA_SSL_CA": "/ca.pem"}, "KAFKA_SSL_CA", "means nothing without"),
    ({"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_KEY": "/k.pem"}, "KAFKA_SSL_CERTIFICATE", "needs it"),
    ({"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_KEY_PASSWORD": "p"}, "KAFKA_SSL_KEY_PASSWORD", "without KAFKA_SSL_KEY"),
    ({"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_CA": "-----BEGIN X-----\nMII"}, "KAFKA_SSL_CA", "before -----END"),
    ({"KAFKA_PROTOCOL": "SSL", "KAFKA_SSL_CA": "MII\nMII"}, "KAFKA_SSL_CA", "neither a path nor PEM"),
    # ADX.
    *(
        ({"KUSTO_INGESTION_URL": url}, "KUSTO_INGESTION_URL", words)
        for url, words in (
            ("ingest-c.kusto.windows.net", "https://HOST"),
            ("ftp://ingest-c", "https://HOST"),
            ("https://ingest-<cluster>.<region>.kusto.windows.net", "https://HOST"),
            ("https://u:p@ingest-c", "https://HOST"),
            ("https://ingest-c:99999", "https://HOST"),
            ("Data Source=https://ingest-c;Fed=True", "https://HOST"),
            ("https://ingest-c/db", "end it after the host"),
            ("http://ingest-c.kusto.windows.net", "use https"),
            ("http://127.0.0.1.example.com", "use https"),
            ("https://c.kusto.windows.net", "does not begin with ingest-"),
        )
    ),
    ({"KUSTO_QUERY_URL": "https://ingest-c.kusto.windows.net"}, "KUSTO_QUERY_URL", "data-management"),
    ({**DOUBLE, "KUSTO_QUERY_URL": DOUBLE["KUSTO_INGESTION_URL"]}, "KUSTO_QUERY_URL", "data-management"),
    ({**DOUBLE, "KUSTO_QUERY_URL": None}, "KUSTO_QUERY_URL", "cannot be derived"),
    ({"KUSTO_AUTHENTICATION": "none"}, "KUSTO_AUTHENTICATION", "loopback only"),
    ({**DOUBLE, "KUSTO_QUERY_URL": "https://127.0.0.1:1"}, "KUSTO_AUTHENTICATION", "http on loopback only"),
    ({**APPLICATION, "KUSTO_TENANT_ID": None}, "KUSTO_TENANT_ID", "application needs it"),
    ({"KUSTO_CLIENT_SECRET": "hush"}, "KUSTO_CLIENT_SECRET", "without KUSTO_AUTHENTICATION application"),
    ({"KUSTO_AUTHENTICATION": "azure_cli", "KUSTO_CLIENT_ID": IDENTITY}, "KUSTO_CLIENT_ID", "means nothing"),
    ({"KUSTO_TENANT_ID": "t"}, "KUSTO_TENANT_ID", "means nothing"),
    # What the host would look up and replace.
    ({"FLIGHTS": ""}, "SINK_TOPICS_MAPPING", "also the name of a setting or environment variable"),
    ({"Adx-Sink-Flights": "x"}, "SINK_TOPICS_MAPPING", 'consumer group "adx-sink-flights"'),
    (
        {"SINK_TOPICS_MAPPING": json.dumps([{**ROUTE, "topic": "kafka_username"}])},
        "SINK_TOPICS_MAPPING",
        "also the name of a setting",
    ),
    ({**SASL, "KAFKA_USERNAME": "user", "USER": "root"}, "KAFKA_USERNAME", "also the name of"),
    ({**SASL, "KAFKA_PASSWORD": "Path", "PATH": "/bin"}, "KAFKA_PASSWORD", "also the name of"),
    ({**SASL, "KAFKA_USERNAME": "user\n"}, "KAFKA_USERNAME", "blank space"),
    ({"KAFKA_BROKERS": " localhost:9092"}, "KAFKA_BROKERS", "blank space"),
    # Topics of a star.
    ({"SINK_TOPICS": "flights,or ders"}, "SINK_TOPICS", "no topic's name"),
    ({"SINK_TOPICS": "flights,weather"}, "SINK_TOPICS", 'no route takes its topic "weather"'),
]


@pytest.mark.parametrize(("changes", "name", "words"), REFUSED)
def test_an_unusable_setting_is_one_fault_that_names_it(changes: Changes, name: str, words: str) -> None:
    """One mistake is one line: the setting, what is wrong, and what to do."""
    (fault,) = faults(changes)

    assert fault.startswith(f"{name}: ")
    assert words in fault
    assert fault.count("; ") >= 1
    assert fault.isascii()
    assert "\n" not in fault


def test_all_faults_are_reported_at_once() -> None:
    """Whoever deploys should need one round, not one for each mistake."""
    found = faults(
        {
            "SINK_DELIVERY": "twice",
            "SINK_PENDING_MAX": "0",
            "SINK_TOPICS_MAPPING": '[{"topic": "a b", "db": "", "tabel": "T"}]',
            "KAFKA_BROKERS": None,
            "KAFKA_PASSWORD": "hush",
            "KUSTO_INGESTION_URL": "http://example.com",
            "AzureWebJobsStorage": "AccountName=a",
            "SINK_TOPIC": "x",
        },
        {},
    )

    assert [fault.partition(":")[0] for fault in found] == [
        "SINK_DELIVERY",
        "SINK_PENDING_MAX",
        *["SINK_TOPICS_MAPPING"] * 4,
        "KAFKA_BROKERS",
        "KAFKA_PASSWORD",
        "KUSTO_INGESTION_URL",
        "AzureWebJobsStorage",
        "SINK_TOPIC",
        "functionTimeout",
    ]


def test_a_spoilt_setting_does_not_blame_the_ones_beside_it() -> None:
    """With the protocol misspelt, user name and certificate may be right: only the slip is named."""
    changes = {**SASL, "KAFKA_PROTOCOL": "SASL-SSL", "KAFKA_SSL_CA": "/ca.pem"}

    (fault,) = faults(changes)

    assert fault.startswith("KAFKA_PROTOCOL: ")


@pytest.mark.parametrize(
    "name",
    [
        *("KAFKA_PORT", "KAFKA_SERVICE_HOST", "KAFKA_SERVICE_PORT", "KAFKA_PORT_9092_TCP_ADDR", "KAFKA_HOME"),
        *("KAFKA_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_LOG_DIRS", "KUSTO_SERVICE_HOST", "KUSTO_PORT", "KUSTO_CLUSTER"),
        *("SINKHOLE", "SinkStorageOther", "AZURE_KAFKA_BROKERS", "KAFKAESQUE"),
    ],
)
def test_names_that_platforms_inject_are_left_alone(name: str) -> None:
    """Kubernetes and container images set variables of these shapes, which nobody can take away."""
    assert read({name: "tcp://10.0.0.1:9092"}) == read()


def test_no_two_settings_are_so_alike_that_one_is_taken_for_a_slip_of_the_other() -> None:
    """A known name is known, whatever it is near to."""
    assert (
        len(set(KNOWN))
        == len(KNOWN)
        == sum(len(declared(cls)) for cls in (Settings, Kafka, Kusto, SchemaRegistry))
    )


STORAGE: list[tuple[dict[str, str], tuple[str | None, ...]]] = [
    ({"AzureWebJobsStorage": "UseDevelopmentStorage=true;"}, ("AzureWebJobsStorage", AZURITE_CONNECTION_STRING)),
    (
        {"AzureWebJobsStorage": "x", "SinkStorage": "AccountName=a;AccountKey=a2V5=="},
        ("SinkStorage", "AccountName=a;AccountKey=a2V5=="),
    ),
    (
        {"AzureWebJobsStorage__accountName": "acc1"},
        (
            "AzureWebJobsStorage",
            None,
            "https://acc1.blob.core.windows.net",
            "https://acc1.table.core.windows.net",
            None,
            None,
        ),
    ),
    (
        {
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "SINKSTORAGE__BLOBSERVICEURI": "https://b.example/",
            "SinkStorage__tableServiceUri": "https://127.0.0.1:10002/devstoreaccount1",
            "SinkStorage__queueServiceUri": "https://q.example",
            "SinkStorage__credential": "managedIdentity",
            "SinkStorage__clientId": IDENTITY,
        },
        (
            "SinkStorage",
            None,
            "https://b.example",
            "https://127.0.0.1:10002/devstoreaccount1",
            "managedidentity",
            IDENTITY,
        ),
    ),
    (
        {"SinkStorage__accountName": "acc1", "SinkStorage": "AccountName=a;AccountKey=a2V5"},
        ("SinkStorage", "AccountName=a;AccountKey=a2V5"),
    ),
    (
        {"SinkStorage__accountName": "acc1", "SinkStorage__blobServiceUri": "https://b.example"},
        ("SinkStorage", None, "https://b.example", "https://acc1.table.core.windows.net", None, None),
    ),
]


@pytest.mark.parametrize(("given_values", "expected"), STORAGE)
def test_a_storage_connection_is_read_in_each_of_functions_forms(
    given_values: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    """Source: Functions' connections; an exact name goes first, and letters' case does not matter."""
    found = read({"AzureWebJobsStorage": None, **given_values}).storage

    assert dataclasses.astuple(found)[: len(expected)] == expected


STORAGE_REFUSED: list[tuple[Changes, str, str]] = [
    ({"SinkStorage": "AccountName=a"}, "SinkStorage", "AccountKey"),
    ({"SinkStorage": "AccountName=a;AccountKey=k;rest"}, "SinkStorage", "has no ="),
    ({"SinkStorage": "BlobEndpoint=https://b;SharedAccessSignature=sv=1"}, "SinkStorage", "holds a SAS"),
    ({"SinkStorage__blobServiceUri": "https://b"}, "SinkStorage__tableServiceUri", "SinkStorage__accountName"),
    ({"SinkStorage__accountName": "My_Account"}, "SinkStorage__accountName", "3 to 24"),
    ({"SinkStorage__accountName": "acc", "SinkStorage__clientId": "c"}, "SinkStorage__clientId", "credential"),
    (
        {"SinkStorage__accountName": "acc", "SinkStorage__credential": "key"},
        "SinkStorage__credential",
        "set managed",
    ),
    (
        {"SinkStorage__accountName": "acc", "SinkStorage__blobServiceUri": "http://127.0.0.1:1/a"},
        "SinkStorage__blobServiceUri",
        "needs https",
    ),
    (
        {"SinkStorage__accountName": "acc", "SinkStorage__tableServiceUri": "https://t/?sv=1"},
        "SinkStorage__tableServiceUri",
        "end it after the path",
    ),
]


@pytest.mark.parametrize(("changes", "name", "words"), STORAGE_REFUSED)
def test_a_storage_connection_that_cannot_work_is_refused(changes: Changes, name: str, words: str) -> None:
    """Each of these would fail at the first batch, with an error of the SDK that names no setting."""
    (fault,) = faults(changes)

    assert fault.startswith(f"{name}: ")
    assert words in fault


def test_a_development_storage_string_is_one_that_the_storage_clients_take() -> None:
    """Source: azure-storage-blob and azure-data-tables for Python do not know UseDevelopmentStorage."""
    from azure.data.tables import TableServiceClient
    from azure.storage.blob import BlobServiceClient

    with (
        BlobServiceClient.from_connection_string(AZURITE_CONNECTION_STRING) as blobs,
        TableServiceClient.from_connection_string(AZURITE_CONNECTION_STRING) as tables,
    ):
        assert blobs.primary_endpoint.startswith("http://127.0.0.1:10000/devstoreaccount1")
        assert tables.url.startswith("http://127.0.0.1:10002/devstoreaccount1")


TIMES: list[tuple[dict[str, Any], Changes, list[tuple[str, str]]]] = [
    ({}, {}, [("functionTimeout", "1800 s is not below maxPollIntervalMs, 300 s")]),
    ({"functionTimeout": "00:04:59"}, {}, []),
    ({"functionTimeout": "00:05"}, {}, [("functionTimeout", "300 s is not below maxPollIntervalMs, 300 s")]),
    (
        {"functionTimeout": "00:04:00"},
        {},
        [("SINK_INVOCATION_MAX_S", "240 s is not below functionTimeout, 240 s")],
    ),
    ({"functionTimeout": "00:04:00"}, {"SINK_INVOCATION_MAX_S": "239"}, []),
    ({"functionTimeout": "-1"}, {}, [("functionTimeout", "unbounded")]),
    ({"functionTimeout": "24:00:00"}, {}, [("functionTimeout", "no time")]),
    ({"functionTimeout": 600}, {}, [("functionTimeout", "no time")]),
    ({"functionTimeout": "1.00:00:00"}, {}, [("functionTimeout", "86400 s")]),
    ({"FunctionTimeout": "00:10:00", "extensions": {"Kafka": {"MAXPOLLINTERVALMS": "600001"}}}, {}, []),
    (
        {"functionTimeout": "00:10:00", "extensions": {"kafka": {"maxPollIntervalMs": 9e5}}},
        {},
        [("maxPoll", "number")],
    ),
    ({"functionTimeout": "00:04:59", "extensions": []}, {}, []),
    (HOST, {"AzureFunctionsJobHost__functionTimeout": "00:15:00"}, [("functionTimeout", "900 s is not below")]),
    (HOST, {"azurefunctionsjobhost:FUNCTIONTIMEOUT": "00:01:00"}, [("SINK_INVOCATION_MAX_S", "60 s")]),
    (HOST, {"AzureFunctionsJobHost__extensions__kafka__maxPollIntervalMs": "1"}, [("functionTimeout", "0.001 s")]),
    (HOST, {"AzureFunctionsJobHost__functionTimeout": ""}, []),
    ({}, {"AzureFunctionsJobHost__extensions__kafka__maxPollIntervalMs": "1800001"}, []),
]


@pytest.mark.parametrize(("host", "changes", "expected"), TIMES)
def test_deadlines_rise_from_the_sink_to_the_host_to_kafka(
    host: dict[str, Any], changes: Changes, expected: list[tuple[str, str]]
) -> None:
    """Out of order, the host kills a batch that still works, or Kafka takes its partitions away."""
    values = {name: value for name, value in {**LEAST, **changes}.items() if value is not None}
    try:
        read_settings(values, host)
        found: tuple[str, ...] = ()
    except ConfigError as error:
        found = error.faults

    assert len(found) == len(expected)
    for fault, (name, words) in zip(found, expected, strict=True):
        assert fault.startswith(name)
        assert words in fault


def test_without_a_host_only_overrides_are_compared() -> None:
    """A tool that reads the settings has no host.json, and no host whose times could be wrong."""
    read_settings(LEAST, None)
    with pytest.raises(ConfigError, match="functionTimeout, 60 s"):
        read_settings({**LEAST, "AzureFunctionsJobHost__functionTimeout": "00:01:00"}, None)


def test_routes_are_found_by_topic_and_a_star_takes_the_rest() -> None:
    """A trigger needs each topic by name, in a stable order."""
    mapping = [{**ROUTE, "topic": "*", "table": "Rest"}, ROUTE]
    found = read({"SINK_TOPICS_MAPPING": json.dumps(mapping), "SINK_TOPICS": "weather, flights,planes,weather"})

    assert found.topics == ("weather", "planes", "flights")
    assert [route.table for topic in found.topics for route in found.routes_of(topic)] == [
        "Rest",
        "Rest",
        "Flights",
    ]
    assert found.routes_of("unknown") == ()


def test_a_hundred_topics_are_taken_and_one_more_is_refused() -> None:
    """The host runs a consumer for each, and a function app has its limits."""
    star = json.dumps([{**ROUTE, "topic": "*"}])
    topics = [f"t{number}" for number in range(101)]

    assert len(read({"SINK_TOPICS_MAPPING": star, "SINK_TOPICS": ",".join(topics[:100])}).topics) == 100
    (fault,) = faults({"SINK_TOPICS_MAPPING": star, "SINK_TOPICS": ",".join(topics)})
    assert "101 topics" in fault


# Topics are names, which faults must show; everything else may hold a secret that was pasted into the wrong place.
SILENT = [name for name in KNOWN if name not in ("SINK_TOPICS", "SINK_TOPICS_MAPPING")]
SILENT += ["SinkStorage", "AzureWebJobsStorage", "SinkStorage__accountName", "SinkStorage__blobServiceUri"]


def test_no_secret_is_in_the_text_of_settings() -> None:
    """Settings end up in logs and tracebacks."""
    key = "-----BEGIN PRIVATE KEY-----s3cr3t-----END PRIVATE KEY-----"
    tls = {"KAFKA_SSL_CERTIFICATE": key, "KAFKA_SSL_KEY": key, "KAFKA_SSL_KEY_PASSWORD": "s3cr3t"}
    account = {"SinkStorage": "AccountName=a;AccountKey=s3cr3t"}
    found = read(
        {**SASL, "KAFKA_PASSWORD": "s3cr3t", **tls, **APPLICATION, "KUSTO_CLIENT_SECRET": "s3cr3t", **account}
    )
    oauth = read({**OAUTH, "KAFKA_OAUTH_CLIENT_SECRET": "s3cr3t"})

    assert found.kafka.password == found.kusto.client_secret == oauth.kafka.oauth_client_secret == "s3cr3t"
    assert "s3cr3t" not in repr(found) + str(found) + repr(oauth)


def faults_or_none(values: Mapping[str, str], host: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        assert isinstance(read_settings(values, host), Settings)
    except ConfigError as error:
        return error.faults
    return ()


@pytest.mark.parametrize("name", SILENT)
def test_no_fault_shows_what_a_setting_says(name: str) -> None:
    """Secrets are pasted into the wrong setting, too: only topics and the fields of routes are repeated."""
    secret = "zq8-s3cr3t"
    for shape in (
        "{}",
        " {} ",
        "{}\n{}",
        "https://x:{}@host",
        "https://host/{}",
        "http://{}",
        "a={};b",
        "{}=",
        "-{}%",
    ):
        text = shape.replace("{}", secret)
        assert secret not in "\n".join(faults_or_none({**LEAST, name: text, "KAFKA_SSL_KEY": text}, {}))


@settings(max_examples=100, deadline=None)
@given(values=st.dictionaries(st.sampled_from(SILENT), st.text(max_size=9).map("zq8{}".format)))
def test_any_text_gives_settings_or_faults_without_it(values: dict[str, str]) -> None:
    """A portal takes any text; the app must start, or say why not, and never repeat what was said."""
    found = faults_or_none({**LEAST, **values}, HOST)

    assert all(fault.isascii() and "\n" not in fault for fault in found)
    assert not [fault for fault in found if "zq8" in fault]


def test_the_sample_is_complete_but_for_adx() -> None:
    """The sample works with docker-compose.yml; only the cluster is the reader's to fill in."""
    values = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    with pytest.raises(ConfigError) as raised:
        read_settings(values, HOST)

    (fault,) = raised.value.faults
    assert fault.startswith("KUSTO_INGESTION_URL: ")
    found = read_settings({**values, "KUSTO_INGESTION_URL": LEAST["KUSTO_INGESTION_URL"]}, HOST)
    assert found.topics == ("flights",)
    assert found.storage.connection_string == AZURITE_CONNECTION_STRING
    compose = (ROOT / "docker-compose.yml").read_text()
    for port in (9092, 10000, 10001, 10002):
        assert f'"127.0.0.1:{port}:{port}"' in compose
