"""When blobs are sealed into a batch, alone or together."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from localrunner.adx.batching import Batches
from localrunner.adx.errors import IngestionError
from localrunner.adx.messages import Request, decode
from localrunner.adx.policy import BatchingPolicy
from tests.adx.support import Double, wait_for

START = datetime(2026, 1, 1)
MB = 1024 * 1024


def a_request(blob: str, size: int = 1, **properties: Any) -> Request:
    body = {"BlobPath": f"http://a/{blob}?sig=s", "DatabaseName": "db", "TableName": "T", "RawDataSize": size}
    body |= {"FlushImmediately": properties.pop("flush", False)}
    body |= {"AdditionalProperties": {"format": "json", **properties}}
    return decode(base64.b64encode(json.dumps(body).encode()).decode(), blob)


def batches(policy: BatchingPolicy, time_scale: float = 1.0) -> Batches:
    return Batches(lambda _database, _table: policy, time_scale)


def test_a_batch_is_sealed_when_its_time_is_over_counted_from_its_first_blob() -> None:
    """Later blobs do not make it younger; the span is scaled."""
    open_batches = batches(BatchingPolicy(time_s=30), time_scale=0.1)
    assert open_batches.add(a_request("1"), START) == []
    assert open_batches.add(a_request("2"), START + timedelta(seconds=2)) == []

    assert open_batches.due(START + timedelta(seconds=2.9)) == []
    (sealed,) = open_batches.due(START + timedelta(seconds=3))

    assert sealed.reason == "Time"
    assert [request.path for request in sealed.requests] == ["http://a/1", "http://a/2"]
    assert open_batches.due(START + timedelta(days=1)) == []


def test_a_batch_is_sealed_by_count_and_by_size() -> None:
    """Size reached or exceeded, in MB of uncompressed bytes."""
    by_count = batches(BatchingPolicy(items=2))
    assert by_count.add(a_request("1"), START) == []
    assert [s.reason for s in by_count.add(a_request("2"), START)] == ["Count"]

    by_size = batches(BatchingPolicy(size_mb=100))
    assert by_size.add(a_request("1", size=100 * MB - 1), START) == []
    assert [s.reason for s in by_size.add(a_request("2", size=1), START)] == ["Size"]


def test_a_flush_seals_the_batch_that_the_blob_is_in() -> None:
    """What waited before it goes with it."""
    open_batches = batches(BatchingPolicy())
    open_batches.add(a_request("1"), START)

    (sealed,) = open_batches.add(a_request("2", flush=True), START)

    assert (sealed.reason, len(sealed.requests)) == ("FlushImmediately", 2)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"size": 0}, "SingleBlob_SizeUnknown"),
        ({"tags": '["ingest-by:a"]'}, "SingleBlob_IngestByTag"),
        ({"tags": '["ingest-by:a"]', "ingestIfNotExists": '["a"]'}, "SingleBlob_IngestIfNotExists"),
    ],
)
def test_some_blobs_are_sealed_alone(properties: dict[str, Any], reason: str) -> None:
    """Which is what makes tags and unknown sizes expensive."""
    open_batches = batches(BatchingPolicy())
    open_batches.add(a_request("1"), START)

    (sealed,) = open_batches.add(a_request("2", **properties), START)

    assert (sealed.reason, len(sealed.requests)) == (reason, 1)


def test_blobs_with_different_properties_do_not_share_a_batch() -> None:
    """A batch is one ingestion with one format, mapping and set of tags."""
    open_batches = batches(BatchingPolicy(items=2))
    assert open_batches.add(a_request("1"), START) == []
    assert open_batches.add(a_request("2", ingestionMappingReference="M"), START) == []
    assert open_batches.add(a_request("3", tags='["drop-by:x"]'), START) == []

    assert len(open_batches.due(START + timedelta(hours=1))) == 3


def test_the_same_blob_twice_in_one_batch_counts_once() -> None:
    """Whatever its SAS; in the next batch it is taken again, since ADX promises nothing across batches."""
    open_batches = batches(BatchingPolicy(items=2))
    open_batches.add(a_request("1"), START)

    with pytest.raises(IngestionError) as caught:
        open_batches.add(a_request("1"), START)

    assert caught.value.code == "BlobAlreadyReceived_BlobAlreadyFoundInBatch"
    assert [len(s.requests) for s in open_batches.due(START + timedelta(hours=1))] == [1]
    assert open_batches.add(a_request("1"), START) == []


@pytest.fixture(scope="module")
def patient(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    """A double whose longest batching time is three minutes, so that no batch is sealed by time by accident."""
    own = Double(tmp_path_factory.mktemp("patient"), azurite, time_scale=0.1)
    own.start()
    try:
        yield own
    finally:
        own.stop()


def alter(double: Double, what: str, **policy: object) -> None:
    text = json.dumps({"MaximumBatchingTimeSpan": "00:30:00", **policy})
    double.command(f".alter {what} policy ingestionbatching @'{text}'")


def queue_all(double: Double, table: str, *sizes: int, **more: Any) -> list[uuid.UUID]:
    """A blob of each stated size, in this order."""
    properties = double.properties(table, **{"flush_immediately": False, **more})
    return [double.queue_blob(double.upload(b'{"n": %d}' % n), properties, size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("policy", "sizes", "more", "reason"),
    [
        # A tenth of it, in which both blobs have to come.
        ({"MaximumBatchingTimeSpan": "00:00:40"}, [8, 8], {}, "Time"),
        ({"MaximumNumberOfItems": 3}, [8, 8, 8], {}, "Count"),
        ({"MaximumRawDataSizeMB": 100}, [60 * MB, 40 * MB], {}, "Size"),
        ({}, [8], {"flush_immediately": True}, "FlushImmediately"),
        ({}, [0], {}, "SingleBlob_SizeUnknown"),
        ({}, [8], {"ingest_by_tags": ["a"]}, "SingleBlob_IngestByTag"),
        ({}, [8], {"ingest_by_tags": ["a"], "ingest_if_not_exists": ["a"]}, "SingleBlob_IngestIfNotExists"),
    ],
)
def test_the_page_of_batches_says_why_each_was_sealed(
    patient: Double, policy: dict[str, object], sizes: list[int], more: dict[str, Any], reason: str
) -> None:
    """By Microsoft's client and the real queue; the blobs of a batch are one extent."""
    table = patient.table("n: long")
    alter(patient, f"table {table}", **policy)

    sources = queue_all(patient, table, *sizes, **more)

    assert [patient.outcome(source) for source in sources] == ["Succeeded"] * len(sizes)
    (batch,) = patient.batches(table)
    assert (batch["seal_reason"], batch["blobs"], batch["rows"], batch["raw_bytes"], batch["outcome"]) == (
        *(reason, len(sizes), len(sizes), sum(sizes)),
        "succeeded",
    )
    assert [extent["ExtentId"] for extent in patient.command(f".show table {table} extents")] == [
        batch["extent_id"]
    ]


def test_the_policy_of_the_table_wins_over_the_database_s_and_that_over_the_default(patient: Double) -> None:
    """batching-policy.md. With the default of 500 items both would wait for their time."""
    own, none = patient.table("n: long"), patient.table("n: long")
    alter(patient, "database Other", MaximumNumberOfItems=1)
    alter(patient, "database db", MaximumNumberOfItems=3)
    alter(patient, f"table {own}", MaximumNumberOfItems=2)
    try:
        for table, count in ((own, 2), (none, 3)):
            sources = queue_all(patient, table, *[8] * count)
            assert [patient.outcome(source) for source in sources] == ["Succeeded"] * count
        patient.command(f".delete table {own} policy ingestionbatching")
        sources = queue_all(patient, own, 8, 8, 8)
        assert [patient.outcome(source) for source in sources] == ["Succeeded"] * 3
    finally:
        patient.command(".delete database db policy ingestionbatching")

    assert [(batch["seal_reason"], batch["blobs"]) for batch in patient.batches(own)] == [
        ("Count", 2),
        ("Count", 3),
    ]
    assert [(batch["seal_reason"], batch["blobs"]) for batch in patient.batches(none)] == [("Count", 3)]


def test_a_blob_that_is_queued_twice_is_ingested_once_and_the_second_message_is_told(patient: Double) -> None:
    """error-codes.md: only one copy of the blob is used. Another SAS makes it no other blob."""
    table = patient.table("n: long")
    alter(patient, f"table {table}", MaximumNumberOfItems=2)
    properties = patient.properties(table, flush_immediately=False)
    name = f"{table}.json"
    urls = [patient.upload(b'{"n": 1}', name=name, life=timedelta(hours=hours)) for hours in (1, 2)]

    first, second = (patient.queue_blob(url, properties, 8) for url in urls)
    assert patient.outcome(second) == "BlobAlreadyReceived_BlobAlreadyFoundInBatch"
    last = patient.queue_blob(patient.upload(b'{"n": 2}'), properties, 8)

    assert [patient.outcome(source) for source in (first, last)] == ["Succeeded"] * 2
    assert sorted(patient.query(table)) == [[1], [2]]
    (batch,) = patient.batches(table)
    assert (batch["seal_reason"], batch["blobs"], batch["failed_blobs"]) == ("Count", 2, 0)


def test_a_batch_waits_for_its_time_and_no_longer(double: Double) -> None:
    """The shared double scales by 0.001, so that the default of five minutes is 0.3 s."""
    table = double.table("n: long")
    double.queue_blob(double.upload(b'{"n": 1}'), double.properties(table, flush_immediately=False), 8)

    wait_for("the row is in the table", lambda: double.count(table) == 1)

    (batch,) = double.batches(table)
    assert batch["seal_reason"] == "Time"
    assert batch["opened_at"] < batch["sealed_at"] <= batch["committed_at"]


def test_data_with_an_ingest_by_tag_is_taken_once(double: Double) -> None:
    """`ingestIfNotExists` skips a blob whose tag some extent of the table has; other tables do not matter."""
    table, other = double.table("n: long"), double.table("n: long")
    once: dict[str, Any] = {"ingest_by_tags": ["a"], "ingest_if_not_exists": ["a"], "drop_by_tags": ["b"]}

    for target in (table, table, other):
        assert double.ingest(target, b'{"n": 1}', **once) == "Succeeded"
    assert double.ingest(table, b'{"n": 2}', ingest_if_not_exists=["z"], ingest_by_tags=["z"]) == "Succeeded"

    assert sorted(double.query(table)) == [[1], [2]]
    assert double.count(other) == 1
    assert [batch["outcome"] for batch in double.batches(table)] == ["succeeded", "skipped", "succeeded"]
    tags = [extent["Tags"] for extent in double.command(f".show table {table} extents")]
    assert [set(text.split()) for text in tags] == [{"ingest-by:a", "drop-by:b"}, {"ingest-by:z"}]
