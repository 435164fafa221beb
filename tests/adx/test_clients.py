"""Microsoft's own Python clients, unmodified, against both endpoints."""

from __future__ import annotations

import io
from typing import Any

import pytest
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.data.exceptions import KustoApiError
from azure.kusto.ingest import StreamDescriptor

from tests.adx.support import Double, wait_for


def test_a_stream_that_the_ingest_client_uploads_can_be_queried(double: Double) -> None:
    """The whole of queued ingestion: resources, token, upload by SAS, queue, batch, rows."""
    table = double.table("name: string, n: long")
    body = io.BytesIO(b'{"name": "one", "n": 1}\n{"name": "two", "n": 2}\n')

    double.ingestion.ingest_from_stream(StreamDescriptor(body), double.properties(table))

    wait_for("both rows are in the table", lambda: double.count(table) == 2)
    assert double.query(f"{table} | sort by n asc") == [["one", 1], ["two", 2]]


def test_the_ingest_client_keeps_the_resources_that_it_was_given(double: Double) -> None:
    """With one kind of resource missing, azure-kusto-ingest 6.0.4 asks again before every single ingestion."""
    manager = double.ingestion._resource_manager
    manager.get_ingestion_queues()

    resources: Any = manager._ingest_client_resources
    assert resources.is_applicable()


@pytest.mark.parametrize("name", ["NetDefaultDB", "NetDefaultDb", "netdefaultdb"])
def test_resources_and_token_are_given_under_any_case_of_the_default_database(double: Double, name: str) -> None:
    """The Java client writes `NetDefaultDb`."""
    client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(double.dm))
    kinds = {
        row["ResourceTypeName"] for row in client.execute(name, ".show ingestion resources").primary_results[0]
    }

    assert kinds == {
        "SecuredReadyForAggregationQueue",
        "FailedIngestionsQueue",
        "SuccessfulIngestionsQueue",
        "TempStorage",
        "IngestionsStatusTable",
    }
    assert client.execute(name, ".get kusto identity token").primary_results[0][0]["AuthorizationContext"]


def test_each_endpoint_refuses_what_belongs_to_the_other(double: Double) -> None:
    """In Azure they are two services; an app that mixes them up works nowhere else."""
    dm = KustoClient(KustoConnectionStringBuilder.with_no_authentication(double.dm))

    with pytest.raises(KustoApiError, match="data-management"):
        double.command(".get ingestion resources")
    with pytest.raises(KustoApiError, match="engine"):
        dm.execute("db", "print 1")
    with pytest.raises(KustoApiError, match="engine"):
        dm.execute("db", ".show tables")
    assert dm.execute("db", ".show version").primary_results[0][0]["ServiceType"] == "DataManagement"
    assert double.command(".show version")[0]["ServiceType"] == "Engine"


def test_a_query_can_be_read_as_a_stream(double: Double) -> None:
    """The streaming reader depends on the order of the frames."""
    tables = double.kusto.execute_streaming_query("db", "range n from 1 to 3 step 1")

    assert [row.to_list() for row in next(tables.iter_primary_results())] == [[1], [2], [3]]


def test_a_message_in_the_java_client_s_spelling_is_understood(double: Double) -> None:
    """camelCase names, words for report levels, a null size and booleans as text."""
    table = double.table("n: long")
    double.queue_raw(
        {
            "id": "4f0e2b1a-0000-4000-8000-000000000001",
            "blobPath": double.upload(b'{"n": 5}'),
            "rawDataSize": None,
            "databaseName": "DB",
            "tableName": table,
            "retainBlobOnSuccess": True,
            "reportLevel": "FailuresOnly",
            "reportMethod": "Queue",
            "flushImmediately": False,
            "additionalProperties": {"format": "multijson", "ignoreFirstRecord": "false"},
        }
    )

    wait_for("the row is in the table", lambda: double.count(table) == 1)
    assert double.batches(table)[0]["seal_reason"] == "SingleBlob_SizeUnknown"


def test_a_format_that_the_double_lacks_is_a_failure_that_names_it(double: Double) -> None:
    """An empty table would look like lost data."""
    table = double.table("n: long")

    assert double.ingest(table, b"anything", DataFormat.W3CLOGFILE) == "BadRequest_FormatNotSupported"
    failures = double.command(f".show ingestion failures | where Table == '{table}' | project Details")
    assert "w3clogfile" in failures[0]["Details"]
