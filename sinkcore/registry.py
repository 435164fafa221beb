"""A schema registry over Confluent's REST protocol.

confluent-kafka's own client is not used: it needs five more packages, and importing it takes 0.7 s.
"""

from __future__ import annotations

import base64
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

import msgspec

from sinkcore.clock import Clock
from sinkcore.connections import SchemaRegistry, is_loopback
from sinkcore.declared import shown
from sinkcore.errors import TransientError
from sinkcore.schemas import SCHEMA_MAX_BYTES, Kind, Reference, Schema

ANSWER_TIMEOUT_S = 10.0
# An id that is unknown now may be known soon: a registry's replicas lag behind its leader.
UNKNOWN_FOR_S = 30.0
UNKNOWN_MAX = 100_000
REFERENCES_MAX = 1_000
REFERENCE_DEPTH_MAX = 32

# Source: Confluent's error codes for a subject, a version and a schema that do not exist. Any other 404 means that
# there is no registry at that URL.
_NOT_FOUND = (40401, 40402, 40403)


class _Unknown(Exception):  # noqa: N818 - an answer, not an error
    """The registry has no such schema."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Credentials are sent to nobody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Reference(msgspec.Struct):
    name: str
    subject: str
    version: int

    @property
    def path(self) -> str:
        return f"/subjects/{quote(self.subject, safe='')}/versions/{self.version}"


class _Answer(msgspec.Struct):
    """What a registry says of a schema, as far as it is read."""

    schema: str
    kind: Kind | None = msgspec.field(name="schemaType", default=None)
    references: list[_Reference] | None = None


class _Refusal(msgspec.Struct):
    error_code: int


class Registry:
    """Schemas by id, each asked for once; an id that is unknown is asked for again after seconds."""

    def __init__(self, settings: SchemaRegistry, clock: Clock) -> None:
        assert settings.url is not None, "settings want a URL where a route needs a registry"
        self._url = settings.url
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        authorization = _authorization(settings)
        if authorization is not None:
            self._headers["Authorization"] = authorization
        self._clock = clock
        # A proxy that the environment names is for other machines.
        handlers = [urllib.request.ProxyHandler({})] if is_loopback(self._url) else []
        self._open: Callable[..., Any] = urllib.request.build_opener(_NoRedirects, *handlers).open
        self._lock = threading.Lock()
        self._known: dict[int, Schema] = {}
        self._unknown_until_s: dict[int, float] = {}

    def schema(self, schema_id: int) -> Schema | None:
        """See Schemas."""
        known = self._known.get(schema_id)
        if known is not None:
            return known
        # One question at a time: a new schema shows in all topics and partitions at once.
        with self._lock:
            known = self._known.get(schema_id)
            if known is not None or self._unknown_until_s.get(schema_id, 0) > self._clock.monotonic_s():
                return known
            try:
                known = self._known[schema_id] = self._read(f"/schemas/ids/{schema_id}", [], 0)
            except _Unknown:
                if len(self._unknown_until_s) >= UNKNOWN_MAX:
                    self._unknown_until_s.clear()
                self._unknown_until_s[schema_id] = self._clock.monotonic_s() + UNKNOWN_FOR_S
            return known

    def _read(self, path: str, seen: list[_Reference], depth: int) -> Schema:
        """The schema at `path`, with everything that it refers to; `seen` are all references so far."""
        found = self._ask(path)
        kind = found.kind or "AVRO"
        if kind == "PROTOBUF":
            # As text it would have to be compiled; a registry hands out the compiled form, too.
            found = self._ask(f"{path}?format=serialized")
            if not _is_base64(found.schema):
                raise self._fault(f"no serialized form of the Protobuf schema at {path}, which this app needs")
        references = found.references or []
        seen += references
        if depth > REFERENCE_DEPTH_MAX or len(seen) > REFERENCES_MAX:
            raise _Unknown  # It refers to itself, or to the whole registry: nobody can use it.
        named = (Reference(each.name, self._read(each.path, seen, depth + 1)) for each in references)
        return Schema(kind, found.schema, tuple(named))

    def _ask(self, path: str) -> _Answer:
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310 - http(s), by settings
        try:
            with self._open(request, timeout=ANSWER_TIMEOUT_S) as answer:
                data = answer.read(SCHEMA_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                code = _error_code(error)
            if error.code == 404 and code in _NOT_FOUND:
                raise _Unknown from None
            raise self._fault(f"HTTP {error.code} to {path}; check URL and credentials") from None
        except (OSError, HTTPException) as error:
            raise self._fault(f"no answer to {path} ({type(error).__name__}); check that it runs") from None
        if len(data) > SCHEMA_MAX_BYTES:
            raise self._fault(f"more than {SCHEMA_MAX_BYTES} bytes to {path}")
        try:
            return msgspec.json.decode(data, type=_Answer, strict=False)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._fault(f"an answer to {path} that cannot be used ({shown(error)})") from None

    def _fault(self, what: str) -> TransientError:
        return TransientError(f"schema registry: {what}; the batch is tried again")


def _authorization(settings: SchemaRegistry) -> str | None:
    if settings.token is not None:
        return f"Bearer {settings.token}"
    if settings.username is None:
        return None
    pair = f"{settings.username}:{settings.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _error_code(error: urllib.error.HTTPError) -> int | None:
    try:
        return msgspec.json.decode(error.read(SCHEMA_MAX_BYTES), type=_Refusal).error_code
    except (OSError, HTTPException, msgspec.DecodeError, RecursionError):
        return None


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True
