"""A killed double loses nothing and goes on where it was."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.storage.queue import QueueServiceClient

from localrunner.adx.faults import POINTS
from tests.adx.support import PATIENCE_S, Double, wait_for


@pytest.fixture(scope="module")
def mortal(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    """A double that the tests of this file kill and start again."""
    own = Double(tmp_path_factory.mktemp("mortal"), azurite, time_scale=0.001)
    own.start()
    try:
        yield own
    finally:
        own.stop()


def waiting(double: Double) -> int:
    """Messages in its ingestion queue, seen or unseen."""
    manager = double.ingestion._resource_manager
    (queue,) = manager.get_ingestion_queues()
    name = queue.object_name.rpartition("/")[2]
    properties = QueueServiceClient.from_connection_string(double.storage).get_queue_client(name)
    return properties.get_queue_properties().approximate_message_count or 0


def test_tables_rows_mappings_policies_and_batches_survive_a_kill(mortal: Double) -> None:
    """Everything that a command or a batch has changed is on disk once the reply or the row is seen."""
    table = mortal.table("n: long, d: dynamic")
    mortal.command(f'.create table {table} ingestion json mapping "M" \'[{{"column": "n", "path": "$.x"}}]\'')
    mortal.command(f".alter table {table} policy ingestionbatching '{{\"MaximumNumberOfItems\": 7}}'")
    mortal.command(f".alter-merge table {table} (later: string)")
    assert mortal.ingest(table, b'{"x": 1}', ingestion_mapping_reference="M", ingest_by_tags=["a"]) == "Succeeded"
    before = (mortal.batches(table), mortal.command(f".show table {table} extents"))

    mortal.kill()
    mortal.start()

    assert mortal.query(table) == [[1, None, ""]]
    assert (mortal.batches(table), mortal.command(f".show table {table} extents")) == before
    assert mortal.command(f".show table {table} cslschema")[0]["Schema"] == "n:long, d:dynamic, later:string"
    assert [row["Name"] for row in mortal.command(f".show table {table} ingestion mappings")] == ["M"]
    assert (
        '"MaximumNumberOfItems": 7' in mortal.command(f".show table {table} policy ingestionbatching")[0]["Policy"]
    )


def test_blobs_whose_batch_was_open_at_the_kill_are_ingested_after_it(mortal: Double) -> None:
    """Messages stay in the queue until rows and record are committed, so an open batch is no loss."""
    table = mortal.table("n: long")
    mortal.command(f'.alter table {table} policy ingestionbatching \'{{"MaximumBatchingTimeSpan": "00:30:00"}}\'')
    for n in range(5):
        mortal.queue_blob(mortal.upload(b'{"n": %d}' % n), mortal.properties(table, flush_immediately=False), 8)
    assert mortal.count(table) == 0

    mortal.kill()
    mortal.start()
    mortal.command(f".delete table {table} policy ingestionbatching")

    wait_for("all rows are in the table", lambda: mortal.count(table) == 5)
    assert sorted(mortal.query(table)) == [[n] for n in range(5)]
    wait_for("the queue is empty", lambda: waiting(mortal) == 0)


def test_kills_at_any_moment_of_ingestion_lose_nothing(mortal: Double) -> None:
    """Killed again and again while it ingests: every row is there, and a tagged blob exactly once."""
    table, tagged = mortal.table("n: long"), mortal.table("n: long")
    for n in range(60):
        mortal.queue_blob(
            mortal.upload(b'{"n": %d}' % n), mortal.properties(table, flush_immediately=n % 7 == 0), 8
        )
    for n in range(12):
        once = mortal.properties(tagged, ingest_by_tags=[f"b{n}"], ingest_if_not_exists=[f"b{n}"])
        mortal.queue_blob(mortal.upload(b'{"n": %d}' % n), once, 8)

    for kills in range(1, 4):
        # Not before something was ingested since the last one, so that each kill meets work in hand.
        wait_for("ingestion goes on", functools.partial(_rows_or_done, mortal, table, tagged, kills * 8))
        mortal.kill()
        mortal.start()

    wait_for("every row arrived", lambda: mortal.query(f"{table} | summarize dcount(n)")[0][0] == 60)
    wait_for("every tagged row arrived", lambda: mortal.count(tagged) >= 12)
    wait_for("the queue is empty", lambda: waiting(mortal) == 0)
    assert sorted(mortal.query(tagged)) == [[n] for n in range(12)]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_of_a_batch_repeats_at_most_and_loses_nothing(mortal: Double, point: str) -> None:
    """Rows and seal record are one transaction, and messages go after it; a tag makes the repetition harmless."""
    plain, tagged = mortal.table("n: long"), mortal.table("n: long")
    requests.post(f"{mortal.dm}/local/faults", json={"do": "kill", "at": point, "table": tagged}, timeout=10)
    once: dict[str, Any] = {"ingest_by_tags": ["a"], "ingest_if_not_exists": ["a"]}
    assert mortal.child is not None
    process = mortal.child.process

    mortal.queue_blob(mortal.upload(b'{"n": 1}'), mortal.properties(tagged, **once), 8)
    process.wait(timeout=PATIENCE_S)
    mortal.start()
    mortal.queue_blob(mortal.upload(b'{"n": 1}'), mortal.properties(plain), 8)

    wait_for("both rows are there", lambda: mortal.count(plain) == mortal.count(tagged) == 1)
    wait_for("the queue is empty", lambda: waiting(mortal) == 0)
    assert mortal.count(tagged) == 1
    done_before = point in ("after_rows", "after_seal_record", "after_delete")
    outcomes = [batch["outcome"] for batch in mortal.batches(tagged)]
    assert outcomes == (["succeeded"] if done_before else ["succeeded", "skipped"])


def repeats(double: Double) -> dict[str, int]:
    found: dict[str, int] = requests.get(f"{double.dm}/local/repeats", timeout=10).json()["repeats"]
    return found


def test_rows_that_a_killed_double_repeated_are_told_from_those_that_were_sent_twice(mortal: Double) -> None:
    """Whoever proves that a client sends nothing twice must not be blamed for what ADX itself repeats."""
    killed, sent_twice = mortal.table("n: long"), mortal.table("n: long")
    fault = {"do": "kill", "at": "after_commit", "table": killed}
    requests.post(f"{mortal.dm}/local/faults", json=fault, timeout=10)
    assert mortal.child is not None
    process = mortal.child.process

    mortal.queue_blob(path := mortal.upload(b'{"n": 1}'), mortal.properties(killed), 8)
    process.wait(timeout=PATIENCE_S)
    mortal.start()
    twice = mortal.upload(b'{"n": 1}')
    for rows in (1, 2):
        mortal.queue_blob(twice, mortal.properties(sent_twice), 8)
        wait_for("the rows are there", functools.partial(_rows_or_done, mortal, sent_twice, sent_twice, rows))

    wait_for("the killed double's rows are repeated", lambda: mortal.count(killed) == 2)
    found = repeats(mortal)
    assert found[path.partition("?")[0]] == 1
    assert twice.partition("?")[0] not in found


def test_rows_without_a_tag_are_repeated_after_a_kill_behind_the_commit(mortal: Double) -> None:
    """As in ADX: a message is delivered at least once."""
    table = mortal.table("n: long")
    fault = {"do": "kill", "at": "before_delete", "table": table}
    requests.post(f"{mortal.dm}/local/faults", json=fault, timeout=10)
    assert mortal.child is not None
    process = mortal.child.process

    mortal.queue_blob(mortal.upload(b'{"n": 1}'), mortal.properties(table), 8)
    process.wait(timeout=PATIENCE_S)
    mortal.start()

    wait_for("the row is there twice", lambda: mortal.count(table) == 2)


def _rows_or_done(double: Double, table: str, tagged: str, rows: int) -> bool:
    return double.count(table) + double.count(tagged) > rows or waiting(double) == 0


def test_a_message_that_waits_longer_than_its_lease_is_ingested_once(azurite: str, tmp_path: Path) -> None:
    """It comes out of the queue again while its batch is open: the same message, not the same blob twice."""
    slow = Double(tmp_path, azurite, time_scale=0.002)
    slow.start()
    try:
        table = slow.table("n: long")
        slow.command(
            f'.alter table {table} policy ingestionbatching \'{{"MaximumBatchingTimeSpan": "00:30:00"}}\''
        )
        source = slow.queue_blob(slow.upload(b'{"n": 1}'), slow.properties(table, flush_immediately=False), 8)

        assert slow.outcome(source) == "Succeeded"

        assert slow.count(table) == 1
        assert [(batch["blobs"], batch["seal_reason"]) for batch in slow.batches(table)] == [(1, "Time")]
        assert slow.command(".show ingestion failures") == []
    finally:
        slow.stop()


def test_a_second_double_on_the_same_directory_is_refused(mortal: Double) -> None:
    """Two writers of one file would corrupt it; the reason is on the screen."""
    second = Double(mortal.directory, mortal.storage)

    with pytest.raises(Exception, match="cannot be opened"):
        second.start()


def test_two_doubles_on_one_storage_account_do_not_take_each_other_s_messages(
    double: Double, mortal: Double
) -> None:
    """Queues belong to a data directory."""
    here, there = double.table("n: long"), mortal.table("n: long")

    assert double.ingest(here, b'{"n": 1}') == "Succeeded"
    assert mortal.ingest(there, b'{"n": 2}') == "Succeeded"
    assert double.batches(there) == mortal.batches(here) == []
