"""What the ledger's protocol leans on, shown for the table in memory and for Azurite's alike."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from azure.data.tables import TableServiceClient

from sinkcore.errors import ConflictError, TransientError
from sinkcore.table import AzureTable, Table
from sinkcore.transaction import OPERATIONS_MAX, create, delete, merge, replace
from tests.support.memory import MemoryTable


@pytest.fixture(params=["memory", "azurite"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    if request.param == "memory":
        yield MemoryTable()
        return
    name = f"t{uuid.uuid4().hex}"
    with TableServiceClient.from_connection_string(request.getfixturevalue("azurite"), retry_total=0) as service:
        azure = AzureTable(service.get_table_client(name))
        azure.create_if_missing()
        azure.create_if_missing()
        yield azure


def test_a_transaction_happens_whole_and_its_etags_are_the_rows(table: Table) -> None:
    etags = table.transact("group", [create("s-1", {"state": "staged"}), create("p-1", {"next_offset": 2**40})])

    rows = [table.get("group", key) for key in ("s-1", "p-1")]
    assert [row.values for row in rows if row] == [{"state": "staged"}, {"next_offset": 2**40}]
    assert [row.etag for row in rows if row] == etags


def test_a_failed_precondition_undoes_the_whole_transaction(table: Table) -> None:
    (etag,) = table.transact("group", [create("p-1", {"next_offset": 1})])
    table.transact("group", [replace("p-1", {"next_offset": 2}, etag)])

    with pytest.raises(ConflictError):
        table.transact("group", [create("s-1", {}), replace("p-1", {"next_offset": 3}, etag)])

    assert table.get("group", "s-1") is None
    row = table.get("group", "p-1")
    assert row is not None
    assert row.values == {"next_offset": 2}


def test_creating_what_is_there_is_a_conflict(table: Table) -> None:
    table.transact("group", [create("s-1", {"state": "staged"})])

    with pytest.raises(ConflictError):
        table.transact("group", [create("s-1", {"state": "other"})])


def test_replace_drops_properties_and_merge_keeps_them(table: Table) -> None:
    etags = table.transact("group", [create("a", {"x": 1, "y": "z"}), create("b", {"x": 1, "y": "z"})])

    table.transact("group", [replace("a", {"x": 2}, etags[0]), merge("b", {"x": 2}, etags[1])])

    rows = [table.get("group", key) for key in "ab"]
    assert [row.values for row in rows if row] == [{"x": 2}, {"x": 2, "y": "z"}]


def test_delete_needs_the_etag(table: Table) -> None:
    (old,) = table.transact("group", [create("o-1", {})])
    (new,) = table.transact("group", [merge("o-1", {"x": True}, old)])

    with pytest.raises(ConflictError):
        table.transact("group", [delete("o-1", old)])
    assert table.transact("group", [delete("o-1", new)]) == [""]
    assert table.get("group", "o-1") is None


def test_rows_come_in_order_of_key_and_only_with_the_prefix(table: Table) -> None:
    table.transact("group", [create(key, {}) for key in ("s-2", "p-0000000010", "p-0000000002", "o-1", "s-1")])
    table.transact("other", [create("p-0000000001", {})])

    assert [row.key for row in table.rows("group", "p-")] == ["p-0000000002", "p-0000000010"]
    assert [row.key for row in table.rows("group", "s-")] == ["s-1", "s-2"]
    assert [row.key for row in table.rows("nobody", "p-")] == []


def test_a_hundred_operations_fit(table: Table) -> None:
    """The service takes a hundred and answers a hundred and one with garbage."""
    etags = table.transact("group", [create(f"p-{n:010}", {"next_offset": n}) for n in range(OPERATIONS_MAX)])

    assert len(etags) == OPERATIONS_MAX
    assert len(list(table.rows("group", "p-"))) == OPERATIONS_MAX
    with pytest.raises(AssertionError):
        table.transact("group", [create(f"x-{n}", {}) for n in range(OPERATIONS_MAX + 1)])


def test_a_row_tells_its_age(table: Table) -> None:
    """By the service's clock: instances whose own clocks disagree must agree on who is late."""
    table.transact("group", [create("s-1", {})])

    row = table.get("group", "s-1")

    assert row is not None
    assert 0 <= row.age_s < 60


def test_a_missing_table_is_not_a_missing_row(azurite: str) -> None:
    """Read as "no position yet", a dropped ledger would start every partition anew."""
    with TableServiceClient.from_connection_string(azurite, retry_total=0) as service:
        table = AzureTable(service.get_table_client("neverMade"))

        with pytest.raises(TransientError, match="the ledger table is missing"):
            table.get("group", "p-1")
        with pytest.raises(TransientError, match="the ledger table is missing"):
            list(table.rows("group", "p-"))
        with pytest.raises(TransientError, match="the ledger table is missing"):
            table.transact("group", [create("s-1", {})])


def test_a_transaction_that_could_not_be_sent_is_not_doubtful() -> None:
    client = TableServiceClient.from_connection_string(
        "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;TableEndpoint=http://127.0.0.1:1/a;",
        retry_total=0,
    )
    with client, pytest.raises(TransientError, match="could not be sent"):
        AzureTable(client.get_table_client("t")).transact("group", [create("s-1", {})])
