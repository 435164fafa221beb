"""Reports to the status table, and blobs that are not to be kept."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest
from azure.core.credentials import AzureSasCredential
from azure.data.tables import TableClient

from tests.adx.support import Double, wait_for
from tests.adx.test_failures import a_message


def status_table(double: Double) -> tuple[str, TableClient]:
    """The address that clients are given, and a client for it."""
    url = double.resource("IngestionsStatusTable")
    address, _, sas = url.partition("?")
    endpoint, _, name = address.rpartition("/")
    return url, TableClient(endpoint, name, credential=AzureSasCredential(sas))


def watched(
    double: Double, table: str, method: int, as_javascript: bool = False, **changes: Any
) -> dict[str, Any]:
    """A message with a row in the status table, as a client makes it."""
    url, rows = status_table(double)
    source = str(uuid.uuid4())
    rows.create_entity({"PartitionKey": source, "RowKey": source, "Status": "Pending", "Mine": "kept"})
    where = {"TableConnectionString": url, "PartitionKey": source, "RowKey": source}
    if as_javascript:
        where["TableConnectionString"] = "/".join(url.split("/")[:3])
        where = {name[0].lower() + name[1:]: value for name, value in where.items()}
    return a_message(double, table, Id=source, ReportMethod=method, IngestionStatusInTable=where, **changes)


def status(double: Double, source: str) -> dict[str, Any]:
    """The row, once it is pending no more."""
    _, rows = status_table(double)
    wait_for("the row changes", lambda: rows.get_entity(source, source)["Status"] != "Pending")
    return dict(rows.get_entity(source, source))


@pytest.mark.parametrize("as_javascript", [False, True])
def test_the_outcome_of_a_blob_is_in_its_row_of_the_status_table(double: Double, as_javascript: bool) -> None:
    """Both outcomes; what the client wrote into its row stays. JavaScript's client names the account alone."""
    table = double.table("n: long")
    good, bad = watched(double, table, 1, as_javascript), watched(double, "NoSuchTable", 1, as_javascript)
    for message in (good, bad):
        double.queue_raw(message)

    row = status(double, good["Id"])
    assert (row["Status"], row["Table"], row["Mine"]) == ("Succeeded", table, "kept")
    assert isinstance(row["UpdatedOn"], datetime), "Java's client reads a date, and fails on text"
    row = status(double, bad["Id"])
    assert (row["Status"], row["ErrorCode"], row["FailureStatus"]) == (
        "Failed",
        "BadRequest_TableNotExist",
        "Permanent",
    )
    assert "NoSuchTable" in row["Details"]
    assert "sig=" not in str(row["IngestionSourcePath"])


def test_a_report_goes_to_the_queue_the_table_or_both(double: Double) -> None:
    """Method 1 is the table alone, 2 both."""
    table = double.table("n: long")
    alone, both = watched(double, table, 1), watched(double, table, 2)
    for message in (alone, both):
        double.queue_raw(message)

    assert double.outcome(uuid.UUID(both["Id"])) == "Succeeded"
    assert status(double, both["Id"])["Status"] == status(double, alone["Id"])["Status"] == "Succeeded"
    assert alone["Id"] not in {message.IngestionSourceId for message in double.reported}


def test_a_status_table_of_somebody_else_s_is_refused(double: Double) -> None:
    """The double writes with its own key, to its own table only."""
    body = watched(double, double.table("n: long"), 2)
    body["IngestionStatusInTable"]["TableConnectionString"] = "http://127.0.0.1:9/account/other?sig=x"
    double.queue_raw(body)

    assert double.outcome(uuid.UUID(body["Id"])) == "BadRequest_NotSupported"


def test_a_blob_that_is_not_to_be_kept_is_deleted_once_it_is_ingested(double: Double) -> None:
    """With the account's own key, since a client's SAS need not allow it; one that failed is kept."""
    table = double.table("n: long")
    good = a_message(double, table, RetainBlobOnSuccess=False)
    kept = a_message(double, table, RetainBlobOnSuccess=True)
    bad = a_message(double, "NoSuchTable", RetainBlobOnSuccess=False)
    for message in (good, kept, bad):
        double.queue_raw(message)
    for message in (good, kept, bad):
        double.outcome(uuid.UUID(message["Id"]))

    def is_there(message: dict[str, Any]) -> bool:
        name = message["BlobPath"].partition("?")[0].rpartition("/")[2]
        return double.blobs.get_blob_client("adx-double-tests", name).exists()

    wait_for("the good one is deleted", lambda: not is_there(good))
    assert is_there(kept)
    assert is_there(bad)
