"""The local ADX double: Kusto's engine and data-management endpoints on two loopback ports."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import uvicorn
from azure.core.exceptions import AzureError

from localrunner.adx import http, policy, tls
from localrunner.adx.batching import Batches
from localrunner.adx.blobs import Blobs
from localrunner.adx.catalog import Catalog
from localrunner.adx.dm import Worker
from localrunner.adx.ingest import Ingestor
from localrunner.adx.mgmt import Role
from localrunner.adx.observer import Observer
from localrunner.adx.policy import BatchingPolicy
from localrunner.adx.protocol import Protocol
from localrunner.adx.resources import Resources
from localrunner.adx.store import Store

_HOST = "127.0.0.1"
# Clients keep connections open for as long as they like, and do not repeat a request on one that was closed.
_KEEP_ALIVE_S = 3600
_DRAIN_S = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The parser knows the double's options."""
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="where everything is kept")
    parser.add_argument(
        "--storage", required=True, metavar="CONNECTION_STRING", help="blob, queue and table storage"
    )
    parser.add_argument("--dm-port", type=int, default=0, metavar="P", help="data-management port; 0 picks one")
    parser.add_argument("--engine-port", type=int, default=0, metavar="P", help="engine port; 0 picks one")
    parser.add_argument(
        "--time-scale", type=float, default=0.01, metavar="X", help="factor for time spans of batching policies"
    )
    parser.add_argument(
        "--database", action="append", default=[], metavar="NAME", help="a database besides 'db'; may be repeated"
    )
    parser.add_argument(
        "--tls", action="store_true", help="listen for https too, with a certificate of the directory's own"
    )
    parser.add_argument(
        "--tls-name", action="append", default=[], metavar="NAME", help="a host name in it; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Prints one line of JSON with the addresses once requests are taken.

    Returns 0 after an orderly stop, 1 where storage cannot be reached, 2 for an argument that cannot be used.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for noisy in ("azure", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if not args.time_scale > 0:
        print(f"--time-scale: {args.time_scale} is not above 0", file=sys.stderr)
        return 2
    try:
        store = Store(args.data)
    except duckdb.IOException:
        print(f"--data: {args.data} cannot be opened; does another double run on it?", file=sys.stderr)
        return 1
    with contextlib.closing(store):
        try:
            resources = Resources(args.storage, store.instance, store.identity_token)
            resources.create()
        except (ValueError, KeyError):
            print("--storage: it is not a connection string with an account name and key", file=sys.stderr)
            return 2
        except AzureError as error:
            print(f"--storage: cannot be reached ({type(error).__name__}); does Azurite run?", file=sys.stderr)
            return 1
        catalog = Catalog(store)
        for name in ("db", *args.database):
            catalog.create_database(name)
        _serve_until_stopped(args, store, catalog, resources)
    return 0


def _serve_until_stopped(args: argparse.Namespace, store: Store, catalog: Catalog, resources: Resources) -> None:
    def policy_of(database: str, table: str) -> BatchingPolicy:
        return policy.effective(catalog.databases.get(database.lower()), table)

    observer = Observer()
    ingestor = Ingestor(catalog, Blobs(resources.blobs, store.spool), observer)
    worker = Worker(resources, ingestor, Batches(policy_of, args.time_scale), observer)
    services = http.Services(catalog, ingestor, resources, observer)
    worker.start()
    try:
        certificate = tls.ready(args.data / "tls", args.tls_name) if args.tls else None
        asyncio.run(_serve(services, {Role.ENGINE: args.engine_port, Role.DM: args.dm_port}, certificate))
    finally:
        worker.stop()
        ingestor.close()


class _Server(uvicorn.Server):
    """A server that leaves the signals to this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class _Listener:
    """A server and the socket that it takes requests from."""

    server: _Server
    socket: socket.socket

    @property
    def address(self) -> str:
        scheme = "https" if self.server.config.is_ssl else "http"
        return f"{scheme}://{_HOST}:{self.socket.getsockname()[1]}"


def listening_socket(port: int) -> socket.socket:
    """A socket of the loopback address whose connections answer without waiting for an acknowledgement."""
    # With the protocol named, asyncio sets TCP_NODELAY; without it every reply waits 40 ms for an ACK.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((_HOST, port))
    return listening


def _listener(services: http.Services, role: Role, port: int, certificate: tls.Certificate | None) -> _Listener:
    listening = listening_socket(port)
    config = uvicorn.Config(
        http.app(services, role),
        http=Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        ssl_certfile=certificate.certificate if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    return _Listener(_Server(config), listening)


async def _serve(services: http.Services, ports: dict[Role, int], certificate: tls.Certificate | None) -> None:
    listeners = {role.name.lower(): _listener(services, role, port, None) for role, port in ports.items()}
    if certificate is not None:
        listeners |= {f"{role.name.lower()}_tls": _listener(services, role, 0, certificate) for role in ports}

    def stop() -> None:
        services.observer.faults.clear()
        for one in listeners.values():
            one.server.should_exit = True

    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop)
    tasks = [asyncio.create_task(one.server.serve([one.socket])) for one in listeners.values()]
    started = [one.server for one in listeners.values()]
    while not all(server.started for server in started) and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    addresses = {name: one.address for name, one in listeners.items()}
    print(
        json.dumps({**addresses, **({"authority": str(certificate.authority)} if certificate else {})}), flush=True
    )
    await asyncio.gather(*tasks)
