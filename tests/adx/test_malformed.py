"""Whatever is sent, by whichever door: Kusto's error JSON, a log without tracebacks, and everything goes on."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message

from localrunner.adx import commands, mgmt
from localrunner.adx.blobs import Blobs
from localrunner.adx.catalog import Catalog
from localrunner.adx.errors import KustoError
from localrunner.adx.exchange import BODY_MAX_BYTES, Exchange, answered
from localrunner.adx.http import Services, app
from localrunner.adx.ingest import Ingestor
from localrunner.adx.mgmt import Context, Role
from localrunner.adx.observer import Observer
from localrunner.adx.resources import Resources
from localrunner.adx.store import Store
from tests.adx.support import Double

assert commands  # imported for its effect: it registers the management commands

STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;"
    "QueueEndpoint=http://127.0.0.1:9/a;TableEndpoint=http://127.0.0.1:9/a"
)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Context]]:
    """What commands may use, without a server around it; one for each endpoint."""
    store = Store(tmp_path_factory.mktemp("fuzz"))
    catalog = Catalog(store)
    for name in ("db", "Other"):
        catalog.create_database(name)
    resources = Resources(STORAGE, "fuzz", "token")
    ingestor = Ingestor(catalog, Blobs(resources.blobs, store.spool), Observer())
    made = [Context(catalog, ingestor, resources, role, "db") for role in Role]
    mgmt.execute(made[0], ".create table T (n: long, s: string)")
    yield made
    ingestor.close()
    store.close()


_WORDS = sorted({word for pattern in mgmt.patterns() for word in pattern.split() if not word.startswith("<")})
_PIECES = st.one_of(
    st.sampled_from(
        [*_WORDS, "T", "db", "['T']", "n", "with", "ifexists", "where", "tags", "has", "<|", "|", "count"]
    ),
    st.sampled_from(
        ["(", ")", ",", ":", ";", "=", "'", '"', "```", "@'", "[", "]", "//", "\\", "\n", "{}", "[]", "null"]
    ),
    st.sampled_from(
        ["(n: long)", "'{\"IsEnabled\": true}'", "'[]'", "(T, T)", '(folder = "x")', "1", "-1", "00:00:10"]
    ),
    st.text(max_size=6),
)


@given(st.lists(_PIECES, max_size=9), st.sampled_from([" ", ""]))
@settings(max_examples=400, deadline=None)
def test_any_command_is_carried_out_or_refused(contexts: list[Context], pieces: list[str], between: str) -> None:
    """A parser that met anything else would answer with its own failure."""
    for context in contexts:
        try:
            mgmt.execute(context, "." + between.join(pieces))
        except KustoError as error:
            assert error.status < 500  # noqa: PT017 - either outcome is right


VALID = (
    ".create table T2 (n: long, ['a b']: System.String, d: dynamic) with (folder = 'x', docstring = \"y\")",
    ".create tables A (n: long), B (s: string)",
    ".create-merge table T (n: long, later: datetime)",
    ".alter table T (n: long, s: string)",
    ".alter-merge table T (m: real)",
    ".drop tables (A, B) ifexists",
    '.create-or-alter table T ingestion json mapping \'M\' \'[{"Column": "n", "Properties": {"Path": "$.n"}}]\'',
    '.show table T ingestion json mapping "M"',
    ".drop table T ingestion csv mapping 'M'",
    '.create database db ingestion csv mapping \'M\' ```[{"Column": "n", "Ordinal": 0}]```',
    '.alter table T policy ingestionbatching @\'{"MaximumBatchingTimeSpan": "00:00:30"}\'',
    '.alter-merge tables (T) policy streamingingestion \'{"IsEnabled": true, "HintAllocatedRate": 2.5}\'',
    ".alter database db policy streamingingestion enable",
    ".show table T extents (11111111-2222-4333-8444-555555555555) hot where tags has 'a' and tags !contains 'b'",
    ".show tables (T) extents",
    ".drop extents <| .show table T extents where tags has 'a' | where RowCount > 0",
    ".drop extent 11111111-2222-4333-8444-555555555555 from T",
    ".ingest inline into table T with (format = 'csv') <| 1,x\n2,\"y",
    ".show tables (T) | where TableName has 'T' // remark",
    ".clear table T data",
    ".show database db extents | summarize sum(OriginalSize) by TableName",
    ".get ingestion resources",
)


@st.composite
def _damaged(draw: st.DrawFn) -> str:
    """A valid command with up to three pieces of it taken out, doubled or replaced."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 8)))
        text = text[:at] + draw(st.one_of(st.just(""), st.just(text[at:end] * 2), _PIECES)) + text[end:]
    return text


@given(_damaged())
@settings(max_examples=800, deadline=None)
def test_any_damaged_command_is_carried_out_or_refused(contexts: list[Context], text: str) -> None:
    """Nearer to what is written by mistake."""
    for context in contexts:
        try:
            mgmt.execute(context, text)
        except KustoError as error:
            assert error.status < 500  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("text", VALID)
def test_the_commands_that_are_damaged_were_good(contexts: list[Context], text: str) -> None:
    """Or else the damage would be done to nothing: what fails, fails for something that is not there."""
    engine, dm = contexts
    try:
        mgmt.execute(dm if "resources" in text else engine, text)
    except KustoError as error:
        missing = error.code in ("BadRequest_EntityNotFound", "Stream_ClosingQuoteMissing")
        assert missing or "already exists" in error.message  # noqa: PT017 - either outcome is right


def exchange(port: int, sent: bytes) -> bytes:
    """What is answered to these bytes, until it closes or has nothing more to say."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        pieces = b""
        while piece := connection.recv(65536):
            pieces += piece
        return pieces


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"POST /v1/rest/mgmt HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/rest/mgmt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/rest/mgmt HTTP/9.9\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_what_is_no_http_is_answered_as_a_bad_request(double: Double, sent: bytes) -> None:
    """In the same form, and the connection is closed."""
    for port in double.ports:
        head, _, body = exchange(port, sent).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"]["@permanent"] is True
        assert requests.get(f"http://127.0.0.1:{port}/local/health", timeout=10).status_code == 200


def test_a_body_that_breaks_off_is_nobody_s_problem(double: Double) -> None:
    """The client is gone, so that there is nothing to answer; the next one is served."""
    sent = b"POST /v1/rest/mgmt HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"

    assert b"HTTP/1.1 200" not in exchange(double.ports[1], sent)
    assert double.query("print 1") == [[1]]


def test_a_client_that_falls_silent_in_the_middle_of_a_body_is_told() -> None:
    """408, which is not permanent, after half a minute in earnest."""

    async def endpoint(_asked: Exchange) -> bytes:
        return b"{}"

    handler = answered(Observer(), "engine", "mgmt", endpoint, body_pause_max_s=0.05)
    app = Starlette(routes=[Route("/v1/rest/mgmt", handler, methods=["POST"])])
    scope = {"type": "http", "method": "POST", "path": "/v1/rest/mgmt", "query_string": b"", "headers": []}
    told: list[Message] = []

    async def run() -> None:
        begun = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Message:
            return next(begun, None) or await asyncio.Event().wait()  # type: ignore[arg-type, return-value]

        async def send(message: Message) -> None:
            told.append(message)

        await asyncio.wait_for(app(scope, receive, send), 10)

    asyncio.run(run())
    assert told[0]["status"] == 408
    assert json.loads(told[1]["body"])["error"]["@permanent"] is False


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Encoding": "br"}, b"{}", 400),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00", 400),
        ({"Content-Type": "text/xml"}, b"<xml/>", 400),
        ({"x-ms-client-request-id": "é\t".encode().decode("latin-1")}, b"{}", 400),
        ({"Authorization": "Bearer " + "x" * 10_000}, b'{"csl": ".show version"}', 200),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rest/mgmt", "/v2/rest/query"])
def test_odd_headers_are_answered_in_form(
    double: Double, headers: dict[str, str], body: bytes, status: int, path: str
) -> None:
    """Encodings that are not known, ids that are no ASCII, long tokens."""
    reply = requests.post(double.engine + path, data=body, headers=headers, timeout=10)

    assert reply.status_code == status
    assert status == 200 or {"code", "@message", "@permanent"} <= set(reply.json()["error"])


@pytest.mark.parametrize(
    "path", ["//", "/v1/rest/ingest/db/T/x", "/v1/rest/ingest//", "/local/", "/%00", "/..%2f..%2fetc"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE", "HEAD", "BREW"])
def test_odd_paths_and_methods_are_answered_in_form(double: Double, path: str, method: str) -> None:
    """404 or 405; HEAD has no body to hold the JSON."""
    for base in (double.engine, double.dm):
        reply = requests.request(method, base + path, timeout=10)
        assert reply.status_code in (404, 405)
        assert method == "HEAD" or reply.json()["error"]["@permanent"] is True


INGEST = "/v1/rest/ingest/db/T"
BOTH = [("POST", "/v1/rest/mgmt"), ("POST", "/v1/rest/query"), ("POST", "/v2/rest/query"), ("POST", INGEST)]
BOTH += [("GET", "/v1/rest/auth/metadata"), ("GET", "/local/health")]
PAGES = {
    Role.ENGINE: BOTH,
    Role.DM: [
        *BOTH,
        *[("GET", f"/local/{page}") for page in ("batches", "requests", "counters", "repeats", "faults")],
        *[("POST", "/local/faults"), ("DELETE", "/local/faults"), ("DELETE", "/local/faults/1")],
    ],
}
EVERY = [(role, method, path) for role, pages in PAGES.items() for method, path in pages]
# What a body can be, and what is answered; a page that takes none does not look at it.
BAD_BODIES: list[tuple[bytes, dict[str, str], int]] = [
    (b"", {}, 400),
    (b"\x00\xff nonsense", {}, 400),
    (b"[" * 100_000, {}, 400),
    (b"7", {}, 400),
    (b'{"csl": {"a": 1}, "do": ["x"]}', {}, 400),
    (b"{}", {"Content-Encoding": "br"}, 400),
    (b"no gzip", {"Content-Encoding": "gzip"}, 400),
    (gzip.compress(b'{"csl": "print 1"}')[:-6], {"Content-Encoding": "gzip"}, 400),
    (b" " * (BODY_MAX_BYTES + 1), {}, 413),
]


def test_every_endpoint_is_among_those_that_are_tried(contexts: list[Context]) -> None:
    """A new one is tried too, or this fails."""
    for context in contexts:
        services = Services(context.catalog, context.ingestor, context.resources, Observer())
        routes = [route for route in app(services, context.role).routes if isinstance(route, Route)]
        found = {(method, route.path) for route in routes for method in (route.methods or ()) if method != "HEAD"}
        places = {INGEST: "/v1/rest/ingest/{database}/{table}", "/local/faults/1": "/local/faults/{number:int}"}

        assert found == {(method, places.get(path, path)) for method, path in PAGES[context.role]}


@pytest.mark.parametrize(("role", "method", "path"), EVERY)
def test_every_endpoint_refuses_every_kind_of_malformed_request(
    double: Double, role: Role, method: str, path: str
) -> None:
    """In Kusto's form, permanent, and on a connection that goes on; never as a failure of the double itself."""
    base = double.engine if role is Role.ENGINE else double.dm
    logged = len(double.log)
    with requests.Session() as session:
        for body, headers, status in BAD_BODIES if method == "POST" else []:
            query = "?streamFormat=json" if path == INGEST else ""
            reply = session.post(base + path + query, data=body, headers=headers, timeout=30)
            assert (reply.status_code, reply.json()["error"]["@permanent"]) == (status, True), body[:30]
        for other in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {
            known for known, page in PAGES[role] if page == path
        }:
            reply = session.request(other, base + path, data=b"{}", timeout=10)
            assert (reply.status_code, reply.json()["error"]["@permanent"]) == (405, True), other
        assert session.get(f"{base}/local/health", timeout=10).status_code == 200
    assert "request_failed" not in double.log[logged:]


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False)
_ANY = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = (
    *("BlobPath", "RawDataSize", "DatabaseName", "TableName", "RetainBlobOnSuccess", "FlushImmediately"),
    *("ReportLevel", "ReportMethod", "Id", "IngestionStatusInTable", "AdditionalProperties"),
)
_PROPERTIES = (
    *("format", "tags", "ingestIfNotExists", "creationTime", "ingestionMapping", "ingestionMappingReference"),
    *("ingestionMappingType", "ValidationPolicy", "ignoreFirstRecord", "authorizationContext"),
)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(_FIELDS), _ANY, max_size=4),
            st.dictionaries(st.sampled_from(_PROPERTIES), _ANY, max_size=3),
        ),
        min_size=12,
        max_size=12,
    )
)
# Without shrinking: each example takes a second of a real queue.
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_malformed_messages_of_every_kind_do_not_stop_the_worker(
    double: Double, changes: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """In the queue itself: what comes after them is ingested, and none of them was an unexpected error."""
    table, logged = double.table("n: long"), len(double.log)
    for fields, properties in changes:
        body = {
            "Id": str(uuid.uuid4()),
            "BlobPath": double.upload(b'{"n": 1}'),
            "RawDataSize": 8,
            "DatabaseName": "db",
        }
        body |= {"TableName": "Elsewhere", "AdditionalProperties": {"format": "json", **properties}}
        double.queue_raw({**body, **fields})

    double.queue_raw(base64.b64encode(b'{"BlobPath": "\xff"}'))
    assert double.ingest(table, b'{"n": 1}') == "Succeeded"
    for word in ("Traceback", "poll_failed", "batch_failed", "batch_not_finished", "request_failed"):
        assert word not in double.log[logged:]


def test_a_store_that_was_fuzzed_is_still_in_order(contexts: list[Context], tmp_path: Path) -> None:
    """The catalog that is read again is the one that was left."""
    catalog = contexts[0].catalog
    before = {name: sorted(database.tables) for name, database in catalog.databases.items()}

    assert {name: sorted(database.tables) for name, database in Catalog(catalog.store).databases.items()} == before
