"""`docs/audit.kql` as somebody pastes it: which offsets of a table are missing, and which are repeated."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder

from tests.conftest import Adx

ROOT = Path(__file__).resolve().parents[2]


class Tables:
    """A database with Flights, DeadLetters and the function."""

    def __init__(self, engine: str) -> None:
        self._client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(engine))
        self._db = f"audit{uuid.uuid4().hex[:12]}"
        self._client.execute_mgmt("db", f".create database {self._db}")
        for command in (
            ".create table Flights (n: long, kafka: dynamic)",
            ".create table DeadLetters (topic: string, partition: int, offset: long, reason: string)",
            (ROOT / "docs" / "audit.kql").read_text(),
        ):
            self._client.execute_mgmt(self._db, command)

    def rows(self, *offsets: int, topic: str = "flights", partition: int = 0) -> None:
        kafka = [json.dumps({"topic": topic, "partition": partition, "offset": n}) for n in offsets]
        lines = "\n".join(f'{n},"{text.replace(chr(34), chr(34) * 2)}"' for n, text in enumerate(kafka))
        self._client.execute_mgmt(self._db, f".ingest inline into table Flights <| {lines}")

    def letters(self, *offsets: int, partition: int = 0) -> None:
        lines = "\n".join(f"flights,{partition},{n},invalid_json" for n in offsets)
        self._client.execute_mgmt(self._db, f".ingest inline into table DeadLetters <| {lines}")

    def audit(self, *arguments: str) -> list[tuple[Any, ...]]:
        call = ", ".join(("'flights'", *arguments))
        table = self._client.execute_query(self._db, f"FlightsAudit({call})").primary_results[0]
        assert [column.column_name for column in table.columns] == [
            *("what", "topic", "partition", "first_offset", "next_offset", "offsets")
        ]
        return [tuple(row.to_list())[:1] + tuple(row.to_list())[2:] for row in table]


@pytest.fixture
def tables(adx: Adx) -> Tables:
    return Tables(adx.engine)


def test_a_table_that_is_whole_lists_nothing(tables: Tables) -> None:
    tables.rows(*range(5, 20))
    tables.rows(*range(3), partition=1)

    assert tables.audit() == []


def test_what_is_missing_and_what_is_repeated_are_ranges(tables: Tables) -> None:
    tables.rows(0, 1, 2, 5, 5, 6, 6, 6, 7, 9, 11)
    tables.rows(4, 4, partition=3)
    tables.rows(0, 100, topic="weather")

    assert tables.audit() == [
        ("missing", 0, 3, 5, 2),
        ("repeated", 0, 5, 7, 2),
        ("missing", 0, 8, 9, 1),
        ("missing", 0, 10, 11, 1),
        ("repeated", 3, 4, 5, 1),
    ]


def test_a_dead_letter_is_not_missing_and_one_that_is_a_row_too_is_repeated(tables: Tables) -> None:
    tables.rows(0, 1, 4)
    tables.letters(2, 3, 4)

    assert tables.audit() == [("repeated", 0, 4, 5, 1)]


def test_a_part_of_the_offsets_can_be_asked_about(tables: Tables) -> None:
    tables.rows(0, 2, 4, 6, 8)

    assert tables.audit("3", "7") == [("missing", 0, 5, 6, 1)]


def test_many_ranges_are_paired_by_number_and_not_by_text(tables: Tables) -> None:
    """9 comes before 10, and 99 before 100."""
    chance = random.Random(5)
    there = [n for n in range(300) for _ in range(chance.choice((0, 1, 1, 2)))]
    tables.rows(*there)

    def spread(what: str) -> set[int]:
        return {n for row in tables.audit() if row[0] == what for n in range(row[2], row[3])}

    times = Counter(there)
    assert spread("missing") == set(range(min(there), max(there))) - set(there)
    assert spread("repeated") == {n for n, count in times.items() if count > 1}
