"""The host's HTTP side: functions with HTTP triggers, and the admin API, on one loopback port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from localrunner.host import keys, wire

IDLE_LIMIT_S: Final = 60
BODY_MAX_BYTES: Final = 104_857_600  # Source: FUNCTIONS_REQUEST_BODY_SIZE_LIMIT's default
CHUNK_LINE_MAX_BYTES: Final = 1_024
TRAILERS_MAX: Final = 100
KEY_HEADER: Final = "x-functions-key"
KEY_QUERY: Final = "code"

# What answers a path below /admin: a status and a JSON document, or None for an empty body.
Answer = tuple[int, object | None]


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to: the key level it asks for, and what answers it with the route's parameters known."""

    level: str
    function: str | None
    answer: Callable[[wire.Http], wire.HttpReply]


class WebServer:
    """Listens on a loopback port from the beginning on; `find` says what a method and a path lead to."""

    def __init__(self, allowed: keys.Keys) -> None:
        self.keys = allowed
        self._find: Callable[[str, str], tuple[Target, dict[str, str]] | None] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="web", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self, find: Callable[[str, str], tuple[Target, dict[str, str]] | None] | None) -> None:
        """Requests are answered by what `find` finds from now on; with None by 503."""
        self._find = find

    def close(self) -> None:
        """Nothing listens any more."""
        self._server.shutdown()
        self._server.server_close()

    def reply_to(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> wire.HttpReply:
        """The answer to one request.

        Source: azure-functions-host, FunctionInvocationMiddleware.cs: the route first (404), then the key (401).
        """
        if self._find is None:
            return empty_reply(HTTPStatus.SERVICE_UNAVAILABLE)
        url = urlsplit(target)
        found = self._find(method, url.path)
        if found is None:
            return empty_reply(HTTPStatus.NOT_FOUND)
        leads_to, parameters = found
        query = _joined(parse_qsl(url.query))
        # Source: AuthenticationLevelHandler.cs: the header goes before the query.
        if not self.keys.opens(headers.get(KEY_HEADER, query.get(KEY_QUERY)), leads_to.level, leads_to.function):
            return empty_reply(HTTPStatus.UNAUTHORIZED)
        absolute = f"http://{headers.get('host', '127.0.0.1')}{target}"
        return leads_to.answer(wire.Http(method, absolute, dict(headers), parameters, query, body))


def empty_reply(status: int) -> wire.HttpReply:
    """A status and nothing else."""
    return wire.HttpReply(int(status), {}, b"")


def json_reply(answer: Answer) -> wire.HttpReply:
    """A status with a JSON document, or with nothing."""
    status, document = answer
    if document is None:
        return empty_reply(status)
    return wire.HttpReply(status, {"content-type": "application/json"}, json.dumps(document).encode())


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Source: StringValues.ToString puts a comma between the values of a name."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


class _BodyError(Exception):
    """The body cannot be taken; the argument is the status that says why."""


def _handler(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_LIMIT_S

        def answer(self) -> None:
            try:
                body = self.body()
            except _BodyError as refused:
                self.close_connection = True
                self.reply(empty_reply(refused.args[0]))
                return
            headers = _joined([(name.lower(), value) for name, value in self.headers.items()])
            self.reply(server.reply_to(self.command, self.path, headers, body))

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = answer  # noqa: N815 -- the parent's names

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                return self.chunks()
            length = self.headers.get("content-length", "0")
            if not length.isdecimal():
                raise _BodyError(HTTPStatus.BAD_REQUEST)
            if int(length) > BODY_MAX_BYTES:
                raise _BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return self.rfile.read(int(length))

        def chunks(self) -> bytes:
            body = b""
            while True:
                line = self.rfile.readline(CHUNK_LINE_MAX_BYTES).split(b";")[0].strip()
                try:
                    size = int(line, 16)
                except ValueError:
                    raise _BodyError(HTTPStatus.BAD_REQUEST) from None
                if size == 0:
                    for _ in range(TRAILERS_MAX):
                        if not self.rfile.readline(CHUNK_LINE_MAX_BYTES).strip():
                            return body
                    raise _BodyError(HTTPStatus.BAD_REQUEST)
                if size < 0 or len(body) + size > BODY_MAX_BYTES:
                    raise _BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                body += self.rfile.read(size)
                self.rfile.readline(CHUNK_LINE_MAX_BYTES)

        def reply(self, reply: wire.HttpReply) -> None:
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding"):
                    self.send_header(name, value)
            for cookie in reply.cookies:
                self.send_header("Set-Cookie", cookie)
            bodiless = self.command == "HEAD" or reply.status_code in (204, 304)
            if reply.status_code not in (204, 304):
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if not bodiless:
                self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the parent's name
            """Nothing: a line would hold keys of the query."""

    return Handler
