"""A double that a test can start, kill and start again, and ask through Microsoft's own clients."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest import (
    BlobDescriptor,
    IngestionProperties,
    QueuedIngestClient,
    ReportLevel,
)
from azure.kusto.ingest.status import KustoIngestStatusQueues
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas
from azure.storage.queue import QueueClient

from localrunner.components import is_healthy
from localrunner.plan import ROOT
from localrunner.processes import Child, free_ports, spawn, stop, wait_until

START_S = 90.0
STOP_S = 20.0
PATIENCE_S = 60.0
CONTAINER = "adx-double-tests"

_numbers = itertools.count(1)


def table_name() -> str:
    """A name that no other test uses, with a small letter in it: some tests try it in another case."""
    return f"T{next(_numbers)}_x{uuid.uuid4().hex[:6]}"


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """`condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not so after {timeout_s:g} s"
        time.sleep(0.05)


@dataclass
class Double:
    """One data directory, and the process that serves it now."""

    directory: Path
    storage: str
    time_scale: float = 0.01
    options: tuple[str, ...] = ()
    ports: list[int] = field(default_factory=lambda: list(free_ports(2)))
    child: Child | None = None
    reported: list[Any] = field(default_factory=list)

    def start(self) -> None:
        command = [sys.executable, "-m", "localrunner", "adx", "--data", str(self.directory / "data")]
        command += [
            "--storage",
            self.storage,
            "--dm-port",
            str(self.ports[0]),
            "--engine-port",
            str(self.ports[1]),
        ]
        command += ["--time-scale", str(self.time_scale), "--database", "Other", *self.options]
        self.child = spawn("adx", command, self.directory / "adx.log", cwd=ROOT)
        wait_until(
            "the double answers", lambda: all(is_healthy(port) for port in self.ports), START_S, child=self.child
        )
        self.kusto = KustoClient(KustoConnectionStringBuilder.with_no_authentication(self.engine))
        self.ingestion = QueuedIngestClient(KustoConnectionStringBuilder.with_no_authentication(self.dm))
        self.status = KustoIngestStatusQueues(self.ingestion)  # type: ignore[no-untyped-call]
        self.blobs = BlobServiceClient.from_connection_string(self.storage)
        if not self.blobs.get_container_client(CONTAINER).exists():
            self.blobs.create_container(CONTAINER)

    def stop(self) -> None:
        assert self.child is not None
        stop(self.child, STOP_S)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self.child is not None
        self.child.process.kill()
        self.child.process.wait()

    @property
    def dm(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def engine(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def addresses(self) -> dict[str, str]:
        """The one line that it prints."""
        line = next(line for line in reversed(self.log.splitlines()) if line.startswith('{"engine"'))
        printed: dict[str, str] = json.loads(line)
        return printed

    @property
    def log(self) -> str:
        return (self.directory / "adx.log").read_text()

    def query(
        self, kql: str, database: str = "db", properties: ClientRequestProperties | None = None
    ) -> list[Any]:
        table = self.kusto.execute_query(database, kql, properties).primary_results[0]
        return [row.to_list() for row in table]

    def command(self, csl: str, database: str = "db") -> list[Any]:
        return [row.to_dict() for row in self.kusto.execute_mgmt(database, csl).primary_results[0]]

    def table(self, schema: str) -> str:
        name = table_name()
        self.command(f".create table {name} ({schema})")
        return name

    def count(self, table: str) -> int:
        return int(self.query(f"{table} | count")[0][0])

    def upload(
        self,
        data: bytes,
        suffix: str = ".json",
        permission: str = "r",
        life: timedelta = timedelta(hours=1),
        name: str = "",
    ) -> str:
        """The blob's URL with a SAS."""
        name = name or f"{uuid.uuid4().hex}{suffix}"
        client = self.blobs.get_blob_client(CONTAINER, name)
        client.upload_blob(data, overwrite=True)
        sas = generate_blob_sas(
            str(self.blobs.account_name),
            CONTAINER,
            name,
            account_key=self.blobs.credential.account_key,
            permission=BlobSasPermissions.from_string(permission),
            expiry=datetime.now(UTC) + life,
        )
        return f"{client.url}?{sas}"

    def properties(
        self, table: str, data_format: DataFormat = DataFormat.JSON, **more: Any
    ) -> IngestionProperties:
        more = {"report_level": ReportLevel.FailuresAndSuccesses, "flush_immediately": True, **more}
        return IngestionProperties("db", table, data_format=data_format, **more)

    def queue_blob(self, url: str, properties: IngestionProperties, size: int = 1) -> uuid.UUID:
        """The blob is queued by Microsoft's client; its source id."""
        source_id = uuid.uuid4()
        self.ingestion.ingest_from_blob(BlobDescriptor(url, size, source_id), properties)
        return source_id

    def queue_raw(self, body: dict[str, Any] | bytes) -> None:
        """A message is in the ingestion queue as it is given; JSON and base64 are added to a dictionary."""
        url = self.resource("SecuredReadyForAggregationQueue")
        data = body if isinstance(body, bytes) else base64.b64encode(json.dumps(body).encode())
        QueueClient.from_queue_url(url).send_message(data.decode())

    def resource(self, kind: str) -> str:
        """The address of a resource of ingestion, with its signature."""
        rows = KustoClient(KustoConnectionStringBuilder.with_no_authentication(self.dm)).execute_mgmt(
            "NetDefaultDb", ".get ingestion resources"
        )
        return next(str(row["StorageRoot"]) for row in rows.primary_results[0] if row["ResourceTypeName"] == kind)

    def outcome(self, source_id: uuid.UUID) -> str:
        """`Succeeded`, or the failure's code, once the double has reported on the blob."""
        found: list[str] = []

        def reported() -> bool:
            self.reported += self.status.failure.pop(16)
            self.reported += self.status.success.pop(16)
            mine = [message for message in self.reported if message.IngestionSourceId == str(source_id)]
            found.extend(getattr(message, "ErrorCode", "Succeeded") for message in mine)
            return bool(found)

        wait_for("the double reports on the blob", reported)
        return found[0]

    def ingest(
        self,
        table: str,
        data: bytes | Sequence[bytes],
        data_format: DataFormat = DataFormat.JSON,
        suffix: str = "",
        **more: Any,
    ) -> str:
        """Upload, queue, wait: what the double reports."""
        data = data if isinstance(data, bytes) else b"\n".join(data)
        if suffix.endswith(".gz"):
            url = self.upload(gzip.compress(data), suffix)
        else:
            url = self.upload(data, suffix or f".{data_format.kusto_value}")
        return self.outcome(self.queue_blob(url, self.properties(table, data_format, **more), max(len(data), 1)))

    def batches(self, table: str) -> list[dict[str, Any]]:
        """The sealed batches of the table."""
        body = requests.get(f"{self.dm}/local/batches", timeout=10).json()
        return [batch for batch in body["batches"] if batch["table"] == table]
