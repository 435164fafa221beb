"""Where blobs and ledger live: a connection by Functions' own convention, from whichever of its forms is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sinkcore.connections import url_up_to
from sinkcore.declared import Faults, UnusableError, like, nearest, shown

# Azurite's account and key are published constants, the same on every machine: no secret.
AZURITE_CONNECTION_STRING = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1"
)


@dataclass(frozen=True, slots=True)
class Storage:
    """Either `connection_string` is set, or the two service URIs are.

    `name` is the connection's: SinkStorage or AzureWebJobsStorage. With URIs, `credential` is
    `managedidentity` or None for whatever the environment offers, and `client_id` a user-assigned identity's.
    """

    name: str
    connection_string: str | None = field(default=None, repr=False)
    blob_service_uri: str | None = None
    table_service_uri: str | None = None
    credential: str | None = None
    client_id: str | None = None


def _read_service_uri(value: str) -> str:
    uri = url_up_to("path")(value)
    if not uri.startswith("https://"):
        # Source: the storage SDK sends tokens over https only, to loopback too.
        raise UnusableError("it is http, and an identity needs https", "use https, or a connection string")
    return uri


def _read_credential(value: str) -> str:
    if value.lower() != "managedidentity":
        raise UnusableError("what it says is not supported", "set managedidentity or remove it")
    return value.lower()


STORAGE_PARTS: Mapping[str, Callable[[str], str]] = {
    "accountName": like(r"[a-z0-9]{3,24}", "it is no account's name", "use 3 to 24 lower-case letters or digits"),
    "blobServiceUri": _read_service_uri,
    "tableServiceUri": _read_service_uri,
    "queueServiceUri": str,
    "credential": _read_credential,
    "clientId": str,
}
"""How a setting of an identity ends, and what reads it."""


def read_storage(values: Mapping[str, str], faults: Faults) -> Storage:
    """`SinkStorage` in one of Functions' forms, else `AzureWebJobsStorage`.

    Source: Functions takes the exact name before those with a double underscore, in any case of letters.
    """
    folded = {name.upper(): value.strip() for name, value in values.items() if value.strip()}
    for name in values:
        part = name[len("SinkStorage__") :]
        if name.upper().startswith("SINKSTORAGE__") and part.upper() not in map(str.upper, STORAGE_PARTS):
            faults.add(shown(name)[1:-1], "it is unknown", f"{nearest(part, STORAGE_PARTS)} is the nearest ending")
    for name in ("SinkStorage", "AzureWebJobsStorage"):
        if name.upper() in folded:
            return Storage(name, faults.read(name, _read_connection_string, folded[name.upper()]))
        parts = {part: folded[key] for part in STORAGE_PARTS if (key := f"{name}__{part}".upper()) in folded}
        if parts:
            return _read_identity(name, parts, faults)
    faults.add("SinkStorage", "neither it nor AzureWebJobsStorage is set", "set one of them")
    return Storage("SinkStorage")


def _read_connection_string(value: str) -> str:
    pairs = [pair.partition("=") for pair in value.rstrip(";").split(";")]
    parts = {key.strip().lower(): rest for key, _, rest in pairs}
    if parts == {"usedevelopmentstorage": "true"}:
        return AZURITE_CONNECTION_STRING  # The Python SDK does not know this shorthand.
    if "sharedaccesssignature" in parts:
        raise UnusableError("its connection string holds a SAS", "use an account key or an identity")
    if not (parts.get("accountname") and parts.get("accountkey")) or not all(equals for _, equals, _ in pairs):
        fact = "its connection string lacks AccountName or AccountKey, or a part of it has no ="
        raise UnusableError(fact, "copy it whole, or use an identity")
    return value


def _read_identity(name: str, parts: Mapping[str, str], faults: Faults) -> Storage:
    found = {part: faults.read(f"{name}__{part}", STORAGE_PARTS[part], value) for part, value in parts.items()}
    for service in ("blob", "table"):
        part = f"{service}ServiceUri"
        if part not in parts and "accountName" not in parts:
            faults.add(f"{name}__{part}", "it is not set", f"set it, or {name}__accountName")
        found.setdefault(part, f"https://{found.get('accountName')}.{service}.core.windows.net")
    if "clientId" in parts and "credential" not in parts:
        faults.add(f"{name}__clientId", "it means nothing alone", f"set {name}__credential to managedidentity too")
    uris = found["blobServiceUri"], found["tableServiceUri"]
    return Storage(name, None, *uris, found.get("credential"), found.get("clientId"))
