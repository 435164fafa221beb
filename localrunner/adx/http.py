"""The two endpoints over HTTP. Whatever a request holds, the answer is Kusto's JSON, an error included."""

from __future__ import annotations

import json
import logging
import uuid
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from localrunner.adx import commands, control, frames, mgmt, query
from localrunner.adx.catalog import Catalog
from localrunner.adx.errors import KustoError, syntax_error, where, wrong_endpoint
from localrunner.adx.ingest import Ingestor
from localrunner.adx.mgmt import Context, Role
from localrunner.adx.resources import Resources

_LOG = logging.getLogger(__name__)
_BODY_MAX_BYTES = 16 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS

# What public Azure answers; a client with a token credential reads it before it asks for a token.
_CLOUD = {
    "AzureAD": {
        "LoginEndpoint": "https://login.microsoftonline.com",
        "LoginMfaRequired": False,
        "KustoClientAppId": "db662dc1-0cfe-4e1c-a843-19a68e65be58",
        "KustoClientRedirectUri": "https://microsoft/kustoclient",
        "KustoServiceResourceId": "https://kusto.kusto.windows.net",
        "FirstPartyAuthorityUrl": "https://login.microsoftonline.com/f8cdef31-a31e-4b4a-93e4-5f571e91255a",
    }
}

assert commands  # imported for its effect: it registers the management commands


@dataclass(frozen=True, slots=True)
class Services:
    """What both endpoints share."""

    catalog: Catalog
    ingestor: Ingestor
    resources: Resources


@dataclass(frozen=True, slots=True)
class _Call:
    database: str
    text: str
    properties: dict[str, Any]


Endpoint = Callable[[Request, str, str], Awaitable[bytes]]


def app(services: Services, role: Role) -> Starlette:
    """The HTTP application of one endpoint."""

    def context(call: _Call) -> Context:
        return Context(
            services.catalog, services.ingestor, services.resources, role, call.database, call.properties
        )

    async def management(request: Request, _client: str, _activity: str) -> bytes:
        call = await _call(request)
        if not call.text.lstrip().startswith("."):
            raise syntax_error("a management command begins with '.'")
        return await run_in_threadpool(lambda: frames.v1(mgmt.execute(context(call), call.text)))

    def run(call: _Call) -> frames.Result:
        if role is not Role.ENGINE:
            raise wrong_endpoint("a query", Role.ENGINE.value)
        if call.text.lstrip().startswith("."):
            return mgmt.execute(context(call), call.text)
        return query.run(services.catalog, call.database, call.text, call.properties)

    async def query_v1(request: Request, _client: str, _activity: str) -> bytes:
        call = await _call(request)
        return await run_in_threadpool(lambda: frames.v1(run(call)))

    async def query_v2(request: Request, client: str, activity: str) -> bytes:
        call = await _call(request)
        return await run_in_threadpool(lambda: frames.v2(run(call), client, activity))

    async def streaming(_request: Request, _client: str, _activity: str) -> bytes:
        raise KustoError("Streaming ingestion is not known to this double yet.")

    async def metadata(_request: Request, _client: str, _activity: str) -> bytes:
        return msgspec.json.encode(_CLOUD)

    async def health(_request: Request, _client: str, _activity: str) -> bytes:
        return msgspec.json.encode({"status": "ok", "role": role.name.lower()})

    async def batches(request: Request, _client: str, _activity: str) -> bytes:
        after = request.query_params.get("after", "0")
        if not after.isdigit():
            raise KustoError("'after' is the number of a batch")
        return msgspec.json.encode(await run_in_threadpool(control.batches, services.catalog.store, int(after)))

    routes = [
        Route("/v1/rest/mgmt", _answered(management), methods=["POST"]),
        Route("/v1/rest/query", _answered(query_v1), methods=["POST"]),
        Route("/v2/rest/query", _answered(query_v2), methods=["POST"]),
        Route("/v1/rest/ingest/{database}/{table}", _answered(streaming), methods=["POST"]),
        Route("/v1/rest/auth/metadata", _answered(metadata), methods=["GET"]),
        Route("/local/health", _answered(health), methods=["GET"]),
    ]
    if role is Role.DM:
        routes.append(Route("/local/batches", _answered(batches), methods=["GET"]))
    return Starlette(routes=routes, exception_handlers={HTTPException: _unknown_path})


def _answered(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """`endpoint` as Starlette calls it: its bytes, or its error, as JSON with Kusto's two headers."""

    async def answer(request: Request) -> Response:
        activity = str(uuid.uuid4())
        client = request.headers.get("x-ms-client-request-id") or f"unspecified;{activity}"
        try:
            return _response(200, await endpoint(request, client, activity), client, activity)
        except KustoError as error:
            refused = error
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of the double must reach the client as JSON, not as a closed socket
            _LOG.error("request_failed activity=%s path=%s %s", activity, request.url.path, where(error))
            refused = KustoError(
                f"The double itself failed: {type(error).__name__}",
                code="General_InternalServerError",
                kind="Kusto.Data.Exceptions.KustoServicePartialQueryFailureException",
                status=520,
                permanent=False,
            )
        return _response(refused.status, msgspec.json.encode(refused.body(activity, client)), client, activity)

    return answer


def _response(status: int, body: bytes, client: str, activity: str) -> Response:
    headers = {"x-ms-client-request-id": client, "x-ms-activity-id": activity}
    return Response(body, status, headers, media_type="application/json; charset=UTF-8")


async def _unknown_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = KustoError(f"{request.method} {request.url.path[:200]}: {error.detail}", status=error.status_code)
    activity = str(uuid.uuid4())
    return _response(error.status_code, msgspec.json.encode(refused.body(activity, "")), "", activity)


async def _call(request: Request) -> _Call:
    """What is asked, from the body of a POST.

    Source: `properties` is a JSON string inside the JSON (azure-kusto-data 6.0.4, ExecuteRequestParams).
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_MAX_BYTES:
            raise _too_large()
    if request.headers.get("content-encoding", "").lower() == "gzip":
        decompressor = zlib.decompressobj(_GZIP)
        try:
            body = decompressor.decompress(body, _BODY_MAX_BYTES)
        except zlib.error:
            raise KustoError("The body is not gzip, though its Content-Encoding says so") from None
        if decompressor.unconsumed_tail:
            raise _too_large()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise KustoError("The body is not JSON") from None
    if not isinstance(value, dict):
        raise KustoError("The body is not a JSON object")
    text, database = value.get("csl"), value.get("db") or "NetDefaultDB"
    if not isinstance(text, str) or not text.strip():
        raise KustoError("The body has no text in 'csl'")
    if not isinstance(database, str):
        raise KustoError("'db' is not a string")
    return _Call(database, text, _properties(value.get("properties")))


def _too_large() -> KustoError:
    return KustoError(f"The body has more than {_BODY_MAX_BYTES} bytes", status=413)


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
