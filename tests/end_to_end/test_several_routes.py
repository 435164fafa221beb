"""One topic for several tables, databases and formats, on the whole stack, whose worker is killed on the way."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from localrunner.demo.kusto import DB, METADATA
from localrunner.processes import wait_until
from tests.end_to_end.whole import ANSWER_S, Topic, Whole, running

PARTITIONS = 2
ROUNDS = 40
OTHER_DB = "other"
JSON: dict[str, Any] = {"db": DB, "mapping": "m", "metadata": METADATA}
CSV: dict[str, Any] = {"db": DB, "format": "csv", "metadata": METADATA}
ROUTES: list[dict[str, Any]] = [
    {**JSON, "table": "Orders", "when": {"header": "type", "equals": "order"}},
    {**JSON, "table": "Refunds", "db": OTHER_DB, "when": {"field": "what.kind", "equals": "refund"}},
    {
        "db": DB,
        "table": "Lines",
        "format": "csv",
        "metadata": METADATA,
        "when": {"header": "type", "equals": "csv"},
    },
    {
        **JSON,
        "table": "Site_{field:site}",
        "tables": ["Site_EWR", "Site_7"],
        "when": {"header": "type", "equals": "site"},
    },
]
CSV_COLUMNS = (
    "topic: string, partition: int, offset: long, timestamp: datetime, segment: string, key: string, "
    "headers: dynamic, n: long"
)
# A value, the header `type`, and where the record ends.
KINDS: list[tuple[bytes, bytes | None, str]] = [
    (b'{"n": 1, "what": {"kind": "refund"}}', b"order", "db.Orders"),
    (b'{"n": 1, "what": {"kind": "refund"}}', None, "other.Refunds"),
    (b"1", b"csv", "db.Lines"),
    (b'{"n": 1, "site": "EWR"}', b"site", "db.Site_EWR"),
    (b'{"n": 1, "site": 7}', b"site", "db.Site_7"),
    (b'{"n": 1, "site": "JFK"}', b"site", "table_not_allowed"),
    (b'{"n": 1, "what": null}', b"other", "no_route"),
    (b'{"n": 1', b"other", "invalid_json"),
]
TABLES = {end for _, _, end in KINDS if "." in end}
IN_METADATA = "partition = toint(kafka.partition), offset = tolong(kafka.offset)"


def places(whole: Whole) -> Counter[tuple[str, int, int]]:
    """How often each record is where, by partition and offset."""
    found = Counter[tuple[str, int, int]]()
    for each in TABLES:
        db, table = each.split(".")
        where = "partition, offset" if table == "Lines" else IN_METADATA
        rows = whole.query(f"{table} | project {where}", db)
        found.update((each, row["partition"], row["offset"]) for row in rows)
    found.update(
        (row["reason"], row["partition"], row["offset"])
        for row in whole.query("DeadLetters | project reason, partition, offset")
    )
    return found


def test_every_record_is_in_the_one_table_or_dead_letter_that_its_routes_say(kafka: str, tmp_path: Path) -> None:
    topic = Topic(f"routed-{uuid.uuid4().hex}", "Orders", PARTITIONS)
    routes = [{"topic": topic.name, **route} for route in ROUTES]
    expected = Counter[tuple[str, int, int]]()
    with running(kafka, [topic], tmp_path, hosts=1, routes=routes) as whole:
        for each in TABLES - {"db.Orders"}:
            db, table = each.split(".")
            whole.make_table(table, db, *([CSV_COLUMNS] if table == "Lines" else []))
        for round_ in range(ROUNDS):
            for partition in range(PARTITIONS):
                for value, type_, end in KINDS:
                    headers = [] if type_ is None else [("type", type_)]
                    offset = whole.send(topic, partition, value, headers=headers)
                    expected[end, partition, offset] += 1
            if round_ == ROUNDS // 2:
                wait_until("rows land", lambda: whole.row_count() > 0, ANSWER_S)
                whole.stack.wait_restarted("worker-0", whole.stack.kill("worker-0"), ANSWER_S)

        whole.finish()
        whole.storage.ingest_dead_letters(whole.stack.addresses["dm"])
        wait_until("everything has landed", lambda: places(whole).total() >= whole.sent, ANSWER_S)

        assert places(whole) == expected
        segments = whole.query("Orders | summarize segments = dcount(tostring(kafka.segment))")[0]["segments"]
        stored = whole.storage.stored()
        assert stored.blobs <= len(TABLES) * (segments + 2), "a blob for each table, not for each partition"
        letters = whole.query("DeadLetters | where reason == 'table_not_allowed'")
        assert {letter["table"] for letter in letters} == {"Site_{field:site}"}
