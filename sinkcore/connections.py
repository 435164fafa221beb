"""How the app reaches Kafka, ADX and storage: the settings of each connection, and what must go together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from sinkcore.declared import (
    Faults,
    UnusableError,
    declared,
    nearest,
    one_of,
    read_declared,
    required,
    secret,
    shown,
    text,
)

# Azurite's account and key are published constants, the same on every machine: no secret.
AZURITE_CONNECTION_STRING = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
STORAGE_NAMES = ("SinkStorage", "AzureWebJobsStorage")
STORAGE_PARTS = ("accountName", "blobServiceUri", "tableServiceUri", "queueServiceUri", "credential", "clientId")

_PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_BROKER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_GROUP_PREFIX = re.compile(r"[ -$&-~]{1,80}")  # printable ASCII without %, which the host would expand


def is_loopback(url: SplitResult) -> bool:
    """The URL's host is this machine, so that plain http shows nothing to anybody."""
    host = url.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(value: str) -> SplitResult:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise UnusableError("it is not a URL", "write https://HOST") from None
    if url.scheme not in ("https", "http") or not url.hostname or port == 0 or not value.isascii():
        raise UnusableError("it is not an https URL", "write https://HOST")
    if url.username or url.password or url.query or url.fragment or any(map(str.isspace, value)):
        raise UnusableError("it holds more than a URL's scheme, host and path", "remove the rest")
    if url.scheme == "http" and not is_loopback(url):
        raise UnusableError("it is http to another machine", "use https")
    return url


def _read_url(value: str) -> str:
    return _url(value).geturl().rstrip("/")


def _read_endpoint(value: str) -> str:
    url = _url(value)
    if url.path.strip("/"):
        raise UnusableError("it has a path", "write https://HOST alone")
    return f"{url.scheme}://{url.netloc}"


def _read_brokers(value: str) -> str:
    brokers = [broker.strip() for broker in value.split(",")]
    for broker in brokers:
        match = _BROKER.fullmatch(broker)
        if match is None or (match[1] is not None and not 1 <= int(match[1]) <= 65535):
            raise UnusableError("it is not a list of brokers", "write HOST:PORT, several with commas between")
    return ",".join(brokers)


def _read_group(value: str) -> str:
    # With the longest topic and every byte escaped, the ledger's PartitionKey stays within Azure's
    # 512 characters.
    if not _GROUP_PREFIX.fullmatch(value):
        raise UnusableError("it is no prefix of a group", "use 1 to 80 printable ASCII characters without %")
    return value


def _read_pem_or_path(value: str) -> str:
    value = value.strip()
    if value.startswith("-----BEGIN") and "-----END" not in value:
        raise UnusableError("its PEM text ends before -----END", "set the whole text")
    if "\n" in value and not value.startswith("-----BEGIN"):
        raise UnusableError("it is neither a path nor PEM text", "set one of the two")
    return value


@dataclass(frozen=True, slots=True)
class Kafka:
    """How to reach Kafka, for the trigger and for the sink's own consumer."""

    brokers: str = required(
        "KAFKA_BROKERS",
        "Bootstrap list",
        allowed="`HOST:PORT`, several with commas between",
        read=_read_brokers,
    )
    consumer_group: str = text(
        "KAFKA_CONSUMER_GROUP",
        "Prefix: the group of a topic is `<prefix>-<topic>`",
        default="adx-sink",
        allowed="1 to 80 printable ASCII characters without `%`",
        read=_read_group,
    )
    protocol: str = one_of(
        "KAFKA_PROTOCOL",
        ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "Security protocol",
        default="PLAINTEXT",
    )
    authentication: str | None = one_of(
        "KAFKA_AUTHENTICATION", (*_PASSWORD_MECHANISMS, "OAUTHBEARER"), "SASL mechanism; with `SASL_*` protocols"
    )
    username: str | None = text("KAFKA_USERNAME", "For `PLAIN` and `SCRAM-*`")
    password: str | None = secret("KAFKA_PASSWORD", "For `PLAIN` and `SCRAM-*`")
    oauth_token_url: str | None = text(
        "KAFKA_OAUTH_TOKEN_URL", "For `OAUTHBEARER`: where tokens come from", allowed="https URL", read=_read_url
    )
    oauth_client_id: str | None = text("KAFKA_OAUTH_CLIENT_ID", "For `OAUTHBEARER`")
    oauth_client_secret: str | None = secret("KAFKA_OAUTH_CLIENT_SECRET", "For `OAUTHBEARER`")
    oauth_scope: str | None = text("KAFKA_OAUTH_SCOPE", "For `OAUTHBEARER`, if the provider wants one")
    oauth_extensions: str | None = text(
        "KAFKA_OAUTH_EXTENSIONS", "For `OAUTHBEARER`, if the broker wants some", allowed="`KEY=VALUE`, with commas"
    )
    ssl_ca: str | None = text(
        "KAFKA_SSL_CA", "Authority that signed the brokers", allowed="path, or PEM text", read=_read_pem_or_path
    )
    ssl_certificate: str | None = secret(
        "KAFKA_SSL_CERTIFICATE", "The app's certificate", allowed="path, or PEM text", read=_read_pem_or_path
    )
    ssl_key: str | None = secret(
        "KAFKA_SSL_KEY", "The certificate's key", allowed="path, or PEM text", read=_read_pem_or_path
    )
    ssl_key_password: str | None = secret("KAFKA_SSL_KEY_PASSWORD", "The key's password, if it has one")

    def group_of(self, topic: str) -> str:
        """The consumer group that reads `topic`: one for each, since two topics in one starve each other."""
        return f"{self.consumer_group}-{topic}"


@dataclass(frozen=True, slots=True)
class Kusto:
    """How to reach ADX: its two endpoints, without a slash at the end, and as whom."""

    ingestion_url: str = required(
        "KUSTO_INGESTION_URL",
        "Data-management endpoint",
        allowed="`https://ingest-CLUSTER.REGION.kusto.windows.net`",
        read=_read_endpoint,
    )
    query_url: str = text(
        "KUSTO_QUERY_URL",
        "Engine endpoint",
        default="derived",
        allowed="`https://CLUSTER.REGION.kusto.windows.net`",
        read=_read_endpoint,
    )
    authentication: str = one_of(
        "KUSTO_AUTHENTICATION",
        ("managed_identity", "workload_identity", "application", "azure_cli", "none"),
        "As whom; `none` on loopback only",
        default="managed_identity",
    )
    client_id: str | None = text("KUSTO_CLIENT_ID", "User-assigned identity or application")
    client_secret: str | None = secret("KUSTO_CLIENT_SECRET", "The application's secret")
    tenant_id: str | None = text("KUSTO_TENANT_ID", "The application's tenant")


@dataclass(frozen=True, slots=True)
class Storage:
    """Where blobs and ledger live. Either `connection_string` is set, or the two service URIs are.

    `name` is the setting that named it. With URIs, `credential` is `managedidentity` or None for whatever
    the environment offers, and `client_id` is that of a user-assigned identity.
    """

    name: str
    connection_string: str | None = field(default=None, repr=False)
    blob_service_uri: str | None = None
    table_service_uri: str | None = None
    credential: str | None = None
    client_id: str | None = None


def read_kafka(values: Mapping[str, str], faults: Faults) -> Kafka:
    """The `KAFKA_*` settings; what does not go together is a fault."""
    kafka = Kafka(**read_declared(Kafka, values, faults))
    together = _Together(kafka, faults)
    sasl = kafka.protocol.startswith("SASL_")
    if not {"KAFKA_PROTOCOL", "KAFKA_AUTHENTICATION"} & faults.names:
        if sasl:
            together.needed(f"KAFKA_PROTOCOL {kafka.protocol}", "authentication")
        else:
            together.unwanted("a KAFKA_PROTOCOL of SASL_SSL or SASL_PLAINTEXT", "authentication")
        _check_mechanism(kafka.authentication, together)
    if "KAFKA_PROTOCOL" not in faults.names and kafka.protocol not in ("SSL", "SASL_SSL"):
        together.unwanted(
            "a KAFKA_PROTOCOL of SSL or SASL_SSL", "ssl_ca", "ssl_certificate", "ssl_key", "ssl_key_password"
        )
    if kafka.ssl_certificate or kafka.ssl_key:
        together.needed("a certificate with its key", "ssl_certificate", "ssl_key")
    else:
        together.unwanted("KAFKA_SSL_KEY", "ssl_key_password")
    return kafka


def _check_mechanism(mechanism: str | None, together: _Together) -> None:
    oauth = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
    if mechanism in _PASSWORD_MECHANISMS:
        together.needed(f"KAFKA_AUTHENTICATION {mechanism}", "username", "password")
    else:
        together.unwanted("a KAFKA_AUTHENTICATION of PLAIN or SCRAM-*", "username", "password")
    if mechanism == "OAUTHBEARER":
        together.needed("KAFKA_AUTHENTICATION OAUTHBEARER", *oauth)
    else:
        together.unwanted("KAFKA_AUTHENTICATION OAUTHBEARER", *oauth, "oauth_scope", "oauth_extensions")


def read_kusto(values: Mapping[str, str], faults: Faults) -> Kusto:
    """The `KUSTO_*` settings, with the query URL filled in; what does not go together is a fault."""
    found = read_declared(Kusto, values, faults)
    ingestion_url = found.get("ingestion_url", "")
    if "query_url" not in found and ingestion_url and "KUSTO_QUERY_URL" not in faults.names:
        found["query_url"] = _engine_of(ingestion_url, faults)
    kusto = Kusto(**found)
    if kusto.query_url.startswith("https://ingest-"):
        faults.add("KUSTO_QUERY_URL", "it is a data-management endpoint", "leave ingest- out")
    if "KUSTO_AUTHENTICATION" in faults.names:
        return kusto
    together = _Together(kusto, faults)
    how = kusto.authentication
    if how == "application":
        together.needed(f"KUSTO_AUTHENTICATION {how}", "client_id", "client_secret", "tenant_id")
    else:
        together.unwanted("KUSTO_AUTHENTICATION application", "client_secret")
    if how in ("azure_cli", "none"):
        together.unwanted("an identity or application as KUSTO_AUTHENTICATION", "client_id")
    if how in ("managed_identity", "none"):
        together.unwanted("KUSTO_AUTHENTICATION application or workload_identity", "tenant_id")
    # Source: azure-kusto-data's with_no_authentication takes http:// only, and http means loopback here.
    urls = [url for url in (found.get("ingestion_url"), found.get("query_url")) if url]
    if how == "none" and any(not url.startswith("http://") for url in urls):
        faults.add("KUSTO_AUTHENTICATION", "none is for http on loopback only", "name an identity")
    return kusto


def _engine_of(ingestion_url: str, faults: Faults) -> str:
    scheme, _, host = ingestion_url.partition("://")
    if host.startswith("ingest-"):
        return f"{scheme}://{host.removeprefix('ingest-')}"
    if is_loopback(urlsplit(ingestion_url)):
        faults.add("KUSTO_QUERY_URL", "on loopback it cannot be derived", "set the engine's URL")
    else:
        faults.add("KUSTO_INGESTION_URL", "its host does not begin with ingest-", "set the data-management URL")
    return ""


def read_storage(values: Mapping[str, str], faults: Faults) -> Storage:
    """`SinkStorage` in one of Functions' forms, else `AzureWebJobsStorage`.

    Source: Functions takes the exact name before the names with a double underscore, in any case of letters.
    """
    folded = {name.upper(): value.strip() for name, value in values.items() if value.strip()}
    for name in STORAGE_NAMES:
        prefix = f"{name}__".upper()
        parts = {part: folded[prefix + part.upper()] for part in STORAGE_PARTS if prefix + part.upper() in folded}
        if name == "SinkStorage":
            _check_parts(prefix, values, faults)
        if name.upper() in folded:
            return Storage(name, connection_string=_read_connection_string(name, folded[name.upper()], faults))
        if parts:
            return _read_identity(name, parts, faults)
    faults.add("SinkStorage", "neither it nor AzureWebJobsStorage is set", "set one of them")
    return Storage("SinkStorage")


def _check_parts(prefix: str, values: Mapping[str, str], faults: Faults) -> None:
    for name in values:
        part = name[len(prefix) :]
        if name.upper().startswith(prefix) and part.upper() not in map(str.upper, STORAGE_PARTS):
            faults.add(
                shown(name)[1:-1], "it is unknown", f"SinkStorage__{nearest(part, STORAGE_PARTS)} is the nearest"
            )


def _read_connection_string(name: str, value: str, faults: Faults) -> str:
    pairs = [pair.partition("=") for pair in value.strip(";").split(";")]
    parts = {key.strip().lower(): rest for key, _, rest in pairs}
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        # The Python SDK does not know this shorthand.
        return AZURITE_CONNECTION_STRING
    if "sharedaccesssignature" in parts:
        faults.add(name, "its connection string holds a SAS", "use an account key or an identity")
    elif not (parts.get("accountname") and parts.get("accountkey")):
        faults.add(
            name, "its connection string lacks AccountName or AccountKey", "copy it whole, or use an identity"
        )
    return value


def _read_identity(name: str, parts: Mapping[str, str], faults: Faults) -> Storage:
    account = parts.get("accountName")
    uris = {}
    for service in ("blob", "table"):
        part = f"{service}ServiceUri"
        if part in parts:
            uris[service] = _read_service_uri(f"{name}__{part}", parts[part], faults)
        elif account is None:
            faults.add(f"{name}__{part}", "it is not set", f"set it, or {name}__accountName")
        elif _ACCOUNT.fullmatch(account):
            uris[service] = f"https://{account}.{service}.core.windows.net"
    if account is not None and not _ACCOUNT.fullmatch(account):
        faults.add(f"{name}__accountName", "it is no account's name", "use 3 to 24 lower-case letters or digits")
    credential = parts.get("credential", "").lower() or None
    if credential not in (None, "managedidentity"):
        faults.add(f"{name}__credential", "what it says is not supported", "set managedidentity or remove it")
    if "clientId" in parts and credential is None:
        faults.add(
            f"{name}__clientId", "it is set without a credential", f"set {name}__credential to managedidentity"
        )
    return Storage(name, None, uris.get("blob"), uris.get("table"), credential, parts.get("clientId"))


def _read_service_uri(name: str, value: str, faults: Faults) -> str | None:
    # Source: the storage SDK sends tokens over https only, to loopback too.
    try:
        uri = _read_url(value)
    except UnusableError as unusable:
        faults.add(name, unusable.fact, unusable.fix)
        return None
    if not uri.startswith("https://"):
        faults.add(name, "it is http, and an identity needs https", "use https or a connection string")
    return uri


class _Together:
    """Says which settings of one connection are missing beside others, or mean nothing without them."""

    def __init__(self, connection: Kafka | Kusto, faults: Faults) -> None:
        self._connection = connection
        self._names = {name: setting.name for name, setting in declared(type(connection)).items()}
        self._faults = faults

    def needed(self, by: str, *names: str) -> None:
        """Each of these is set, or is a fault."""
        for name in self._unset(names, True):
            self._faults.add(name, f"it is not set, and {by} needs it", "set it")

    def unwanted(self, without: str, *names: str) -> None:
        """None of these is set, or is a fault."""
        for name in self._unset(names, False):
            self._faults.add(name, f"it means nothing without {without}", "set that or remove this")

    def _unset(self, names: tuple[str, ...], unset: bool) -> list[str]:
        found: dict[str, Any] = {self._names[name]: getattr(self._connection, name) for name in names}
        return [n for n, value in found.items() if (value is None) is unset and n not in self._faults.names]
