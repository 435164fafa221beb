"""KQL: what our app and its users ask, with types and names as Kusto has them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from azure.kusto.data import ClientRequestProperties
from azure.kusto.data.exceptions import KustoApiError

from tests.adx.support import Double


def request_properties() -> ClientRequestProperties:
    return ClientRequestProperties()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def flights(double: Double) -> str:
    """A table of four rows in two extents."""
    table = double.table("Origin: string, Distance: long, _kafka: dynamic")
    for segment in ("s1", "s2"):
        lines = [
            b'{"Origin":"%b","Distance":%d,"_kafka":{"partition":0,"offset":%d,"segment":"%b"}}'
            % (origin, distance, 9007199254740993 + offset, segment.encode())
            for offset, (origin, distance) in enumerate([(b"EWR", 1400), (b"JFK", 1089)])
        ]
        assert double.ingest(table, lines) == "Succeeded"
    return table


def test_column_types_are_kusto_s(double: Double) -> None:
    """Each value reaches Python as azure-kusto-data makes it from the wire form."""
    kql = (
        "print a=true, b=int(1), c=2, d=0.5, e='s', f=datetime(2020-01-01 01:02:03.5), g=1.5h, h=dynamic([1]),"
        " i=guid(74be27de-1e4e-49d9-b579-fe0b331d3642)"
    )
    table = double.kusto.execute_query("db", kql).primary_results[0]

    assert [column.column_type for column in table.columns] == [
        "bool", "int", "long", "real", "string", "datetime", "timespan", "dynamic", "guid",
    ]  # fmt: skip
    assert table[0].to_list() == [
        True,
        1,
        2,
        0.5,
        "s",
        datetime(2020, 1, 1, 1, 2, 3, 500000, tzinfo=UTC),
        timedelta(hours=1.5),
        [1],
        "74be27de-1e4e-49d9-b579-fe0b331d3642",
    ]


def test_v1_queries_answer_too(double: Double) -> None:
    """Old tools use them."""
    reply = double.kusto._session.post(
        f"{double.engine}/v1/rest/query", json={"db": "db", "csl": "print x=1"}
    ).json()

    assert reply["Tables"][0]["Columns"] == [{"ColumnName": "x", "DataType": "Int64", "ColumnType": "long"}]
    assert reply["Tables"][0]["Rows"] == [[1]]


def test_members_of_a_dynamic_column_keep_their_digits(double: Double, flights: str) -> None:
    """Offsets above 2^53 are what a proof by KQL would silently merge."""
    rows = double.query(
        f"{flights} | extend offset = tolong(_kafka.offset), segment = tostring(_kafka['segment'])"
        " | summarize count(), min(offset), max(offset) by segment | sort by segment asc"
    )

    assert rows == [["s1", 2, 9007199254740993, 9007199254740994], ["s2", 2, 9007199254740993, 9007199254740994]]


def test_the_proof_that_the_demonstration_gives_can_be_asked(double: Double, flights: str) -> None:
    """Sums, distinct counts, filters, sorting, top, joins."""
    assert double.query(f"{flights} | summarize sum(Distance), dcount(tolong(_kafka.offset))") == [[4978, 2]]
    assert double.query(f"{flights} | where Origin == 'EWR' and Distance > 1000 | count") == [[2]]
    assert double.query(f"{flights} | distinct Origin | sort by Origin desc") == [["JFK"], ["EWR"]]
    repeats = f"{flights} | summarize n = count() by offset = tolong(_kafka.offset) | where n > 1 | count"
    assert double.query(repeats) == [[2]]
    joined = (
        f"{flights} | join kind=inner ({flights} | summarize best = max(Distance) by Origin) on Origin | count"
    )
    assert double.query(joined) == [[4]]


def test_ingestion_time_bounds_what_the_sweeper_asks(double: Double, flights: str) -> None:
    """In a filter, in an expression, after a projection, in a nested query; the column itself stays hidden."""
    counted = "| summarize rows = count() by segment = tostring(_kafka.segment) | sort by segment asc"
    assert double.query(f"{flights} | where ingestion_time() > ago(10m) {counted}") == [["s1", 2], ["s2", 2]]
    assert double.query(f"{flights} | where ingestion_time() > now() + 1h {counted}") == []
    latest = double.query(f"{flights} | project Origin | summarize m = max(ingestion_time())")[0][0]
    assert abs(datetime.now(UTC) - latest) < timedelta(minutes=5)
    assert double.query(f"{flights} | top 1 by ingestion_time() | project tostring(_kafka.segment)") == [["s2"]]
    assert double.query(f"print n = toscalar({flights} | where ingestion_time() < now() | count)") == [[4]]
    columns = (
        double.kusto.execute_query("db", f"{flights} | where ingestion_time() > ago(1h)")
        .primary_results[0]
        .columns
    )
    assert [column.column_name for column in columns] == ["Origin", "Distance", "_kafka"]


@pytest.mark.parametrize(
    ("kql", "named"),
    [
        ("{t} | where origin == 'EWR'", "'origin'"),
        ("{t} | project DISTANCE", "'DISTANCE'"),
        ("{t} | summarize count() by Carrier", "'Carrier'"),
        ("{t} | project-away distance", "'distance'"),
        ("{t} | join (T_none) on Origin", "'T_none'"),
        ("{t} | join kind=inner ({t}) on origin", "'origin'"),
        ("no_such_table | count", "'no_such_table'"),
        ("database('Nowhere').T | count", "'Nowhere'"),
        ("{t} | extend x = bag_keys(_kafka)", "bag_keys"),
        ("{t} | summarize count() by Origin | extend x = extent_tags()", "extent_tags"),
        ("print x = extent_id()", "extent_id"),
        ("range a from 1 to 300000000 step 1 | count", "10000000 rows"),
        ("print m = decimal(0.1) + decimal (0.2)", "decimal"),
        ("{t} | make-series n = count() on Distance step 1", "make-series"),
        ("{t} | frobnicate", "could not parse"),
        ("{t} | summarize count() by Origin | extend x = ingestion_time()", "ingestion_time"),
        ("let X = {t}; X | where ingestion_time() > ago(1h)", "ingestion_time"),
        ("{t} | project ingestion_time()", "ingestion_time"),
        ("union withsource=s {t}, {t}", "withsource"),
        ("{t} | where Distance ==", "could not parse"),
        ("cluster('x').database('db').{t}", "cluster"),
    ],
)
def test_what_cannot_be_answered_for_certain_is_refused(
    double: Double, flights: str, kql: str, named: str
) -> None:
    """With the name that was not understood; wrong case is a wrong name."""
    with pytest.raises(KustoApiError) as caught:
        double.query(kql.replace("{t}", flights))

    assert named in str(caught.value)
    assert caught.value.error.permanent is True
    assert caught.value.error.code in ("General_BadRequest", "BadRequest_EntityNotFound", "BadRequest_SyntaxError")


def test_a_table_of_another_database_can_be_named(double: Double, flights: str) -> None:
    """Database names in any case."""
    assert double.query(f"database('DB').{flights} | count", database="Other") == [[4]]
    with pytest.raises(KustoApiError, match=flights):
        double.query(flights, database="Other")


def test_query_parameters_are_values(double: Double, flights: str) -> None:
    """As Kusto's clients send them: literals as text."""
    properties = request_properties()
    properties.set_parameter("origin", "EWR'; drop")
    properties.set_parameter("far", "1000")
    properties.set_parameter("since", "datetime(2020-01-01T00:00:00Z)")
    properties.set_option("servertimeout", timedelta(minutes=1))
    properties.set_option("notruncation", True)
    kql = f"declare query_parameters(origin: string, far: long, since: datetime); {flights}"
    kql += " | where Origin != origin and Distance > far and ingestion_time() > since | count"

    assert double.query(kql, properties=properties) == [[4]]


def test_unknown_request_properties_are_refused(double: Double) -> None:
    """Ignoring one would answer another question."""
    properties = request_properties()
    properties.set_option("query_take_max_records", 1)

    with pytest.raises(KustoApiError, match="query_take_max_records"):
        double.query("print 1", properties=properties)


def test_a_query_that_takes_too_long_is_ended(double: Double) -> None:
    """`servertimeout`, which every Kusto client sends."""
    properties = request_properties()
    properties.set_option("servertimeout", timedelta(seconds=0.3))
    numbers = "range {} from 1 to 100000 step 1 | extend k = 1"
    right = numbers.format("b")
    endless = f"{numbers.format('a')} | join kind=inner ({right}) on k | summarize sum(a * b)"

    with pytest.raises(KustoApiError, match="timed out") as caught:
        double.query(endless, properties=properties)

    assert caught.value.error.permanent is False


def test_queries_are_answered_while_data_is_ingested(double: Double, flights: str) -> None:
    """Readers see the last commit and never wait for a batch."""
    table = double.table("n: long, s: string")
    lines = b"\n".join(b'{"n": %d, "s": "%b"}' % (n, uuid.uuid4().hex.encode()) for n in range(60_000))
    source = double.queue_blob(double.upload(lines), double.properties(table), len(lines))
    counts: set[int] = set()
    while not counts or max(counts) < 60_000:
        assert double.query(f"{flights} | count") == [[4]]
        counts.add(double.count(table))

    assert counts <= {0, 60_000}
    assert double.outcome(source) == "Succeeded"


def test_decimals_and_negative_spans_come_back_exactly(double: Double) -> None:
    """Neither goes through a float."""
    table = double.table("d: decimal, t: timespan")
    double.command(f".ingest inline into table {table} <|0.000000000000000001,-1.00:00:00.000001")

    assert double.query(table) == [[Decimal("0.000000000000000001"), -timedelta(days=1, microseconds=1)]]
