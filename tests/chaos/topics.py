"""The topics of a run, and their tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from localrunner.demo.kusto import BATCHING, DB, METADATA

Kind = Literal["plain", "transactional", "compacted"]
PARTITIONS = 4
ANSWER_S = 20.0
# In place of a record's number, where the record is no JSON.
BROKEN = -1
MAPPING = [{"column": "n", "Properties": {"Path": "$.n"}}, {"column": "kafka", "Properties": {"Path": "$._kafka"}}]
# Segments of a log are closed every few seconds, and cleaned as soon as the cleaner comes by.
COMPACTION = {
    "cleanup.policy": "compact",
    "segment.ms": "4000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "1000",
}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, what it is like, and the table into which its records go."""

    name: str
    kind: Kind
    table: str

    @property
    def route(self) -> dict[str, str]:
        """Its entry in SINK_TOPICS_MAPPING."""
        return {"topic": self.name, "db": DB, "table": self.table, "mapping": "m", "metadata": METADATA}

    @property
    def commands(self) -> list[str]:
        """What makes its table in ADX."""
        return [
            f".create table {self.table} (n: long, kafka: dynamic)",
            f".alter table {self.table} policy ingestionbatching @'{BATCHING}'",
            f".create table {self.table} ingestion json mapping 'm' '{json.dumps(MAPPING)}'",
        ]


TOPICS = [
    Topic("plain", "plain", "Plain"),
    Topic("transactional", "transactional", "Transactional"),
    Topic("compacted", "compacted", "Compacted"),
]


def set_compaction(brokers: str) -> None:
    """The compacted topic is one: the stack has made it like any other."""
    from confluent_kafka import admin

    made: Any = admin  # these names are not in its list
    entries = [
        made.ConfigEntry(name, value, incremental_operation=made.AlterConfigOpType.SET)
        for name, value in COMPACTION.items()
    ]
    resource = made.ConfigResource(made.ResourceType.TOPIC, "compacted", incremental_configs=entries)
    client = made.AdminClient({"bootstrap.servers": brokers})  # with it gone, its futures fail
    for future in client.incremental_alter_configs([resource]).values():
        future.result(ANSWER_S)
