"""HTTP triggers, their keys and the admin API: docs/functions-host.md, "HTTP" and "Stopping"."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from localrunner.host import keys
from localrunner.host.routing import RouteError, find, route_of
from localrunner.host.settings import SettingsError
from tests.host.hosting import Broker, Hosts, RunningHost, eventually

ECHO = """
@app.function_name("Echo")
@app.route("items/{id:int}/{rest?}", methods=["GET", "POST"], auth_level=func.AuthLevel.ANONYMOUS)
def echo(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    facts = {"method": req.method, "url": req.url, "params": dict(req.params), "route": dict(req.route_params),
             "body": req.get_body().decode(), "header": req.headers.get("X-Other"), "name": context.function_name}
    return func.HttpResponse(json.dumps(facts), status_code=201, mimetype="application/json",
                             headers={"X-Answer": "yes", "Set-Cookie": "a=b; Path=/; HttpOnly"})

def level(name, auth_level, returns):
    @app.function_name(name)
    @app.route(auth_level=auth_level)
    async def answer(req: func.HttpRequest):
        if name == "broken":
            raise RuntimeError("refused on purpose")
        return returns

level("open", func.AuthLevel.ANONYMOUS, "text")
level("keyed", func.AuthLevel.FUNCTION, "text")
level("other", func.AuthLevel.FUNCTION, "text")
level("secret", func.AuthLevel.ADMIN, "text")
level("broken", func.AuthLevel.ANONYMOUS, None)
level("silent", func.AuthLevel.ANONYMOUS, None)
"""
MASTER, HOST_KEY, OWN_KEY = "master-key", "host-key", "own-key"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(host: RunningHost, method: str, target: str, body: Any = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(host.status()["url"]).netloc, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, named, encode_chunked=not isinstance(body, str | bytes | None))
        answer = connection.getresponse()
        return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def keys_file(directory: Path) -> Path:
    file = directory / "keys.json"
    document = {"master": MASTER, "host": {"default": HOST_KEY}, "functions": {"KEYED": {"default": OWN_KEY}}}
    file.write_text(json.dumps(document))
    return file


def test_a_request_reaches_its_function_and_the_answer_its_caller(hosts: Hosts) -> None:
    """WebScriptHostHttpRoutesManager.cs, FunctionInvocationMiddleware.cs and AuthenticationLevelHandler.cs, by way
    of the library's own HttpRequest and HttpResponse."""
    host = hosts.start(hosts.app(ECHO), f"--keys={keys_file(hosts.directory)}")
    host.wait_running()

    echo = ask(host, "POST", "/API/Items/7/a%20b?q=1&q=2", "body", X_Other="one")
    facts = json.loads(echo.body)
    assert (echo.status, echo.headers["x-answer"], echo.headers["content-type"]) == (
        201,
        "yes",
        "application/json",
    )
    assert echo.headers["set-cookie"] == "a=b; HttpOnly; Path=/"
    assert facts.pop("url").endswith("/API/Items/7/a%20b?q=1&q=2")
    assert facts == {
        "method": "POST",
        "params": {"q": "1,2"},
        "route": {"id": "7", "rest": "a b"},
        "body": "body",
        "header": "one",
        "name": "Echo",
    }
    chunked = ask(host, "POST", "/api/items/7", iter([b"in ", b"chunks"]), Transfer_Encoding="chunked")
    assert json.loads(chunked.body)["body"] == "in chunks"
    # A method or a value that the route does not take, and a path of nobody's, are all 404.
    for method, target in (
        ("PUT", "/api/items/7"),
        ("GET", "/api/items/seven"),
        ("GET", "/"),
        ("GET", "/api/none"),
    ):
        assert ask(host, method, target).status == 404, target
    assert ask(host, "GET", "/api/open").body == b"text"
    assert ask(host, "HEAD", "/api/open").body == b""
    assert (ask(host, "GET", "/api/broken").status, ask(host, "GET", "/api/broken").body) == (500, b"")
    assert ask(host, "GET", "/api/silent").status == 500
    host.wait_log('unable to encode outgoing TypedData: unsupported type "http" for Python type "NoneType"')
    check_keys(host)


def check_keys(host: RunningHost) -> None:
    """SecretManager.cs: which key opens what; the header counts before the query."""
    opened = {
        key: [
            ask(host, "GET", f"/api/{name}", x_functions_key=key).status for name in ("keyed", "other", "secret")
        ]
        for key in (MASTER, HOST_KEY, OWN_KEY, "wrong", "")
    }
    assert opened == {
        MASTER: [200, 200, 200],
        HOST_KEY: [200, 200, 401],
        OWN_KEY: [200, 401, 401],
        "wrong": [401, 401, 401],
        "": [401, 401, 401],
    }
    assert ask(host, "GET", f"/api/keyed?code={OWN_KEY}").status == 200
    assert ask(host, "GET", f"/api/keyed?code={OWN_KEY}", x_functions_key="wrong").status == 401
    assert ask(host, "GET", "/admin/host/status", x_functions_key=HOST_KEY).status == 401
    assert MASTER not in host.log()
    assert OWN_KEY not in host.log()


def test_the_admin_api_drains_a_host_that_stays_up(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """facts: drain mode, by HostController.cs and DrainModeManager.cs. What executes and what is queued is run and
    stored, and then the host waits to be ended; keys that nobody gave are made, and are in the status file."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    until("release")
"""
    broker.create(topic_name)
    broker.produce(topic_name, 6)
    host = hosts.start(hosts.app(code, {"maxBatchSize": 2}))
    host.wait_notes("begin", 1)
    host.wait_log("/ 0 / 4 is full")
    master = host.status()["keys"]["master"]
    assert host.status_file.stat().st_mode & 0o077 == 0

    def admin(method: str, path: str) -> tuple[int, Any]:
        reply = ask(host, method, f"/admin/host/{path}", x_functions_key=master)
        return reply.status, json.loads(reply.body or b"null")

    assert admin("GET", "drain/status")[1]["state"] == "Disabled"
    status, document = admin("GET", "status")
    assert (status, document["state"], "errors" in document) == (200, "Running", False)
    assert admin("POST", "drain") == (202, None)
    assert admin("POST", "drain") == (202, None)
    assert admin("GET", "drain/status")[1] == {
        "state": "InProgress",
        "outstandingInvocations": 1,
        "outstandingRetries": 0,
    }
    host.release("release")
    eventually("it has drained", lambda: admin("GET", "drain/status")[1]["state"] == "Completed")
    eventually("two batches are committed", lambda: broker.committed(group) == {0: 4})
    assert host.status()["state"] == "draining"
    assert admin("GET", "nothing")[0] == 404
    assert host.stop() == 0
    assert [note["places"][0][1] for note in host.notes("begin")] == [0, 2]


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("a/{x}", "/api/a/1", {"x": "1"}),
        ("a/{x}", "/api/A/1/", {"x": "1"}),
        ("a/{x?}", "/api/a", {}),
        ("a/{*x}", "/api/a/b/c", {"x": "b/c"}),
        (
            "a/{x:guid}",
            "/api/a/1b671a64-40d5-491e-99b0-da01ff1f3341",
            {"x": "1b671a64-40d5-491e-99b0-da01ff1f3341"},
        ),
        ("a/{x:alpha}", "/api/a/1", None),
        ("a/{x}", "/api/a", None),
        ("a.b", "/api/aXb", None),
    ],
)
def test_a_route_takes_these_paths(template: str, path: str, parameters: dict[str, str] | None) -> None:
    found = find([route_of("f", "api", template, None)], "GET", path)

    assert (found and found[1]) == parameters


@pytest.mark.parametrize("template", ["a/{x:regex(^1$)}", "a-{x}", "a/{x"])
def test_a_template_that_is_not_emulated_is_refused_by_name(template: str) -> None:
    with pytest.raises(RouteError, match="is not emulated"):
        route_of("f", "api", template, None)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"master": ""}', '{"master": "m", "host": {"default": 1}}', '{"m": 1}']
)
def test_a_file_of_keys_that_cannot_be_used_is_refused_without_a_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)

    with pytest.raises(SettingsError, match="--keys"):
        keys.load(file)
