"""The two endpoints over HTTP. Whatever a request holds, the answer is Kusto's JSON, an error included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from localrunner.adx import commands, control, frames, mgmt, query, streaming
from localrunner.adx.catalog import Catalog
from localrunner.adx.csl import bare
from localrunner.adx.errors import of_status, syntax_error, wrong_endpoint
from localrunner.adx.exchange import BODY_MAX_BYTES, Endpoint, Exchange, answered, inflated
from localrunner.adx.ingest import Ingestor
from localrunner.adx.mgmt import Context, Role
from localrunner.adx.observer import Observer
from localrunner.adx.resources import Resources

# What 4 MB may hold once they are decompressed.
_STREAMED_MAX_BYTES = 256 * 1024 * 1024

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
    observer: Observer


def app(services: Services, role: Role) -> Starlette:
    """The HTTP application of one endpoint."""

    def context(asked: Exchange) -> Context:
        return Context(
            services.catalog, services.ingestor, services.resources, role, asked.database, asked.properties
        )

    def command(asked: Exchange) -> frames.Result:
        if not bare(asked.text).startswith("."):
            raise syntax_error("a management command begins with '.', after comments at most")
        return mgmt.execute(context(asked), asked.text)

    def run(asked: Exchange) -> frames.Result:
        if role is not Role.ENGINE:
            raise wrong_endpoint("a query", Role.ENGINE.value)
        if bare(asked.text).startswith("."):
            return mgmt.execute(context(asked), asked.text)
        return query.run(services.catalog, asked.database, asked.text, asked.properties)

    async def management(asked: Exchange) -> bytes:
        return await run_in_threadpool(lambda: frames.v1(command(asked)))

    async def query_v1(asked: Exchange) -> bytes:
        return await run_in_threadpool(lambda: frames.v1(run(asked)))

    async def query_v2(asked: Exchange) -> bytes:
        return await run_in_threadpool(lambda: frames.v2(run(asked), asked.client, asked.activity))

    def stream(asked: Exchange) -> frames.Result:
        if role is not Role.ENGINE:
            raise wrong_endpoint("streaming ingestion", Role.ENGINE.value)
        request = asked.request
        return streaming.ingest(
            services.catalog,
            services.ingestor,
            request.path_params["database"],
            request.path_params["table"],
            request.query_params,
            inflated(request, asked.body, _STREAMED_MAX_BYTES),
        )

    async def streamed(asked: Exchange) -> bytes:
        return await run_in_threadpool(lambda: frames.v1(stream(asked)))

    async def metadata(_asked: Exchange) -> bytes:
        return msgspec.json.encode(_CLOUD)

    def route(path: str, method: str, kind: str, endpoint: Endpoint) -> Route:
        limit = streaming.BODY_MAX_BYTES if kind == "streaming" else BODY_MAX_BYTES
        handler = answered(services.observer, role.name.lower(), kind, endpoint, limit)
        return Route(path, handler, methods=[method])

    routes = [
        route("/v1/rest/mgmt", "POST", "mgmt", management),
        route("/v1/rest/query", "POST", "query", query_v1),
        route("/v2/rest/query", "POST", "query", query_v2),
        route("/v1/rest/ingest/{database}/{table}", "POST", "streaming", streamed),
        route("/v1/rest/auth/metadata", "GET", "metadata", metadata),
    ]
    routes += [
        route(path, method, "local", endpoint)
        for path, method, endpoint in control.endpoints(services.catalog.store, services.observer, role)
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _unknown_path(services.observer, role)})


def _unknown_path(observer: Observer, role: Role) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, detail = error.status_code, error.detail

        async def refuse(_asked: Exchange) -> bytes:
            raise of_status(status, f"{request.method} {request.url.path[:200]}: {detail}")

        return await answered(observer, role.name.lower(), "other", refuse)(request)

    return answer
