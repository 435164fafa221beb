"""The ADX double by itself: how soon many blobs are visible, and what a gigabyte of JSON does to its memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest import BlobDescriptor, IngestionProperties, QueuedIngestClient
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas

from bench.cases import Options
from bench.data import records
from bench.measure import Result
from localrunner import azurite
from localrunner.components import is_healthy
from localrunner.plan import ROOT
from localrunner.processes import Child, free_ports, spawn, stop, wait_until

_BLOBS = 200
_ROWS_IN_BLOB = 1000
_MARK_US = 20.0  # a row: 50,000 rows/s
_SENDERS = 4
_LARGE_BYTES = 1_000_000_000
_SMALL_BYTES = 100_000_000
_QUICK_BYTES = 2_000_000
_MARK_MB = 512.0
_WAIT_S = 300.0
_START_S = 30.0
_STOP_S = 20.0
_CONTAINER = "bench"
_SCHEMA = (
    "carrier: string, flight: long, origin: string, dest: string, distance: long, dep_delay: real,"
    " tailnum: string, time_hour: datetime"
)


def run(options: Options) -> Iterator[Result]:
    """Two rows; both data sets are uploaded before the clock starts."""
    with _place() as place:
        blobs = 4 if options.quick else _BLOBS
        rounds = 1 if options.quick else 3
        seconds = min(_visible_s(place, blobs) for _ in range(rounds))
        rows = blobs * _ROWS_IN_BLOB
        yield Result("adx", "256 B", rows, "a row until it is visible", seconds * 1e6 / rows, "us", _MARK_US)
        for raw_bytes in (_QUICK_BYTES,) if options.quick else (_SMALL_BYTES, _LARGE_BYTES):
            megabytes = raw_bytes // 1_000_000
            peak = _peak_mb(place, raw_bytes)
            yield Result("adx", "1 KB", megabytes, "resident peak, by MB of JSON", peak, "MB", _MARK_MB)


@dataclass(frozen=True, slots=True)
class _Place:
    double: Child
    kusto: KustoClient
    ingestion: QueuedIngestClient
    blobs: BlobServiceClient

    def table(self) -> str:
        name = f"B{uuid.uuid4().hex[:8]}"
        self.kusto.execute_mgmt("db", f".create table {name} ({_SCHEMA})")
        return name

    def upload(self, data: bytes) -> str:
        name = f"{uuid.uuid4().hex}.json.gz"
        client = self.blobs.get_blob_client(_CONTAINER, name)
        client.upload_blob(data)
        sas = generate_blob_sas(
            azurite.ACCOUNT,
            _CONTAINER,
            name,
            account_key=azurite.KEY,
            permission=BlobSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        return f"{client.url}?{sas}"

    def wait_for(self, table: str, rows: int) -> None:
        deadline = time.monotonic() + _WAIT_S
        while self.kusto.execute_query("db", f"{table} | count").primary_results[0][0][0] < rows:
            if time.monotonic() > deadline:
                raise TimeoutError(f"adx: fewer than {rows} rows after {_WAIT_S:.0f} s")
            time.sleep(0.02)


@contextlib.contextmanager
def _place() -> Iterator[_Place]:
    """Azurite and the double, in a directory that is removed, on all cores."""
    if hasattr(os, "sched_setaffinity"):
        # Timing pinned this process to one core, and its children would inherit that.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ports = free_ports(3)
        child = azurite.start(directory, directory / "azurite.log", ports)
        stack.callback(stop, child, azurite.STOP_S)
        azurite.wait_ready(child, ports)
        storage = azurite.connection_string(ports)
        dm, engine = free_ports(2)
        command = [
            sys.executable,
            "-m",
            "localrunner",
            "adx",
            "--data",
            str(directory / "adx"),
            "--storage",
            storage,
        ]
        # The default policy's five minutes are 0.3 s.
        command += ["--dm-port", str(dm), "--engine-port", str(engine), "--time-scale", "0.001"]
        double = spawn("adx", command, directory / "adx.log", cwd=ROOT)
        stack.callback(stop, double, _STOP_S)
        wait_until("the double answers", lambda: is_healthy(dm) and is_healthy(engine), _START_S, child=double)
        blobs = BlobServiceClient.from_connection_string(storage)
        blobs.create_container(_CONTAINER)
        yield _Place(
            double,
            KustoClient(KustoConnectionStringBuilder.with_no_authentication(f"http://127.0.0.1:{engine}")),
            QueuedIngestClient(KustoConnectionStringBuilder.with_no_authentication(f"http://127.0.0.1:{dm}")),
            blobs,
        )


def _visible_s(place: _Place, blobs: int) -> float:
    """From the first message queued, by Microsoft's client on a few threads, to the last row in a query."""
    table = place.table()
    raw = b"\n".join(records("256 B", _ROWS_IN_BLOB))
    packed = gzip.compress(raw, 6)
    urls = [place.upload(packed) for _ in range(blobs)]

    def queue(url: str) -> None:
        properties = IngestionProperties("db", table, DataFormat.JSON)
        place.ingestion.ingest_from_blob(BlobDescriptor(url, len(raw)), properties)

    began = time.monotonic()
    with ThreadPoolExecutor(_SENDERS) as senders:
        list(senders.map(queue, urls))
    place.wait_for(table, blobs * _ROWS_IN_BLOB)
    return time.monotonic() - began


def _peak_mb(place: _Place, raw_bytes: int) -> float:
    """The most that the double held in memory while it ingested one blob of so much JSON."""
    table = place.table()
    lines = b"\n".join(records("1 KB", 5000)) + b"\n"
    packed, size, rows = io.BytesIO(), 0, 0
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        while size < raw_bytes:
            file.write(lines)
            size, rows = size + len(lines), rows + 5000
    url = place.upload(packed.getvalue())
    status = Path(f"/proc/{place.double.pid}/status")
    if status.exists():
        Path(f"/proc/{place.double.pid}/clear_refs").write_text("5")  # the peak starts from here
    properties = IngestionProperties("db", table, DataFormat.JSON, flush_immediately=True)
    place.ingestion.ingest_from_blob(BlobDescriptor(url, size), properties)
    place.wait_for(table, rows)
    if not status.exists():
        return 0.0  # only Linux tells of another process
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1000
