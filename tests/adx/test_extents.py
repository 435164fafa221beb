"""Extents with their ids, tags and creation times: shown, asked for in queries, and dropped."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from azure.kusto.data.exceptions import KustoApiError

from tests.adx.support import Double

CREATED = "2020-02-17T01:02:03Z"


@pytest.fixture(scope="module")
def tagged(double: Double) -> str:
    """A table of three extents: with tags and a creation time, with one tag, with none."""
    table = double.table("n: long")
    tags: dict[str, Any] = {"additional_tags": ["aaa", "BBB"], "drop_by_tags": ["old day"]}
    created: dict[str, Any] = {"additional_properties": {"creationTime": CREATED}}
    assert double.ingest(table, [b'{"n": 1}', b'{"n": 2}'], **tags, **created) == "Succeeded"
    assert double.ingest(table, b'{"n": 3}', ingest_by_tags=["b"]) == "Succeeded"
    assert double.ingest(table, b'{"n": 4}') == "Succeeded"
    return table


def test_extents_are_shown_with_tags_and_creation_time(double: Double, tagged: str) -> None:
    """Tags stand on lines of their own; the sweeper of an app reads them."""
    first, second, third = double.command(f".show table {tagged} extents")

    assert set(first["Tags"].split("\r\n")) == {"aaa", "BBB", "drop-by:old day"}
    assert (second["Tags"], third["Tags"]) == ("ingest-by:b", "")
    assert first["MinCreatedOn"] == first["MaxCreatedOn"] == dt.datetime.fromisoformat(CREATED)
    assert third["MinCreatedOn"] > dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
    assert [extent["RowCount"] for extent in (first, second, third)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("tags has 'aaa' and tags contains 'bb'", [2]),
        ("tags has 'aa' and tags contains 'bb'", []),
        ("tags contains 'AA' and tags contains 'bb'", [2]),
        ("tags !has 'aaa'", [1, 1]),
        ("tags !contains 'B'", [1]),
        ('tags has "drop-by:old day"', [2]),
    ],
)
def test_extents_are_found_by_their_tags(double: Double, tagged: str, where: str, rows: list[int]) -> None:
    """The examples of show-extents.md: `has` is equality, `contains` a part in any case."""
    assert [extent["RowCount"] for extent in double.command(f".show table {tagged} extents where {where}")] == rows


def test_extents_are_shown_by_id_by_tables_and_by_database(double: Double, tagged: str) -> None:
    """Each scope but the cluster's."""
    other = double.table("n: long")
    first = double.command(f".show table {tagged} extents")[0]["ExtentId"]

    by_id = double.command(f".show table {tagged} extents ({first}) hot")
    assert [extent["RowCount"] for extent in by_id] == [2]
    assert len(double.command(f".show tables ({tagged}, {other}) extents")) == 3
    of_all = double.command(f".show database db extents | where TableName == '{tagged}'")
    assert of_all[0]["ExtentId"] == first


def test_queries_know_a_row_s_extent_and_its_tags(double: Double, tagged: str) -> None:
    """extent_id() and extent_tags(), through operators that keep rows; they leave no column behind."""
    shown = [extent["ExtentId"] for extent in double.command(f".show table {tagged} extents")]

    ids = double.query(f"{tagged} | where n > 0 | extend e = extent_id() | sort by n asc | project n, e")
    assert ids == [[1, shown[0]], [2, shown[0]], [3, shown[1]], [4, shown[2]]]
    assert double.query(f"{tagged} | summarize by e = extent_id() | count") == [[3]]
    tags = double.query(f"{tagged} | project n, t = extent_tags() | sort by n asc | project t")
    assert [sorted(row[0]) for row in tags[:3]] == [["BBB", "aaa", "drop-by:old day"]] * 2 + [["ingest-by:b"]]
    by_tag = (
        f"{tagged} | extend Tags = extent_tags() | where Tags has_cs 'aaa' and Tags !has_cs 'drop-by:x' | count"
    )
    assert double.query(by_tag) == [[2]]
    assert double.query(f"{tagged} | where extent_id() == guid({shown[1]}) and ingestion_time() > ago(1h)") == [
        [3]
    ]


def test_extents_are_dropped_by_tag_by_id_and_all_together(double: Double) -> None:
    """What drop-by tags are for; the rows of other extents stay."""
    table = double.table("n: long")
    for n, day in enumerate(("old", "old", "new")):
        assert double.ingest(table, b'{"n": %d}' % n, drop_by_tags=[day]) == "Succeeded"
    by_tag = f".show table {table} extents where tags has 'drop-by:old'"

    assert len(double.command(f".drop extents whatif <| {by_tag}")) == 2
    assert double.count(table) == 3
    dropped = double.command(f".drop extents <| {by_tag}")
    assert [row["TableName"] for row in dropped] == [table, table]
    assert double.query(table) == [[2]]

    double.ingest(table, b'{"n": 5}')
    last = double.command(f".show table {table} extents")[-1]["ExtentId"]
    assert [row["ExtentId"] for row in double.command(f".drop extent {last} from {table}")] == [last]
    assert double.query(table) == [[2]]
    with pytest.raises(KustoApiError, match="not found"):
        double.command(f".drop extents ({uuid.uuid4()}) from {table}")
    by_query = f"{table} | where n == 2 | summarize by ExtentId = extent_id(), TableName = '{table}'"
    assert len(double.command(f".drop extents <| {by_query}")) == 1
    assert double.command(f".drop extents from {table}") == []
    assert double.count(table) == 0


@pytest.mark.parametrize(
    "text",
    [
        ".drop extents",
        ".drop extents older 10 days from all tables",
        ".drop extents (nonsense) from T",
        ".drop extents <| print 1",
        ".show table {t} extents where tags like 'x'",
        ".show table {t} extents where size > 1",
        ".show cluster extents",
    ],
)
def test_other_ways_to_name_extents_are_refused(double: Double, tagged: str, text: str) -> None:
    """Dropping by guess would lose data."""
    with pytest.raises(KustoApiError):
        double.command(text.replace("{t}", tagged))
    assert double.count(tagged) == 4


def test_a_dropped_extent_does_not_stop_the_same_tag_from_being_ingested_again(double: Double) -> None:
    """ingestIfNotExists asks the extents that are there."""
    table = double.table("n: long")
    once: dict[str, Any] = {"ingest_by_tags": ["a"], "ingest_if_not_exists": ["a"]}
    for _ in range(2):
        assert double.ingest(table, b'{"n": 1}', **once) == "Succeeded"
    assert double.count(table) == 1

    double.command(f".drop extents from {table}")

    assert double.ingest(table, b'{"n": 1}', **once) == "Succeeded"
    assert double.count(table) == 1
