"""The behaviours of `cases.py`, tried with azure-kusto-data and azure-kusto-ingest for Python."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas  # type: ignore[import-untyped]
import requests
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.data.exceptions import KustoApiError, KustoError
from azure.kusto.ingest import (
    BlobDescriptor,
    ColumnMapping,
    FileDescriptor,
    IngestionProperties,
    KustoStreamingIngestClient,
    ManagedStreamingIngestClient,
    QueuedIngestClient,
    ReportLevel,
    StreamDescriptor,
)
from azure.kusto.ingest.status import KustoIngestStatusQueues

from tests.clients.place import LINES, ROWS, SCHEMA

WAIT_S = 20.0
_MAPPING = '[{"Column": "n", "Properties": {"Path": "$.n"}}, {"Column": "s", "Properties": {"Path": "$.s"}}]'


@dataclass
class Clients:
    """One client of each kind, and the control pages."""

    config: dict[str, str]

    def __post_init__(self) -> None:
        engine, dm = self.config["engine"], self.config["dm"]
        self.query = KustoClient(_to(engine))
        self.queued = QueuedIngestClient(_to(dm))
        self.streaming = KustoStreamingIngestClient(_to(engine))
        self.managed = ManagedStreamingIngestClient(_to(engine), _to(dm))
        self.managed._set_retry_settings(0.1)

    def ask(self, kql: str, properties: ClientRequestProperties | None = None) -> list[Any]:
        return [row.to_list() for row in self.query.execute("db", kql, properties).primary_results[0]]

    def table(self, *, streaming: bool = False) -> str:
        name = f"Py_{uuid.uuid4().hex[:8]}"
        self.ask(f".create table {name} ({SCHEMA})")
        if streaming:
            self.ask(f".alter table {name} policy streamingingestion enable")
        return name

    def rows(self, table: str) -> int:
        return int(self.ask(f"{table} | count")[0][0])

    def batches(self, table: str) -> int:
        listed = requests.get(f"{self.config['control']}/local/batches", timeout=10).json()["batches"]
        return sum(batch["table"] == table for batch in listed)

    def fault(self, **wanted: Any) -> None:
        reply = requests.post(f"{self.config['control']}/local/faults", json=wanted, timeout=10)
        assert reply.status_code == 200, reply.text

    def file(self, name: str) -> str:
        return str(Path(self.config["files"]) / name)


def _to(url: str) -> KustoConnectionStringBuilder:
    builder = KustoConnectionStringBuilder.with_aad_application_token_authentication(url, "any token")
    builder.application_for_tracing = "matrix"
    return builder


def _properties(table: str, data_format: DataFormat = DataFormat.CSV, **more: Any) -> IngestionProperties:
    return IngestionProperties("db", table, data_format, flush_immediately=True, **more)


def _text(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _waited(clients: Clients, table: str, count: int) -> str:
    """The number of rows, once they are as many as expected and a moment after that; or the code of a failure."""
    deadline = time.monotonic() + WAIT_S
    while clients.rows(table) < count and time.monotonic() < deadline:
        failures = f".show ingestion failures | where Table == '{table}' | project ErrorCode"
        for (code,) in clients.ask(failures):
            return str(code)
        time.sleep(0.1)
    time.sleep(0.5)
    return _text(clients.rows(table))


def _by_way(clients: Clients, table: str, count: int = 2) -> str:
    """How the rows came: visible when the client returned, or by the queue."""
    at_once = clients.rows(table)
    if at_once:
        return f"{_text(at_once)} at once"
    rows = _waited(clients, table, count)
    return f"{rows} by the queue" if clients.batches(table) == 1 else rows


def _refused(work: Callable[[], object]) -> str:
    try:
        work()
    except KustoApiError as error:
        return f"{type(error).__name__}, {'permanent' if error.get_api_error().permanent else 'transient'}"
    except KustoError as error:
        return type(error).__name__
    return "not refused"


def query_types(clients: Clients) -> str:
    text = (
        "print b=true, i=int(7), l=9007199254740993, r=1.5, s='x', t=datetime(2020-01-02T03:04:05Z), p=1d,"
        " g=guid(11111111-2222-4333-8444-555555555555), d=dynamic({'k': [1]}), none=long(null)"
    )
    expected: list[Any] = [True, 7, 9007199254740993, 1.5, "x", datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)]
    expected += [timedelta(days=1), "11111111-2222-4333-8444-555555555555", {"k": [1]}, None]
    (found,) = clients.ask(text)
    return "as written" if found == expected else str(found)


def query_parameters(clients: Clients) -> str:
    properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
    properties.set_parameter("s", "a b")
    properties.set_parameter("n", "5")
    return " ".join(
        map(str, clients.ask("declare query_parameters(s: string, n: long); print s, n", properties)[0])
    )


def request_properties(clients: Clients) -> str:
    properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
    properties.client_request_id = f"matrix;{uuid.uuid4()}"
    clients.ask("print 1", properties)
    log = requests.get(f"{clients.config['control']}/local/requests", timeout=10).json()["requests"]
    found = [one for one in log if one["client_request_id"] == properties.client_request_id]
    return "yes" if len(found) == 1 and found[0]["application"] == "matrix" else str(found)


def server_timeout(clients: Clients) -> str:
    properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
    properties.set_option(ClientRequestProperties.request_timeout_option_name, timedelta(milliseconds=50))
    numbers = "range {} from 1 to 100000 step 1 | extend k = 1"
    slow = f"{numbers.format('a')} | join kind=inner ({numbers.format('b')}) on k | summarize sum(a * b)"
    return _refused(lambda: clients.ask(slow, properties))


def unknown_option(clients: Clients) -> str:
    properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
    properties.set_option("surprise", True)
    return _refused(lambda: clients.ask("print 1", properties))


def semantic_error(clients: Clients) -> str:
    return _refused(lambda: clients.ask("print a = 1 | where b == 1"))


def management(clients: Clients) -> str:
    table = clients.table()
    clients.ask(f".alter table {table} policy ingestionbatching @'{{\"MaximumNumberOfItems\": 5}}'")
    schema = clients.query.execute_mgmt("db", f".show table {table} cslschema").primary_results[0][0]["Schema"]
    clients.ask(f".drop table {table}")
    return str(schema)


def throttled(clients: Clients) -> str:
    clients.fault(do="throttle", on="query")
    return _refused(lambda: clients.ask("print 1"))


def unavailable(clients: Clients) -> str:
    clients.fault(do="status", status=503, on="query")
    return _refused(lambda: clients.ask("print 1"))


def dropped(clients: Clients) -> str:
    clients.fault(do="drop", on="query")
    return _refused(lambda: clients.ask("print 1"))


def queued_blob(clients: Clients) -> str:
    table = clients.table()
    clients.queued.ingest_from_blob(
        BlobDescriptor(clients.config["blob"], len(LINES)), _properties(table, DataFormat.JSON)
    )
    return _waited(clients, table, 2)


def queued_file(clients: Clients) -> str:
    table = clients.table()
    for name in ("rows.csv", "rows.csv.gz"):
        clients.queued.ingest_from_file(FileDescriptor(clients.file(name)), _properties(table))
    return _waited(clients, table, 4)


def queued_stream(clients: Clients) -> str:
    table = clients.table()
    clients.queued.ingest_from_stream(StreamDescriptor(io.BytesIO(LINES)), _properties(table, DataFormat.JSON))
    return _waited(clients, table, 2)


def queued_frame(clients: Clients) -> str:
    table = clients.table()
    clients.queued.ingest_from_dataframe(pandas.DataFrame(ROWS), _properties(table))
    return _waited(clients, table, 2)


def _queued_file(clients: Clients, name: str, data_format: DataFormat) -> str:
    table = clients.table()
    clients.queued.ingest_from_file(FileDescriptor(clients.file(name)), _properties(table, data_format))
    return _waited(clients, table, 2)


def queued_tsv(clients: Clients) -> str:
    return _queued_file(clients, "rows.tsv", DataFormat.TSV)


def queued_avro(clients: Clients) -> str:
    return _queued_file(clients, "rows.avro", DataFormat.AVRO)


def queued_parquet(clients: Clients) -> str:
    return _queued_file(clients, "rows.parquet", DataFormat.PARQUET)


def queued_mapping(clients: Clients) -> str:
    table = clients.table()
    clients.ask(f".create table {table} ingestion json mapping 'M' '{_MAPPING}'")
    inline = [ColumnMapping("n", "long", path="$.n"), ColumnMapping("s", "string", path="$.s")]
    for mapping in ({"ingestion_mapping_reference": "M"}, {"column_mappings": inline}):
        stream = StreamDescriptor(io.BytesIO(LINES.splitlines()[0]))
        clients.queued.ingest_from_stream(stream, _properties(table, DataFormat.JSON, **mapping))
    return _waited(clients, table, 2)


def queued_once(clients: Clients) -> str:
    table = clients.table()
    for _ in range(2):
        properties = _properties(table, ingest_by_tags=["a"], ingest_if_not_exists=["a"])
        clients.queued.ingest_from_stream(StreamDescriptor(io.BytesIO(b"1,x\n")), properties)
        _waited(clients, table, 1)
    return _text(clients.rows(table))


def resources_throttled(clients: Clients) -> str:
    table = clients.table()
    clients.fault(do="throttle", role="dm", contains="ingestion resources", count=2)
    with QueuedIngestClient(_to(clients.config["dm"])) as fresh:
        fresh.ingest_from_stream(StreamDescriptor(io.BytesIO(LINES)), _properties(table, DataFormat.JSON))
    return _waited(clients, table, 2)


def _reported(clients: Clients, table: str) -> tuple[uuid.UUID, Any]:
    source = uuid.uuid4()
    properties = _properties(table, DataFormat.JSON, report_level=ReportLevel.FailuresAndSuccesses)
    clients.queued.ingest_from_blob(BlobDescriptor(clients.config["blob"], len(LINES), source), properties)
    queues = KustoIngestStatusQueues(clients.queued)  # type: ignore[no-untyped-call]
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for message in [*queues.success.pop(16), *queues.failure.pop(16)]:
            if message.IngestionSourceId == str(source):
                return source, message
        time.sleep(0.1)
    return source, None


def success_queue(clients: Clients) -> str:
    source, message = _reported(clients, clients.table())
    good = message is not None and message.SucceededOn and message.IngestionSourceId == str(source)
    return "the source's id" if good else str(message)


def failure_queue(clients: Clients) -> str:
    return str(getattr(_reported(clients, "NoSuchTable")[1], "ErrorCode", None))


def streaming_stream(clients: Clients) -> str:
    table = clients.table(streaming=True)
    clients.streaming.ingest_from_stream(StreamDescriptor(io.BytesIO(LINES)), _properties(table, DataFormat.JSON))
    return _by_way(clients, table)


def streaming_file(clients: Clients) -> str:
    table = clients.table(streaming=True)
    clients.streaming.ingest_from_file(FileDescriptor(clients.file("rows.csv")), _properties(table))
    return _by_way(clients, table)


def streaming_blob(clients: Clients) -> str:
    table = clients.table(streaming=True)
    blob = BlobDescriptor(clients.config["blob"], len(LINES))
    clients.streaming.ingest_from_blob(blob, _properties(table, DataFormat.JSON))
    return _by_way(clients, table)


def streaming_frame(clients: Clients) -> str:
    table = clients.table(streaming=True)
    clients.streaming.ingest_from_dataframe(pandas.DataFrame(ROWS), _properties(table))
    return _by_way(clients, table)


def streaming_avro(clients: Clients) -> str:
    table = clients.table(streaming=True)
    properties = _properties(table, DataFormat.AVRO)
    refused = _refused(
        lambda: clients.streaming.ingest_from_file(FileDescriptor(clients.file("rows.avro")), properties)
    )
    return refused if refused != "not refused" else _by_way(clients, table)


def streaming_off(clients: Clients) -> str:
    table = clients.table()
    stream = StreamDescriptor(io.BytesIO(LINES))
    return _refused(lambda: clients.streaming.ingest_from_stream(stream, _properties(table, DataFormat.JSON)))


def _managed(clients: Clients, **fault: Any) -> str:
    table = clients.table(streaming=True)
    if fault:
        clients.fault(on="streaming", **fault)
    clients.managed.ingest_from_stream(StreamDescriptor(io.BytesIO(LINES)), _properties(table, DataFormat.JSON))
    return _by_way(clients, table)


def managed_small(clients: Clients) -> str:
    return _managed(clients)


def managed_once_throttled(clients: Clients) -> str:
    return _managed(clients, do="throttle")


def managed_throttled(clients: Clients) -> str:
    return _managed(clients, do="throttle", count=None)


def managed_unavailable(clients: Clients) -> str:
    return _managed(clients, do="status", status=503, count=None)


def managed_large(clients: Clients) -> str:
    table = clients.table(streaming=True)
    clients.managed.ingest_from_file(FileDescriptor(clients.file("large.csv")), _properties(table))
    return _by_way(clients, table, 1)


def managed_permanent(clients: Clients) -> str:
    table = clients.table()
    stream = StreamDescriptor(io.BytesIO(LINES))
    return _refused(lambda: clients.managed.ingest_from_stream(stream, _properties(table, DataFormat.JSON)))


def managed_lost_reply(clients: Clients) -> str:
    table = clients.table(streaming=True)
    clients.fault(do="lose_reply", on="streaming")
    stream = StreamDescriptor(io.BytesIO(LINES))
    refused = _refused(lambda: clients.managed.ingest_from_stream(stream, _properties(table, DataFormat.JSON)))
    rows = _waited(clients, table, 2)
    return rows if refused == "not refused" else f"{refused}, {rows}"
