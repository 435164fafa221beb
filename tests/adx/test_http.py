"""Requests that no client would send: each is answered with Kusto's error JSON, and the connection lives on."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from typing import Any

import pytest
import requests

from localrunner.adx import cli
from tests.adx.support import Double

MIB = 1024 * 1024
ENDPOINTS = ["/v1/rest/mgmt", "/v1/rest/query", "/v2/rest/query"]
BODIES: list[bytes] = [
    b"",
    b"not json",
    b"[]",
    b"7",
    b"{}",
    b'{"csl": 5}',
    b'{"csl": ""}',
    b'{"db": 5, "csl": "print 1"}',
    b'{"db": "db", "csl": "print 1", "properties": "not json"}',
    b'{"db": "db", "csl": "print 1", "properties": "[]"}',
    b'{"db": "db", "csl": "print 1", "properties": {"Options": 5}}',
    b'{"db": "db", "csl": "print 1", "properties": {"Surprise": 5}}',
    b'{"db": "db", "csl": ".", "properties": ""}',
    b'{"db": "nowhere", "csl": "T"}',
    b"[" * 100_000,
    b"\xff\xfe",
    json.dumps({"db": "db", "csl": "print " + "(" * 5000}).encode(),
]


def check(reply: requests.Response, status: int | None = None) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert {"code", "message", "@type", "@message", "@context", "@permanent"} <= set(error)
    assert reply.status_code == (status or reply.status_code)
    assert reply.status_code >= 400
    assert "Traceback" not in reply.text
    assert reply.headers["x-ms-activity-id"]
    return error


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:40]))
def test_a_malformed_body_is_a_bad_request(double: Double, path: str, body: bytes) -> None:
    """400 and permanent: the same request will never succeed."""
    for base in (double.engine, double.dm):
        error = check(requests.post(base + path, data=body, timeout=30), 400)
        assert error["@permanent"] is True


def test_broken_gzip_is_a_bad_request_and_good_gzip_is_none(double: Double) -> None:
    """Clients may compress."""
    headers = {"Content-Encoding": "gzip"}
    body = json.dumps({"db": "db", "csl": "print 1"}).encode()

    check(requests.post(double.engine + "/v2/rest/query", data=body, headers=headers, timeout=10), 400)
    good = requests.post(double.engine + "/v2/rest/query", data=gzip.compress(body), headers=headers, timeout=10)
    assert good.status_code == 200
    large = b" " * (17 * MIB)
    check(requests.post(double.engine + "/v2/rest/query", data=large, timeout=10), 413)
    check(
        requests.post(double.engine + "/v2/rest/query", data=gzip.compress(large), headers=headers, timeout=10),
        413,
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/rest/nothing", 404),
        ("GET", "/v2/rest/query", 405),
        ("DELETE", "/v1/rest/mgmt", 405),
        ("POST", "/v1/rest/ingest/db/T?streamFormat=json", 400),
        ("GET", "/%ff%fe", 404),
    ],
)
def test_unknown_paths_and_methods_are_answered_in_kusto_s_form(
    double: Double, method: str, path: str, status: int
) -> None:
    """With its code, and nothing else."""
    check(requests.request(method, double.engine + path, data=b"{}", timeout=10), status)


def test_a_connection_is_kept_after_an_error(double: Double) -> None:
    """Kusto's clients do not repeat a request whose connection was closed."""
    with requests.Session() as session:
        for _ in range(3):
            check(session.post(double.engine + "/v2/rest/query", data=b"x", timeout=10), 400)
            reply = session.post(double.engine + "/v2/rest/query", json={"db": "db", "csl": "print 1"}, timeout=10)
            assert reply.status_code == 200
        adapter: Any = session.get_adapter(double.engine)
        (pool,) = adapter.poolmanager.pools._container.values()
        assert pool.num_connections == 1


def test_replies_do_not_wait_for_a_delayed_acknowledgement() -> None:
    """Without TCP_NODELAY every reply on a kept connection takes 40 ms and more; asyncio sets it on those of a
    listening socket that names its protocol, and on no others."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listening = cli.listening_socket(port)

    async def taken() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made = writer.get_extra_info("socket")
            accepted.set_result(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return await asyncio.wait_for(accepted, 10)

    assert asyncio.run(taken())


def test_any_token_is_accepted_and_the_request_id_comes_back(double: Double) -> None:
    """Tokens cannot be checked here."""
    headers = {"Authorization": "Bearer whatever", "x-ms-client-request-id": "mine;1"}
    reply = requests.post(
        double.engine + "/v1/rest/mgmt", json={"db": "db", "csl": ".show version"}, headers=headers, timeout=10
    )

    assert reply.status_code == 200
    assert reply.headers["x-ms-client-request-id"] == "mine;1"


def test_cloud_discovery_answers(double: Double) -> None:
    """A client with a token credential asks before it asks for a token."""
    for base in (double.engine, double.dm):
        assert "LoginEndpoint" in requests.get(base + "/v1/rest/auth/metadata", timeout=10).json()["AzureAD"]


def test_the_double_s_own_pages(double: Double) -> None:
    """Health on both ports, batches on the data-management one."""
    assert requests.get(double.engine + "/local/health", timeout=10).json() == {"status": "ok", "role": "engine"}
    assert requests.get(double.dm + "/local/health", timeout=10).json() == {"status": "ok", "role": "dm"}
    check(requests.get(double.engine + "/local/batches", timeout=10), 404)
    check(requests.get(double.dm + "/local/batches?after=x", timeout=10), 400)
    every = requests.get(double.dm + "/local/batches", timeout=10).json()["batches"]
    if every:
        last = every[-1]["number"]
        assert requests.get(f"{double.dm}/local/batches?after={last}", timeout=10).json()["batches"] == []


def test_the_double_listens_on_the_loopback_address_only(double: Double) -> None:
    """It takes any token, so nobody else may reach it."""
    assert double.child is not None
    ours = {f"{port:04X}" for port in double.ports}
    with open("/proc/net/tcp") as table:
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    addresses = {entry.partition(":")[0] for entry in listening if entry.partition(":")[2] in ours}
    assert addresses == {"0100007F"}
