"""Azurite and the double over https, and the files and blobs that the clients ingest."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from localrunner import azurite
from localrunner.adx import tls
from localrunner.processes import accepts, free_ports, spawn, stop, wait_until
from tests.adx.support import Double

LINES = b'{"n": 1, "s": "x"}\n{"n": 2, "s": "y"}\n'
ROWS: list[dict[str, Any]] = [{"n": 1, "s": "x"}, {"n": 2, "s": "y"}]
SCHEMA = "n: long, s: string"


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses for a client, the control pages, and a folder of files by their endings."""

    double: Double
    engine: str
    dm: str
    authority: str
    files: Path

    def as_config(self) -> dict[str, str]:
        """What a client in another process needs."""
        return {
            "engine": self.engine,
            "dm": self.dm,
            "control": self.double.dm,
            "files": str(self.files),
            "blob": self.double.upload(LINES, ".json"),
        }


@contextmanager
def place(directory: Path) -> Iterator[Place]:
    """Both are running. Clients of this process and of those it starts trust their certificate."""
    files = tls.ready(directory / "tls")
    os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = str(files.authority)
    ports = free_ports(3)
    command = ["node", str(azurite.MAIN), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    command += ["--inMemoryPersistence", "--cert", str(files.certificate), "--key", str(files.key)]
    for service, port in zip(azurite.SERVICES, ports, strict=True):
        command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    child = spawn("azurite", command, directory / "azurite.log", cwd=directory)
    try:
        wait_until("azurite listens", lambda: all(map(accepts, ports)), azurite.START_S, child=child)
        storage = azurite.connection_string(ports).replace("http", "https").replace("httpss", "https")
        double = Double(directory, storage, time_scale=0.001, options=("--tls",))
        double.start()
        try:
            addresses = double.addresses
            # Both servers have a certificate; the double's own is the one that its clients see.
            bundle = directory / "authorities.pem"
            bundle.write_bytes(files.authority.read_bytes() + Path(addresses["authority"]).read_bytes())
            os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)
            _write_files(directory / "files")
            yield Place(double, addresses["engine_tls"], addresses["dm_tls"], str(bundle), directory / "files")
        finally:
            double.stop()
    finally:
        stop(child, azurite.STOP_S)


def _write_files(folder: Path) -> None:
    folder.mkdir()
    avro, columns = io.BytesIO(), io.BytesIO()
    fields = [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]
    fastavro.writer(avro, fastavro.parse_schema({"type": "record", "name": "R", "fields": fields}), ROWS)
    parquet.write_table(pa.Table.from_pylist(ROWS), columns)
    contents = {
        "rows.csv": b"1,x\n2,y\n",
        "rows.csv.gz": gzip.compress(b"1,x\n2,y\n"),
        "rows.tsv": b"1\tx\n2\ty\n",
        "rows.json": LINES,
        "rows.avro": avro.getvalue(),
        "rows.parquet": columns.getvalue(),
        # Over 4 MB in any compression.
        "large.csv": b"1,"
        + os.urandom(4 * 1024 * 1024).hex().encode()
        + os.urandom(1024 * 1024).hex().encode()
        + b"\n",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
