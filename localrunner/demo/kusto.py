"""What a person would do in ADX by hand: make the tables, and ask the questions that prove the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from azure.kusto.data import KustoClient, KustoConnectionStringBuilder

from localrunner.demo.records import Feed

DB = "db"
METADATA = "_kafka"
DEAD_LETTERS = "DeadLetters"
# ADX's shortest; the double takes a hundredth of it.
BATCHING = '{"MaximumBatchingTimeSpan": "00:00:10", "MaximumNumberOfItems": 500, "MaximumRawDataSizeMB": 1024}'
FLIGHTS_COLUMNS = (
    "year:int month:int day:int dep_time:int sched_dep_time:int dep_delay:int arr_time:int sched_arr_time:int "
    "arr_delay:int carrier:string flight:int tailnum:string origin:string dest:string air_time:int distance:long "
    "hour:int minute:int time_hour:datetime"
)
WEATHER_COLUMNS = (
    "origin:string year:int month:int day:int hour:int temp:real dewp:real humid:real wind_dir:int "
    "wind_speed:real wind_gust:real precip:real pressure:real visib:real time_hour:datetime"
)
DEAD_LETTERS_COLUMNS = (
    "topic:string partition:int offset:long timestamp_ms:long key:string value:string headers:dynamic "
    "reason:string detail:string db:string table:string at:datetime"
)


@dataclass(frozen=True, slots=True)
class Partition:
    """What the tables and the dead letters hold of one topic-partition."""

    topic: str
    partition: int
    offsets: int
    first_offset: int
    last_offset: int
    twice: int


class Adx:
    """The engine of the double, by Microsoft's client."""

    def __init__(self, engine: str) -> None:
        self._client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(engine))

    def make_tables(self) -> None:
        """Tables, mappings and batching policies are there, made by the commands that a person would use."""
        for table, columns, kind in (("Flights", FLIGHTS_COLUMNS, "json"), ("Weather", WEATHER_COLUMNS, "avro")):
            self._make(table, f"{columns} kafka:dynamic", {"kafka": METADATA}, kind)
            self._command(f".alter table {table} policy ingestionbatching @'{BATCHING}'")
        self._make(DEAD_LETTERS, DEAD_LETTERS_COLUMNS, {})
        self._command(f".alter table {DEAD_LETTERS} policy ingestionbatching @'{BATCHING}'")

    def rows(self, feeds: list[Feed]) -> dict[str, int]:
        """How many rows each feed's table has."""
        return {feed.table: int(self._query(f"{feed.table} | count")[0]["Count"]) for feed in feeds}

    def dead_letters(self) -> int:
        """How many dead letters have been brought into their table."""
        return int(self._query(f"{DEAD_LETTERS} | count")[0]["Count"])

    def total(self, feed: Feed) -> int:
        """The sum of the feed's column over its table."""
        return int(self._query(f"{feed.table} | summarize total = sum({feed.total_column})")[0]["total"])

    def partitions(self, feeds: list[Feed]) -> list[Partition]:
        """Of every topic-partition: the different offsets, the first and last one, and those seen twice."""
        return [
            Partition(r["topic"], r["partition"], r["offsets"], r["first_offset"], r["last_offset"], r["twice"])
            for r in self._query(proof(feeds))
        ]

    def _make(self, table: str, columns: str, fields: dict[str, str], kind: str = "json") -> None:
        named = [column.split(":") for column in columns.split()]
        listed = ", ".join(f"['{name}']: {kind}" for name, kind in named)
        self._command(f".create-merge table {table} ({listed})")
        mapping = ", ".join(
            f'{{"column": "{name}", "Properties": {{"Path": "$.{fields.get(name, name)}"}}}}' for name, _ in named
        )
        self._command(f".create-or-alter table {table} ingestion {kind} mapping '{table}Mapping' '[{mapping}]'")

    def _command(self, text: str) -> None:
        self._client.execute_mgmt(DB, text)

    def _query(self, text: str) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self._client.execute_query(DB, text).primary_results[0]]


def proof(feeds: list[Feed]) -> str:
    """One query over tables and dead letters: every offset of every topic-partition, and how often it is there."""
    coordinates = (
        "topic = tostring(kafka.topic), partition = toint(kafka.partition), offset = tolong(kafka.offset)"
    )
    tables = ", ".join(f"({feed.table} | project {coordinates})" for feed in feeds)
    return (
        f"union {tables}, ({DEAD_LETTERS} | project topic, partition, offset)"
        " | summarize times = count() by topic, partition, offset"
        " | summarize offsets = count(), first_offset = min(offset), last_offset = max(offset),"
        " twice = countif(times > 1) by topic, partition"
        " | order by topic asc, partition asc"
    )
