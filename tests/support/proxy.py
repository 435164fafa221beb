"""An HTTP proxy that fails as a service or a network does, in front of Azurite or of the ADX double.

Signatures do not cover the host, so that clients work through it unchanged but for their address.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

HANG_MAX_S = 60.0
FOR_EVER = 10**9
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}  # of one connection alone


@dataclass
class Fault:
    """What happens to the next `times` requests that match: `METHOD path` by `request`, the body by `body`.

    `status` is answered with `reply`, or the connection dropped, before or after the service has done its part.
    `hang` answers nothing until `release` is set. `edit` changes what the service answers, and fails nothing.
    """

    request: str = ""
    body: bytes = b""
    status: int | None = None
    reply: tuple[str, bytes] = ("text/plain", b"")
    when: Literal["before", "after"] = "before"
    hang: bool = False
    edit: Callable[[bytes], bytes] | None = None
    times: int = FOR_EVER
    met: int = 0
    release: threading.Event = field(default_factory=threading.Event)
    answered: bool = False


def blob_error(status: int, code: str, **where: Any) -> Fault:
    """Blob storage answers with an error as Azure words it."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Made up by a test.</Message></Error>'
    return Fault(status=status, reply=("application/xml", text.encode()), **where)


def table_error(status: int, code: str, **where: Any) -> Fault:
    """Table storage answers with an error as Azure words it."""
    error = {"code": code, "message": {"lang": "en-US", "value": "Made up by a test."}}
    return Fault(status=status, reply=("application/json", json.dumps({"odata.error": error}).encode()), **where)


class FaultProxy(ThreadingHTTPServer):
    """Passes requests on to `upstream`, a URL, except where a fault is set; `seen` has `METHOD path` of each, and
    `authorizations` what it was authorized by.

    The service's `Date` is `ahead_s` late, and so everything that it has written seems that much older.
    """

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.authorizations: list[str | None] = []
        self.ahead_s = 0
        self._lock = threading.Lock()

    def fault_for(self, line: str, body: bytes) -> Fault | None:
        with self._lock:
            self.seen.append(line)
            for fault in self.faults:
                if re.search(fault.request, line) and re.search(fault.body, body):
                    fault.met += 1
                    if fault.met <= fault.times:
                        return fault
        return None

    def handle_error(self, *_: Any) -> None:
        """A client that went away is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: FaultProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.authorizations.append(self.headers.get("Authorization"))
        fault = self.server.fault_for(f"{self.command} {self.path}", body)
        if fault is None or fault.edit is not None:
            status, headers, reply = self._forward(body)
            self._answer(status, headers, fault.edit(reply) if fault and fault.edit else reply)
            return
        if fault.when == "after":
            self._forward(body)
        if fault.hang and fault.release.wait(HANG_MAX_S) and fault.when == "before":
            answer = self._forward(body)  # it is late, but it arrives
            fault.answered = True
            self._answer(*answer)
        elif fault.status is not None:
            self._answer(fault.status, [("Content-Type", fault.reply[0])], fault.reply[1])
        else:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=HANG_MAX_S)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        try:
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() == "date" and self.server.ahead_s:
                moment = parsedate_to_datetime(value) + timedelta(seconds=self.server.ahead_s)
                value = format_datetime(moment, usegmt=True)
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def proxy_to(upstream: str) -> Iterator[FaultProxy]:
    """A proxy that runs until the block ends; requests that hang by then get no answer."""
    with FaultProxy(upstream) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
