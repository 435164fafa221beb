"""How the app reaches Kafka, ADX and a schema registry: the settings of each, and what must go together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sinkcore.declared import Faults, UnusableError, declared, like, one_of, read_declared, text

# Azure's load balancers forget a connection that was silent for 4 minutes, and so does Event Hubs.
KAFKA_IDLE_MAX_MS = 180_000
PEM_BEGINS = "-----BEGIN"
APP = Path(__file__).resolve().parent.parent

_PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_HOST = r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?"
_BROKER = re.compile(_HOST)
_URL = re.compile(rf"(https?)://{_HOST}(/[!-~]*)?", re.IGNORECASE)


def url_up_to(most: str, *, http: bool = False) -> Callable[[str], str]:
    """A reader for https URLs with no more to them than `most`: "host", "path" or "query".

    On loopback, or anywhere if `http`, they may be http.
    """

    def read(value: str) -> str:
        match = _URL.fullmatch(value)
        if match is None or not _is_port(match[3]):
            raise UnusableError("it is not a URL of https://HOST", "write that, without a user or spaces")
        rest = (match[4] or "").rstrip("/")
        if (rest and most == "host") or (most == "path" and set("?#") & set(rest)):
            raise UnusableError("it has more than a URL should here", f"end it after the {most}")
        if not http and match[1].lower() == "http" and not is_loopback(value):
            raise UnusableError("it is http to another machine", "use https")
        return value[: match.start(4)].lower() + rest if match[4] else value.lower()

    return read


def _is_port(digits: str | None) -> bool:
    return digits is None or 1 <= int(digits) <= 65_535


def is_loopback(url: str) -> bool:
    """The URL's host is this machine, so that plain http shows nothing to anybody."""
    match = _URL.fullmatch(url)
    host = match[2].strip("[]").lower() if match else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_brokers(value: str) -> str:
    brokers = [broker.strip() for broker in value.split(",")]
    for broker in brokers:
        match = _BROKER.fullmatch(broker)
        if match is None or not _is_port(match[2]):
            raise UnusableError("it is not a list of brokers", "write HOST:PORT, several with commas between")
    return ",".join(brokers)


def _read_pem_or_path(value: str) -> str:
    is_pem = value.lstrip().startswith(PEM_BEGINS)
    if is_pem and "-----END" not in value:
        raise UnusableError("its PEM text ends before -----END", "set the whole text")
    if "\n" in value.strip() and not is_pem:
        raise UnusableError("it is neither a path nor PEM text", "set one of the two")
    return value.strip()


def _pem(name: str, meaning: str) -> str | None:
    # A path is no secret, but PEM text may hold a key, a certificate's too.
    declaration: str | None = text(name, meaning, allowed="path, or PEM text", read=_read_pem_or_path, secret=True)
    return declaration


@dataclass(frozen=True, slots=True)
class Kafka:
    """How to reach Kafka, for the trigger and for the sink's own consumer."""

    brokers: str = text(
        "KAFKA_BROKERS",
        "Bootstrap list",
        "required",
        allowed="`HOST:PORT`, several with commas between",
        read=_read_brokers,
    )
    consumer_group: str = text(
        "KAFKA_CONSUMER_GROUP",
        "Prefix: the group of a topic is `<prefix>-<topic>`",
        "adx-sink",
        allowed="1 to 80 printable ASCII characters, no `%`",
        # With the longest topic and every byte escaped, the ledger's PartitionKey keeps to Azure's 512 characters.
        read=like(
            r"[ -$&-~]{1,80}", "it cannot begin a group", "use 1 to 80 printable ASCII characters without %"
        ),
    )
    protocol: str = one_of(
        "KAFKA_PROTOCOL", ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), "Security protocol", "PLAINTEXT"
    )
    authentication: str | None = one_of(
        "KAFKA_AUTHENTICATION", (*_PASSWORD_MECHANISMS, "OAUTHBEARER"), "Mechanism, with the `SASL_*` protocols"
    )
    username: str | None = text("KAFKA_USERNAME", "For `PLAIN` and `SCRAM-*`")
    password: str | None = text("KAFKA_PASSWORD", "For `PLAIN` and `SCRAM-*`", secret=True)
    oauth_token_url: str | None = text(
        "KAFKA_OAUTH_TOKEN_URL",
        "For `OAUTHBEARER`: where tokens are had",
        allowed="https URL",
        read=url_up_to("query"),
    )
    oauth_client_id: str | None = text("KAFKA_OAUTH_CLIENT_ID", "For `OAUTHBEARER`")
    oauth_client_secret: str | None = text("KAFKA_OAUTH_CLIENT_SECRET", "For `OAUTHBEARER`", secret=True)
    oauth_scope: str | None = text("KAFKA_OAUTH_SCOPE", "For `OAUTHBEARER`, where the provider wants one")
    oauth_extensions: str | None = text(
        "KAFKA_OAUTH_EXTENSIONS",
        "For `OAUTHBEARER`, where the broker wants some",
        allowed="`KEY=VALUE`, with commas",
    )
    ssl_ca: str | None = _pem("KAFKA_SSL_CA", "Authority that signed the brokers' certificates")
    ssl_certificate: str | None = _pem("KAFKA_SSL_CERTIFICATE", "The app's own certificate")
    ssl_key: str | None = _pem("KAFKA_SSL_KEY", "That certificate's key")
    ssl_key_password: str | None = text("KAFKA_SSL_KEY_PASSWORD", "That key's password", secret=True)

    def group_of(self, topic: str) -> str:
        """The consumer group that reads `topic`: one for each, since two topics in one starve each other."""
        return f"{self.consumer_group}-{topic}"

    def client_config(self, app: Path = APP) -> dict[str, Any]:
        """librdkafka's properties for a connection by these settings; only those that are set.

        Source: librdkafka's CONFIGURATION.md. Its log lines are off, since what matters also comes as an error.
        """
        config: dict[str, Any] = {
            "bootstrap.servers": self.brokers,
            "client.id": "adx-sink",
            "allow.auto.create.topics": False,  # brokers make topics that a client mentions, unless it says this
            "security.protocol": self.protocol,
            "sasl.mechanism": self.authentication,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "sasl.oauthbearer.method": "oidc" if self.authentication == "OAUTHBEARER" else None,
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.client.secret": self.oauth_client_secret,
            "sasl.oauthbearer.scope": self.oauth_scope,
            "sasl.oauthbearer.extensions": self.oauth_extensions,
            **_pem_or_path("ca", self.ssl_ca, app),
            **_pem_or_path("certificate", self.ssl_certificate, app),
            **_pem_or_path("key", self.ssl_key, app),
            "ssl.key.password": self.ssl_key_password,
            "connections.max.idle.ms": KAFKA_IDLE_MAX_MS,
            "metadata.max.age.ms": KAFKA_IDLE_MAX_MS,
            "socket.keepalive.enable": True,
            "log_level": 0,
        }
        return {name: value for name, value in config.items() if value is not None}

    def without_secrets(self, text: str) -> str:
        """`text`, which a library or an identity provider wrote, without what nobody may read."""
        key = self.ssl_key if self.ssl_key is not None and self.ssl_key.startswith(PEM_BEGINS) else None
        for secret in (self.password, self.oauth_client_secret, key, self.ssl_key_password):
            if secret:
                text = text.replace(secret, "***")
        return text


def _pem_or_path(name: str, value: str | None, app: Path) -> dict[str, str]:
    """PEM text by one property, a file by another, as the trigger takes them.

    Source: the Kafka extension's PEMExtractor.cs reads a backslash and an n in PEM text as a line's end, and its
    AzureFunctionsFileHelper.cs looks for a file that is not at its path by its name in the app's directory.
    """
    if value is None:
        return {}
    if value.startswith(PEM_BEGINS):
        return {f"ssl.{name}.pem": value.replace("\\n", "\n")}
    beside = app / Path(value).name
    return {f"ssl.{name}.location": str(beside) if beside.exists() and not Path(value).exists() else value}


@dataclass(frozen=True, slots=True)
class Kusto:
    """How to reach ADX: its two endpoints, without a slash at the end, and as whom."""

    ingestion_url: str = text(
        "KUSTO_INGESTION_URL",
        "Data-management endpoint",
        "required",
        allowed="`https://ingest-CLUSTER.REGION.kusto.windows.net`",
        read=url_up_to("host"),
    )
    query_url: str = text(
        "KUSTO_QUERY_URL",
        "Engine endpoint; on loopback it has to be set",
        "<the other without `ingest-`>",
        allowed="`https://CLUSTER.REGION.kusto.windows.net`",
        read=url_up_to("host"),
    )
    authentication: str = one_of(
        "KUSTO_AUTHENTICATION",
        ("managed_identity", "workload_identity", "application", "azure_cli", "none"),
        "As whom; `none` on loopback only",
        "managed_identity",
    )
    client_id: str | None = text("KUSTO_CLIENT_ID", "User-assigned identity, or application")
    client_secret: str | None = text("KUSTO_CLIENT_SECRET", "The application's secret", secret=True)
    tenant_id: str | None = text("KUSTO_TENANT_ID", "The application's tenant")


@dataclass(frozen=True, slots=True)
class SchemaRegistry:
    """How to reach a schema registry, for routes that need one."""

    url: str | None = text(
        "SCHEMA_REGISTRY_URL",
        "Confluent-compatible registry; needed by `decode: registry` and `key: registry`",
        allowed="`https://HOST/PATH`; http without credentials",
        read=url_up_to("path", http=True),
    )
    username: str | None = text("SCHEMA_REGISTRY_USERNAME", "For basic authentication")
    password: str | None = text("SCHEMA_REGISTRY_PASSWORD", "For basic authentication", secret=True)
    token: str | None = text(
        "SCHEMA_REGISTRY_TOKEN",
        "For bearer authentication, in place of the two",
        read=like(r"[!-~]{1,16384}", "it cannot stand in a header", "use printable ASCII, no spaces"),
        secret=True,
    )


Connection = Kafka | Kusto | SchemaRegistry


def read_kafka(values: Mapping[str, str], faults: Faults) -> Kafka:
    """The `KAFKA_*` settings; what does not go together is a fault."""
    kafka = Kafka(**read_declared(Kafka, values, faults))
    only_with, how = partial(_only_with, kafka, faults), kafka.authentication
    if not {"KAFKA_PROTOCOL", "KAFKA_AUTHENTICATION"} & faults.names:
        sasl = kafka.protocol.startswith("SASL_")
        only_with("KAFKA_PROTOCOL SASL_PLAINTEXT or SASL_SSL", sasl, "authentication")
        only_with("KAFKA_AUTHENTICATION SCRAM-* or PLAIN", how in _PASSWORD_MECHANISMS, "username", "password")
        oauth = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
        more = ("oauth_scope", "oauth_extensions")
        only_with("KAFKA_AUTHENTICATION OAUTHBEARER", how == "OAUTHBEARER", *oauth, may=more)
    if kafka.protocol in ("SSL", "SASL_SSL") or "KAFKA_PROTOCOL" in faults.names:
        given, pair = kafka.ssl_certificate or kafka.ssl_key, ("ssl_certificate", "ssl_key")
        only_with("KAFKA_SSL_KEY with its certificate", bool(given), *pair, may=("ssl_key_password",))
    else:
        files = ("ssl_ca", "ssl_certificate", "ssl_key", "ssl_key_password")
        only_with("KAFKA_PROTOCOL SSL or SASL_SSL", False, *files)
    return kafka


def read_kusto(values: Mapping[str, str], faults: Faults) -> Kusto:
    """The `KUSTO_*` settings, with the query URL filled in; what does not go together is a fault."""
    found = read_declared(Kusto, values, faults)
    urls = [found[name] for name in ("ingestion_url", "query_url") if name in found]
    if "ingestion_url" in found and "query_url" not in found and "KUSTO_QUERY_URL" not in faults.names:
        found["query_url"] = _engine_of(found["ingestion_url"], faults)
    kusto = Kusto(**found)
    if kusto.query_url.startswith("https://ingest-") or len(set(urls)) < len(urls):
        faults.add("KUSTO_QUERY_URL", "it is the data-management endpoint", "set the engine's, without ingest-")
    if "KUSTO_AUTHENTICATION" in faults.names:
        return kusto
    only_with, how = partial(_only_with, kusto, faults), kusto.authentication
    only_with("KUSTO_AUTHENTICATION application", how == "application", "client_secret")
    if how == "application":
        only_with("KUSTO_AUTHENTICATION application", True, "client_id", "tenant_id")
    if how in ("azure_cli", "none"):
        only_with("an identity or application as KUSTO_AUTHENTICATION", False, "client_id")
    if how in ("managed_identity", "none"):
        only_with("another KUSTO_AUTHENTICATION", False, "tenant_id")
    # Source: azure-kusto-data's with_no_authentication takes http:// only, and http means loopback here.
    if how == "none" and not all(url.startswith("http://") for url in urls):
        faults.add("KUSTO_AUTHENTICATION", "none is for http on loopback only", "name an identity")
    return kusto


def read_registry(values: Mapping[str, str], faults: Faults) -> SchemaRegistry:
    """The `SCHEMA_REGISTRY_*` settings; what does not go together is a fault."""
    registry = SchemaRegistry(**read_declared(SchemaRegistry, values, faults))
    only_with = partial(_only_with, registry, faults)
    if registry.url is None and "SCHEMA_REGISTRY_URL" not in faults.names:
        only_with("SCHEMA_REGISTRY_URL", False, "username", "password", "token")
    elif registry.token is not None:
        only_with("basic authentication, which SCHEMA_REGISTRY_TOKEN replaces", False, "username", "password")
    elif registry.username is not None or registry.password is not None:
        only_with("basic authentication", True, "username", "password")
    open_to_others = (registry.url or "").startswith("http:") and not is_loopback(registry.url or "")
    if open_to_others and (registry.username or registry.token):
        faults.add("SCHEMA_REGISTRY_URL", "credentials would go over http to another machine", "use https")
    return registry


def _engine_of(ingestion_url: str, faults: Faults) -> str:
    scheme, host = ingestion_url.split("://")
    if host.startswith("ingest-"):
        return f"{scheme}://{host.removeprefix('ingest-')}"
    if is_loopback(ingestion_url):
        faults.add("KUSTO_QUERY_URL", "on loopback it cannot be derived", "set the engine's URL")
    else:
        faults.add("KUSTO_INGESTION_URL", "its host does not begin with ingest-", "set the data-management URL")
    return ""


def _only_with(
    connection: Connection, faults: Faults, what: str, holds: bool, *needed: str, may: tuple[str, ...] = ()
) -> None:
    """Where `what` holds, the fields `needed` are set; elsewhere neither they nor those of `may` are."""
    for name in needed if holds else (*needed, *may):
        setting = declared(type(connection))[name].name
        is_set = getattr(connection, name) is not None
        if holds and not is_set and setting not in faults.names:
            faults.add(setting, f"it is not set, and {what} needs it", "set it")
        elif is_set and not holds:
            faults.add(setting, f"it means nothing without {what}", "set that or remove this")
