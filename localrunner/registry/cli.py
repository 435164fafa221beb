"""A schema registry on a loopback port, in Confluent's REST protocol."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from localrunner.registry.store import TYPES, Entry, RegistryError, Store

BODY_MAX_BYTES = 16 << 20
# Within which a shutdown is noticed.
POLL_S = 0.05
_HOST = "127.0.0.1"
_TYPE = "application/vnd.schemaregistry.v1+json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The parser knows the registry's options."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="where schemas are kept; nowhere without it")
    parser.add_argument("--port", type=int, default=0, metavar="P", help="port; 0 picks one")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Prints one line of JSON with the address once requests are taken."""
    server = serve(Store(args.data), args.port)
    print(json.dumps({"registry": f"http://{_HOST}:{server.server_port}"}), flush=True)
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    stopped.wait()
    server.shutdown()
    return 0


def serve(store: Store, port: int) -> ThreadingHTTPServer:
    """A server that runs in a thread of its own, until its `shutdown`."""

    class Handler(_Handler):
        answers = Answers(store)

    server = ThreadingHTTPServer((_HOST, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(POLL_S,), name="registry", daemon=True).start()
    return server


class Answers:
    """The protocol: what is answered to a method and the parts of a path."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, parts: list[str]) -> Any:
        """The answer to a GET."""
        match parts:
            case [] | ["local", "health"]:
                return {}
            case ["subjects"]:
                return self._store.subjects()
            case ["subjects", subject, "versions"]:
                return list(range(1, len(self._store.versions(subject)) + 1))
            case ["subjects", subject, "versions", version]:
                number, schema_id, entry = self._store.version(subject, version)
                return {"subject": subject, "version": number, "id": schema_id, **entry.as_json()}
            case ["schemas", "ids", schema_id]:
                return self._store.schema(schema_id).as_json()
            case ["schemas", "types"]:
                return list(TYPES)
            case ["config"]:
                return {"compatibilityLevel": "NONE"}
        raise RegistryError(404, "HTTP 404 Not Found")

    def post(self, parts: list[str], body: Any) -> Any:
        """The answer to a POST."""
        match parts:
            case ["subjects", subject, "versions"]:
                return {"id": self._store.register(subject, Entry.from_json(body))}
            case ["subjects", subject]:
                entry = Entry.from_json(body)
                number, schema_id = self._store.find(subject, entry)
                return {"subject": subject, "version": number, "id": schema_id, **entry.as_json()}
        raise RegistryError(404, "HTTP 404 Not Found")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer goes out in one piece: in two, the second one waits 40 ms for an ACK of the first.
    wbufsize = -1
    answers: Answers

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer(lambda parts: self.answers.get(parts))

    def do_POST(self) -> None:
        """Answer a POST."""

        def post(parts: list[str]) -> Any:
            size_bytes = int(self.headers.get("Content-Length") or 0)
            if size_bytes > BODY_MAX_BYTES:
                raise RegistryError(413, f"{size_bytes} bytes are more than {BODY_MAX_BYTES}")
            try:
                body = json.loads(self.rfile.read(size_bytes))
            except ValueError:
                raise RegistryError(400, "The body is not JSON") from None
            return self.answers.post(parts, body)

        self._answer(post)

    def _answer(self, find: Callable[[list[str]], Any]) -> None:
        # The query is left alone: `format=serialized` asks for what is kept anyway.
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        try:
            status, found = 200, find(parts)
        except RegistryError as error:
            status, found = int(str(error.code)[:3]), {"error_code": error.code, "message": str(error)}
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", _TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""
