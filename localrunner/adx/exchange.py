"""One request and its answer: the body read within limits, faults on demand, errors as JSON, a line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from localrunner.adx.counters import shown
from localrunner.adx.errors import KustoError, of_status, where
from localrunner.adx.faults import Fault
from localrunner.adx.observer import Observer
from localrunner.adx.protocol import Dropped, Hanging, delayed

_LOG = logging.getLogger(__name__)

BODY_MAX_BYTES = 16 * 1024 * 1024
# How long a client may be silent in the middle of a body.
BODY_PAUSE_MAX_S = 30.0
_GZIP = 16 + zlib.MAX_WBITS
# The parts of a query string that may be shown; an address with a signature is in none of them.
_SHOWN_PARAMETERS = ("streamFormat", "mappingName", "sourceKind")


@dataclass(slots=True)
class Exchange:
    """A request to `role` of `kind`; `text`, `database` and `properties` are those of a command or query."""

    request: Request
    role: str
    kind: str
    activity: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_s: float = field(default_factory=time.monotonic)
    body: bytes = b""
    database: str = ""
    text: str = ""
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def client(self) -> str:
        """The client's own id of the request, or one that stands for it."""
        return self.request.headers.get("x-ms-client-request-id") or f"unspecified;{self.activity}"


Endpoint = Callable[[Exchange], Awaitable[bytes]]


def answered(
    observer: Observer,
    role: str,
    kind: str,
    endpoint: Endpoint,
    body_max_bytes: int = BODY_MAX_BYTES,
    body_pause_max_s: float = BODY_PAUSE_MAX_S,
) -> Callable[[Request], Awaitable[Response]]:
    """`endpoint` as Starlette calls it: its bytes, or its error, as JSON with Kusto's two headers."""

    async def answer(request: Request) -> Response:
        exchange = Exchange(request, role, kind)
        fault: Fault | None = None
        error: KustoError | None = None
        try:
            await _read(exchange, body_max_bytes, body_pause_max_s)
            if kind != "local":
                fault = observer.faults.on_request(role, kind, exchange.text)
            response = await _carry_out(exchange, endpoint, fault)
        except KustoError as refused:
            error = refused
            response = _response(exchange, error.status, msgspec.json.encode(_body(exchange, error)))
        except ClientDisconnect:
            # Nobody is there to be answered.
            response = Dropped()
        if kind != "local":
            _note(observer, exchange, response, error, fault)
        return response

    return answer


async def _carry_out(exchange: Exchange, endpoint: Endpoint, fault: Fault | None) -> Response:
    """The endpoint's answer, or what a fault puts in its place. Raises: KustoError."""
    if fault is not None:
        match fault.do:
            case "drop":
                return Dropped()
            case "hang":
                return Hanging(fault)
            case "status":
                raise of_status(fault.status, "Made up on demand.", code=fault.code, permanent=fault.permanent)
            case "throttle":
                raise of_status(429, "Request is denied due to throttling.")
            case "delay":
                await delayed(fault)
    try:
        payload = await endpoint(exchange)
    except (KustoError, ClientDisconnect):
        raise
    except Exception as error:  # noqa: BLE001 - a fault of the double must reach the client as JSON, not as a closed socket
        _LOG.error(
            "request_failed activity=%s path=%s %s", exchange.activity, exchange.request.url.path, where(error)
        )
        raise of_status(
            520, f"The double itself failed: {type(error).__name__}", code="General_InternalServerError"
        ) from None
    if fault is not None and fault.do == "lose_reply":
        return Dropped()
    return _response(exchange, 200, payload)


def _body(exchange: Exchange, error: KustoError) -> dict[str, Any]:
    return error.body(exchange.activity, exchange.client)


def _response(exchange: Exchange, status: int, body: bytes) -> Response:
    headers = {"x-ms-client-request-id": exchange.client, "x-ms-activity-id": exchange.activity}
    return Response(body, status, headers, media_type="application/json; charset=UTF-8")


def _note(
    observer: Observer, exchange: Exchange, response: Response, error: KustoError | None, fault: Fault | None
) -> None:
    """The request is in the log and counted; nothing in it came from a body or a signature."""
    request = exchange.request
    status = None if isinstance(response, Dropped) else response.status_code
    parameters = {name: request.query_params[name] for name in _SHOWN_PARAMETERS if name in request.query_params}
    observer.counters.add(f"requests.{exchange.role}.{exchange.kind}.{status or 'unanswered'}")
    observer.requests.add(
        {
            "at": datetime.now(UTC).isoformat(),
            "role": exchange.role,
            "kind": exchange.kind,
            "method": request.method,
            "path": request.url.path[:500],
            "parameters": parameters,
            "database": exchange.database,
            "text": shown(exchange.text),
            "body_bytes": len(exchange.body),
            "status": status,
            "error": error.code if error else None,
            "fault": fault.number if fault else None,
            "client_request_id": exchange.client,
            "activity_id": exchange.activity,
            "application": request.headers.get("x-ms-app", ""),
            "duration_ms": round((time.monotonic() - exchange.started_s) * 1000, 1),
        }
    )


async def _read(exchange: Exchange, body_max_bytes: int, body_pause_max_s: float) -> None:
    """The body is there; that of a command or query is taken apart.

    Raises:
        KustoError: 400, 408 or 413.
    """
    pieces = exchange.request.stream()
    body = bytearray()
    try:
        while True:
            async with asyncio.timeout(body_pause_max_s):
                body += await anext(pieces)
            if len(body) > body_max_bytes:
                raise _too_large(body_max_bytes)
    except StopAsyncIteration:
        exchange.body = bytes(body)
    except TimeoutError:
        raise of_status(408, f"Nothing more of the body came for {body_pause_max_s:g} s") from None
    if exchange.kind in ("mgmt", "query"):
        _take_apart(exchange)


def _take_apart(exchange: Exchange) -> None:
    """What is asked, from the body of a POST.

    Source: `properties` is a JSON string inside the JSON (azure-kusto-data 6.0.4, ExecuteRequestParams).
    """
    try:
        value = json.loads(inflated(exchange.request, exchange.body, BODY_MAX_BYTES))
    except (ValueError, RecursionError):
        raise KustoError("The body is not JSON") from None
    if not isinstance(value, dict):
        raise KustoError("The body is not a JSON object")
    text, database = value.get("csl"), value.get("db") or "NetDefaultDB"
    if not isinstance(text, str) or not text.strip():
        raise KustoError("The body has no text in 'csl'")
    if not isinstance(database, str):
        raise KustoError("'db' is not a string")
    exchange.text, exchange.database = text, database
    exchange.properties = _properties(value.get("properties"))


def inflated(request: Request, body: bytes, max_bytes: int) -> bytes:
    """The body without the compression that its header names. Raises: KustoError."""
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise KustoError(f"Content-Encoding '{encoding[:40]}' is not known to this double; gzip is")
    plain = bytearray()
    try:
        while True:
            decompressor = zlib.decompressobj(_GZIP)
            plain += decompressor.decompress(body, max_bytes + 1 - len(plain))
            if len(plain) > max_bytes:
                raise _too_large(max_bytes)
            if not decompressor.eof:
                raise KustoError("The body is gzip that breaks off")
            if not decompressor.unused_data:
                return bytes(plain)
            # Another member follows.
            body = decompressor.unused_data
    except zlib.error:
        raise KustoError("The body is not gzip, though its Content-Encoding says so") from None


def _too_large(max_bytes: int) -> KustoError:
    return of_status(413, f"The body has more than {max_bytes} bytes")


def _properties(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise KustoError("'properties' is not JSON in a string") from None
    if not isinstance(value, dict):
        raise KustoError("'properties' is not a JSON object")
    unknown = sorted(set(value) - {"Options", "Parameters", "ClientRequestId", "Application", "User"})
    if unknown:
        raise KustoError(f"request property '{unknown[0]}' is not known to this double")
    return value
