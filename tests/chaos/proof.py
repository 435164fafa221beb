"""The proof, by KQL: what Kafka committed is brought into ADX, and compared with tables and dead letters."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import requests
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.data_format import DataFormat
from azure.kusto.ingest import IngestionProperties, QueuedIngestClient

from localrunner.demo.kusto import BATCHING, DB
from localrunner.processes import wait_until
from tests.chaos.kafkas import Committed
from tests.chaos.load import Sent
from tests.chaos.topics import Topic

ANSWER_S = 20.0
LANDS_WITHIN_S = 60.0
PLACE = "topic, partition, offset"
TABLES = {
    "Committed": "topic: string, partition: int, offset: long, n: long",
    "Sent": "topic: string, partition: int, offset: long, n: long",
    "Repeated": "segment: string, repeats: long",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """By topic and partition; `foreign` are rows that are not what Kafka committed at their offset."""

    rows: dict[tuple[str, int], int]
    dead_letters: dict[tuple[str, int], int]
    lost: dict[tuple[str, int], int]
    twice: dict[tuple[str, int], int]
    foreign: dict[tuple[str, int], int]
    repeated_by_adx: int

    @property
    def holds(self) -> bool:
        """Every committed record is in its table or a dead letter, once, and there is nothing else."""
        return not (self.lost or self.twice or self.foreign)


class Proof:
    """Asks the double."""

    def __init__(self, engine: str, dm: str) -> None:
        self._dm = dm
        self._engine = KustoClient(KustoConnectionStringBuilder.with_no_authentication(engine))
        self._ingestion = QueuedIngestClient(KustoConnectionStringBuilder.with_no_authentication(dm))

    def make_tables(self, topics: Sequence[Topic]) -> None:
        """The topics' tables are in ADX, and those that the proof needs."""
        commands = [command for topic in topics for command in topic.commands]
        for name, columns in TABLES.items():
            commands += [
                f".create table {name} ({columns})",
                f".alter table {name} policy ingestionbatching @'{BATCHING}'",
            ]
        for command in commands:
            self._engine.execute_mgmt(DB, command)

    def verdict(self, topics: Sequence[Topic], committed: Committed, sent: Sent) -> Verdict:
        """What the tables hold of what Kafka committed.

        Of a compacted topic Kafka has less in the end than it once gave out: what it lacks may be there, if it was
        ever sent, and need not.
        """
        repeats = self._repeats()
        self._bring(
            "Committed", [dict(zip(("topic", "partition", "offset", "n"), one, strict=True)) for one in committed]
        )
        compacted = {topic.name for topic in topics if topic.kind == "compacted"}
        self._bring(
            "Sent",
            [
                {"topic": name, "partition": partition, "offset": offset, "n": n}
                for name in compacted
                for partition, offset, n in sent.records[name]
            ],
        )
        self._bring("Repeated", [{"segment": segment, "repeats": times} for segment, times in repeats.items()])
        tables = ", ".join(
            f"({topic.table} | project topic = tostring(kafka.topic), partition = toint(kafka.partition),"
            " offset = tolong(kafka.offset), n, segment = tostring(kafka.segment))"
            for topic in topics
        )
        rows = f"union {tables}"
        letters = "DeadLetters | project topic, partition, offset, n = long(-1), segment = ''"
        everything = f"union {tables}, ({letters})"
        known = (
            "union (Committed | project topic, partition, offset, n), (Sent | project topic, partition, offset, n)"
        )
        by_partition = "| summarize found = count() by topic, partition"
        return Verdict(
            rows=self._count(f"{rows} {by_partition}"),
            dead_letters=self._count(f"{letters} {by_partition}"),
            lost=self._count(f"Committed | join kind=leftanti ({everything}) on {PLACE} {by_partition}"),
            twice=self._count(
                f"{everything} | summarize times = count(), segments = dcount(segment), segment = min(segment)"
                f" by {PLACE}"
                " | join kind=leftouter (Repeated) on segment"
                f" | where segments > 1 or times > 1 + coalesce(repeats, 0) {by_partition}"
            ),
            foreign=self._count(f"{everything} | join kind=leftanti ({known}) on {PLACE}, n {by_partition}"),
            repeated_by_adx=sum(repeats.values()),
        )

    def query(self, text: str) -> list[dict[str, Any]]:
        """What a query returns."""
        return [row.to_dict() for row in self._engine.execute_query(DB, text).primary_results[0]]

    def _count(self, text: str) -> dict[tuple[str, int], int]:
        return {(row["topic"], row["partition"]): row["found"] for row in self.query(text)}

    def _repeats(self) -> dict[str, int]:
        """By segment: blobs whose message a killed double has ingested twice. Its path holds the segment's id."""
        found = requests.get(f"{self._dm}/local/repeats", timeout=ANSWER_S).json()["repeats"]
        repeats = Counter[str]()
        for path, times in found.items():
            repeats[path.split("/")[-2]] += times
        return dict(repeats)

    def _bring(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        lines = [json.dumps(row).encode() for row in rows]
        if not lines:
            return
        stream = io.BytesIO(b"\n".join(lines))
        self._ingestion.ingest_from_stream(stream, IngestionProperties(DB, table, data_format=DataFormat.JSON))
        wait_until(
            f"{len(lines)} rows are in {table}",
            lambda: int(self.query(f"{table} | count")[0]["Count"]) == len(lines),
            LANDS_WITHIN_S,
        )
