"""Streaming ingestion, and managed streaming with its way back to the queue."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
import requests
from azure.kusto.data import KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.data.exceptions import KustoApiError, KustoServiceError
from azure.kusto.ingest import (
    BlobDescriptor,
    IngestionProperties,
    KustoStreamingIngestClient,
    ManagedStreamingIngestClient,
    StreamDescriptor,
)

from tests.adx.support import Double, wait_for

ENABLED = "policy streamingingestion enable"


@pytest.fixture
def streaming(double: Double) -> Iterator[KustoStreamingIngestClient]:
    """Microsoft's client for the engine."""
    with KustoStreamingIngestClient(_to(double.engine)) as client:
        yield client


@pytest.fixture
def managed(double: Double) -> Iterator[ManagedStreamingIngestClient]:
    """Microsoft's client for both, which does not wait long between attempts."""
    with ManagedStreamingIngestClient(_to(double.engine), _to(double.dm)) as client:
        client._set_retry_settings(0.1)
        yield client
    requests.delete(f"{double.dm}/local/faults", timeout=10)


def _to(url: str) -> KustoConnectionStringBuilder:
    return KustoConnectionStringBuilder.with_no_authentication(url)


def a_table(double: Double, schema: str = "n: long, s: string") -> str:
    table = double.table(schema)
    double.command(f".alter table {table} {ENABLED}")
    return table


def post(
    double: Double, table: str, body: bytes, query: str = "streamFormat=csv", **headers: str
) -> requests.Response:
    url = f"{double.engine}/v1/rest/ingest/db/{table}?{query}"
    return requests.post(url, data=body, headers=headers, timeout=20)


def code(reply: requests.Response) -> tuple[int, str, bool]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["@permanent"]


@pytest.mark.parametrize(
    ("data_format", "data"),
    [
        (DataFormat.CSV, b"1,x\n2,y\n"),
        (DataFormat.TSV, b"1\tx\n2\ty\n"),
        (DataFormat.SCSV, b"1;x\n2;y\n"),
        (DataFormat.PSV, b"1|x\n2|y\n"),
        (DataFormat.SOHSV, b"1\x01x\n2\x01y\n"),
        (DataFormat.JSON, b'{"n": 1, "s": "x"}\n{"n": 2, "s": "y"}'),
        (DataFormat.MULTIJSON, b'[{"n": 1, "s": "x"}, {"n": 2, "s": "y"}]'),
    ],
    ids=lambda value: value.kusto_value if isinstance(value, DataFormat) else "",
)
def test_rows_are_visible_when_the_client_returns(
    double: Double, streaming: KustoStreamingIngestClient, data_format: DataFormat, data: bytes
) -> None:
    """No batch, no extent, no tags."""
    table = a_table(double)

    streaming.ingest_from_stream(StreamDescriptor(io.BytesIO(data)), IngestionProperties("db", table, data_format))

    assert double.query(f"{table} | sort by n asc") == [[1, "x"], [2, "y"]]
    assert double.command(f".show table {table} extents") == double.batches(table) == []
    nowhere = "00000000-0000-0000-0000-000000000000"
    assert double.query(f"{table} | extend t = extent_tags() | summarize by e = extent_id(), isnull(t)") == [
        [nowhere, True]
    ]


def test_avro_a_mapping_and_a_blob_can_be_streamed(double: Double, streaming: KustoStreamingIngestClient) -> None:
    """The mapping has to be there before."""
    table = a_table(double)
    paths = [{"Column": "n", "Properties": {"Path": "$.x"}}]
    for kind in ("json", "avro"):
        double.command(f".create table {table} ingestion {kind} mapping 'M' '{json.dumps(paths)}'")
    file = io.BytesIO()
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]})
    fastavro.writer(file, schema, [{"x": 1}])

    assert post(double, table, file.getvalue(), "streamFormat=Avro&mappingName=M").status_code == 200
    by_name = IngestionProperties("db", table, DataFormat.JSON, ingestion_mapping_reference="M")
    streaming.ingest_from_stream(StreamDescriptor(io.BytesIO(b'{"x": 2}')), by_name)
    streaming.ingest_from_blob(BlobDescriptor(double.upload(gzip.compress(b'{"x": 3}'), ".json.gz"), 8), by_name)

    assert sorted(double.query(f"{table} | project n")) == [[1], [2], [3]]


def test_the_reply_has_the_table_that_the_service_sends(double: Double) -> None:
    """As azure-kusto-ingest's own tests show it; a body may be plain, compressed, or compressed in parts."""
    table = a_table(double)

    reply = post(double, table, b"1,x\n2,y\n")
    parts = gzip.compress(b"3,x\n") + gzip.compress(b"4,y\n")
    compressed = post(double, table, parts, "streamFormat=CSV", **{"Content-Encoding": "gzip"})

    (answer,) = reply.json()["Tables"]
    assert [column["ColumnName"] for column in answer["Columns"]] == [
        "ConsumedRecordsCount",
        "UpdatePolicyStatus",
        "UpdatePolicyFailureCode",
        "UpdatePolicyFailureReason",
    ]
    assert answer["Rows"] == [[2, "Inactive", "Unknown", None]]
    assert compressed.status_code == 200
    assert double.count(table) == 4


def test_the_policy_must_be_enabled_and_the_table_s_own_comes_first(double: Double) -> None:
    """A database may enable it for all tables, and a table opt out."""
    table, other = double.table("n: long"), double.table("n: long")
    refused = (400, "BadRequest_StreamingIngestionPolicyNotEnabled", True)

    assert code(post(double, table, b"1\n")) == refused
    double.command(".alter database db policy streamingingestion '{\"IsEnabled\": true}'")
    try:
        double.command(f".alter-merge table {other} policy streamingingestion '{{\"IsEnabled\": false}}'")
        assert post(double, table, b"1\n").status_code == 200
        assert code(post(double, other, b"1\n")) == refused
    finally:
        double.command(".delete database db policy streamingingestion")
    assert code(post(double, table, b"1\n")) == refused


def test_the_policy_is_shown_altered_and_deleted(double: Double) -> None:
    """With the words that the documentation has, and as JSON."""
    table = double.table("n: long")
    shown = f".show table {table} policy streamingingestion"

    double.command(f".alter tables ({table}) policy streamingingestion disable")
    double.command(f".alter-merge table {table} policy streamingingestion '{{\"HintAllocatedRate\": 2.1}}'")
    (row,) = double.command(shown)
    assert (row["PolicyName"], json.loads(row["Policy"])) == (
        "StreamingIngestionPolicy",
        {"IsEnabled": False, "HintAllocatedRate": 2.1},
    )
    double.command(f".delete table {table} policy streamingingestion")
    assert double.command(shown)[0]["Policy"] == "null"
    for wrong in ("perhaps", "'{}'", "'{\"IsEnabled\": 1}'", '\'{"IsEnabled": true, "Surprise": 1}\'', "'[]'"):
        with pytest.raises(KustoApiError):
            double.command(f".alter table {table} policy streamingingestion {wrong}")


def test_more_than_4_mb_are_refused(double: Double) -> None:
    """As sent: compressed data of that size may hold more; a blob as it is stored."""
    table = a_table(double, "s: string")
    limit = 4 * 1024 * 1024
    lines = (b"x" * 1023 + b"\n") * (limit // 1024)

    assert post(double, table, lines).status_code == 200
    assert code(post(double, table, lines + b"y\n")) == (413, "PayloadTooLarge", True)
    packed = gzip.compress(lines + lines)
    assert post(double, table, packed, **{"Content-Encoding": "gzip"}).status_code == 200
    body = json.dumps({"sourceUri": double.upload(lines + b"y\n", ".csv")}).encode()
    assert code(post(double, table, body, "streamFormat=csv&sourceKind=uri")) == (
        400,
        "Stream_InputStreamTooLarge",
        True,
    )
    assert double.count(table) == 3 * limit // 1024


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("", b"1", "BadRequest_FormatNotSupported"),
        ("streamFormat=parquet", b"1", "BadRequest_FormatNotSupported"),
        ("streamFormat=csv&tags=[]", b"1", "BadRequest_IngestionPropertyNotSupportedInThisContext"),
        ("streamFormat=csv&ingestionMapping=[]", b"1", "BadRequest_IngestionPropertyNotSupportedInThisContext"),
        ("streamFormat=csv&surprise=1", b"1", "General_BadRequest"),
        ("streamFormat=csv&sourceKind=file", b"1", "General_BadRequest"),
        ("streamFormat=csv&sourceKind=uri", b"1", "BadRequest_InvalidBlobUri"),
        ("streamFormat=csv&sourceKind=uri", b'{"sourceUri": "ftp://x"}', "BadRequest_InvalidBlobUri"),
        (
            "streamFormat=csv&sourceKind=uri",
            b'{"sourceUri": "http://127.0.0.1:9/x"}',
            "General_RetryAttemptsExceeded",
        ),
        ("streamFormat=csv&mappingName=none", b"1", "BadRequest_MappingReferenceWasNotFound"),
        ("streamFormat=csv", b"", "Stream_NoDataToIngest"),
        ("streamFormat=csv", b"1\n2,3\n", "Stream_WrongNumberOfFields"),
        ("streamFormat=multijson", b"nonsense", "BadRequest_InvalidBlob"),
        ("streamFormat=avro", b"nonsense", "BadRequest_InvalidBlob"),
    ],
)
def test_what_cannot_be_streamed_is_a_permanent_error_with_its_code(
    double: Double, query: str, body: bytes, expected: str
) -> None:
    """And leaves no row behind."""
    table = a_table(double, "n: long")

    assert code(post(double, table, body, query)) == (400, expected, True)
    assert double.count(table) == 0


def test_the_target_must_exist_and_the_endpoint_be_the_engine(double: Double) -> None:
    """Tables by their case, databases in any."""
    table = a_table(double, "n: long")

    assert code(post(double, "NoSuch", b"1")) == (400, "BadRequest_TableNotExist", True)
    url = f"/v1/rest/ingest/{{}}/{table}?streamFormat=csv"
    assert code(requests.post(double.engine + url.format("nowhere"), data=b"1", timeout=10))[0] == 400
    assert requests.post(double.engine + url.format("DB"), data=b"1", timeout=10).status_code == 200
    wrong = requests.post(double.dm + url.format("db"), data=b"1", timeout=10)
    assert "engine" in wrong.json()["error"]["@message"]


def faults(double: Double, *wanted: dict[str, Any]) -> None:
    assert requests.post(f"{double.dm}/local/faults", json=list(wanted), timeout=10).status_code == 200


@pytest.mark.parametrize(
    "fault", [{"do": "throttle"}, {"do": "status", "status": 503}], ids=["throttled", "unavailable"]
)
def test_managed_streaming_falls_back_to_the_queue_after_three_attempts(
    double: Double, managed: ManagedStreamingIngestClient, fault: dict[str, Any]
) -> None:
    """And the rows arrive once, in an extent."""
    table = a_table(double)
    faults(double, {**fault, "on": "streaming", "count": 3})

    properties = IngestionProperties("db", table, DataFormat.CSV, flush_immediately=True)
    managed.ingest_from_stream(StreamDescriptor(io.BytesIO(b"1,x\n")), properties)

    wait_for("the row arrives by the queue", lambda: double.count(table) == 1)
    assert len(double.batches(table)) == 1


def test_managed_streaming_streams_what_it_can_and_queues_what_is_too_large(
    double: Double, managed: ManagedStreamingIngestClient
) -> None:
    """Its limit is 4 MB after compression, so that this one does not compress."""
    small, large = a_table(double), a_table(double, "s: string")
    noise = b"".join(b"%064x\n" % (n * 0x9E3779B97F4A7C15**4 % 2**256) for n in range(150_000))

    one_more = IngestionProperties("db", small, DataFormat.CSV, flush_immediately=True)
    faults(double, {"do": "throttle", "on": "streaming", "count": 1})
    managed.ingest_from_stream(StreamDescriptor(io.BytesIO(b"1,x\n")), one_more)
    assert double.count(small) == 1
    assert double.batches(small) == []

    in_bulk = IngestionProperties("db", large, DataFormat.TXT, flush_immediately=True)
    managed.ingest_from_stream(StreamDescriptor(io.BytesIO(noise)), in_bulk)
    wait_for("the rows arrive by the queue", lambda: double.count(large) == 150_000)
    assert len(double.batches(large)) == 1


def test_a_permanent_error_is_not_queued(double: Double, managed: ManagedStreamingIngestClient) -> None:
    """The policy is not enabled: managed streaming raises, and nothing arrives."""
    table = double.table("n: long, s: string")

    with pytest.raises(KustoServiceError, match="policy is not enabled"):
        managed.ingest_from_stream(
            StreamDescriptor(io.BytesIO(b"1,x\n")), IngestionProperties("db", table, DataFormat.CSV)
        )
    assert double.count(table) == 0


def test_what_was_streamed_survives_a_lost_reply(double: Double, streaming: KustoStreamingIngestClient) -> None:
    """The rows are there although the client does not know, which is how streaming repeats."""
    table = a_table(double)
    faults(double, {"do": "lose_reply", "on": "streaming"})

    with pytest.raises(KustoServiceError):
        streaming.ingest_from_stream(
            StreamDescriptor(io.BytesIO(b"1,x\n")), IngestionProperties("db", table, DataFormat.CSV)
        )
    assert double.count(table) == 1
