"""ADX refuses what it had accepted: it is found in the queue of failed ingestions, and nobody has to help."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from azure.kusto.data import KustoConnectionStringBuilder
from azure.kusto.ingest import QueuedIngestClient
from azure.storage.queue import QueueClient, QueueSasPermissions, QueueServiceClient, generate_queue_sas

from localrunner.azurite import ACCOUNT, KEY
from localrunner.processes import wait_until
from sinkcore.clients import App
from sinkcore.errors import TransientError
from sinkcore.failures import AdxFailures
from tests.conftest import Adx
from tests.end_to_end.place import LANDS_WITHIN_S, LATER_S, Place, flights, once
from tests.support.events import Sent
from tests.support.proxy import Fault, FaultProxy

RECORDS = [*flights(0, 1), Sent(b"broken", 2), *flights(3)]
ROWS = once(0, 1, 3)
MAPPING = json.dumps([{"column": "n", "path": "$.n"}, {"column": "_kafka", "path": "$._kafka"}])


@dataclass
class Swept:
    """A place with one worker's app, and time that passes between its sweeps."""

    place: Place
    ahead: FaultProxy
    app: App

    def reported(self) -> list[dict[str, Any]]:
        """The failures of this place's blobs that are in ADX's queue."""
        found = []
        for message in self.place.queue("FailedIngestionsQueue").peek_messages(32):
            try:
                body = json.loads(base64.b64decode(message.content))
            except ValueError:
                continue
            if f"staging-{self.place.name}/" in str(body.get("IngestionSourcePath")):
                found.append(body)
        return found

    def refused(self, code: str) -> None:
        """ADX has reported the code, and a sweep has met the message."""
        wait_until(f"ADX reports {code}", lambda: bool(self.reported()), LANDS_WITHIN_S)
        (report,) = self.reported()
        assert report["ErrorCode"] == code
        self.app.sweep()
        assert report not in self.reported()

    def sweep(self, times: int = 1) -> None:
        """Sweeps, an hour apart by the service's clock."""
        for _ in range(times):
            self.ahead.ahead_s += LATER_S
            self.app.sweep()

    def lands(self, at_least: int) -> None:
        """A sweep queues what it can, its rows land, and a later one sees them."""
        self.sweep()
        wait_until("the rows land", lambda: self.place.row_count() >= at_least, LANDS_WITHIN_S)
        self.sweep()


@pytest.fixture
def bare(azurite: str, adx: Adx) -> Place:
    """A topic without a table in ADX."""
    return Place(azurite, adx.dm, adx.engine)


def swept(place: Place, ahead: FaultProxy, **values: str) -> Swept:
    return Swept(place, ahead, place.through(table=ahead).app(**values))


def test_a_missing_table_is_waited_for_and_the_rows_are_there_once(bare: Place, table_proxy: FaultProxy) -> None:
    """Nobody does anything but create it."""
    run = swept(bare, table_proxy)
    bare.deliver(run.app, RECORDS)
    run.refused("BadRequest_TableNotExist")
    run.sweep(2)
    assert bare.states == ["failed"]
    assert bare.nothing_is_queued()

    bare.make_table()
    run.lands(3)

    assert bare.landed_offsets(3) == ROWS
    assert bare.states == ["landed"]
    assert len(bare.dead_letters()) == 1


def test_a_missing_mapping_is_waited_for_and_the_rows_are_there_once(
    place: Place, table_proxy: FaultProxy
) -> None:
    place.route["mapping"] = "m"
    run = swept(place, table_proxy)
    place.deliver(run.app, RECORDS)
    run.refused("BadRequest_MappingReferenceWasNotFound")
    run.sweep(2)
    assert place.states == ["failed"]

    place.command(f".create table {place.table} ingestion json mapping 'm' '{MAPPING}'")
    run.lands(3)

    assert place.landed_offsets(3) == ROWS
    assert place.states == ["landed"]


class Damages:
    """Containers whose next `times` blobs of rows arrive cut short."""

    def __init__(self, inner: Any, times: int) -> None:
        self.inner, self.left = inner, times

    def put(self, container: str, path: str, data: bytes) -> None:
        if container.startswith("staging") and path.endswith(".json.gz") and self.left:
            self.left -= 1
            data = data[: len(data) // 2]
        self.inner.put(container, path, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def damage(run: Swept, times: int) -> None:
    run.app.sink.blobs = run.app.sweeper.sink.blobs = Damages(run.app.sink.blobs, times)


def test_a_damaged_blob_is_made_again_from_kafka(place: Place, table_proxy: FaultProxy) -> None:
    run = swept(place, table_proxy)
    damage(run, 1)
    place.deliver(run.app, RECORDS)
    run.refused("BadRequest_InvalidBlob")

    run.lands(3)

    assert place.landed_offsets(3) == ROWS
    assert [(letter["offset"], letter["reason"]) for letter in place.dead_letters()] == [(2, "invalid_json")]
    assert place.states == ["landed"]
    assert [blob.state for blob in place.segment.blobs] == ["mended", "queued", "queued"]


def test_data_that_adx_refuses_twice_are_dead_letters(place: Place, table_proxy: FaultProxy) -> None:
    run = swept(place, table_proxy)
    damage(run, 2)
    place.deliver(run.app, RECORDS)
    run.refused("BadRequest_InvalidBlob")
    run.refused("BadRequest_InvalidBlob")
    run.sweep(2)

    assert place.row_count() == 0
    letters = {letter["offset"]: letter for letter in place.dead_letters()}
    assert len(letters) == len(place.dead_letters()) == 4
    assert {n: letter["reason"] for n, letter in letters.items() if n != 2} == dict.fromkeys(
        (0, 1, 3), "refused_by_adx"
    )
    assert {letters[n]["detail"] for n in (0, 1, 3)} == {"BadRequest_InvalidBlob"}
    assert (letters[3]["value"], letters[3]["key"]) == (b'{"n": 3}', b"EWR")
    assert list(place.ledger.open_segments()) == []


class Locks:
    """Containers whose next URL for ADX has a signature that storage refuses."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.left = inner, 1

    def url_for_adx(self, container: str, path: str) -> str:
        url: str = self.inner.url_for_adx(container, path)
        if not self.left:
            return url
        self.left -= 1
        return url.replace("sig=", "sig=AAAA")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_blob_that_adx_could_not_read_is_queued_again_with_a_new_url(
    place: Place, table_proxy: FaultProxy
) -> None:
    """A signature lives for three days, and ADX may be behind by more."""
    run = swept(place, table_proxy)
    run.app.sink.blobs = Locks(run.app.sink.blobs)
    place.deliver(run.app, RECORDS)
    run.refused("Download_Forbidden")
    assert [blob.state for blob in place.segment.blobs] == ["again", "queued"]

    run.lands(3)

    assert place.landed_offsets(3) == ROWS
    assert place.states == ["landed"]


def test_what_adx_says_to_try_again_is_queued_again(place: Place, table_proxy: FaultProxy) -> None:
    fault = {"do": "fail_blob", "code": "General_InternalServerError", "table": place.table}
    requests.post(f"{place.dm}/local/faults", json=fault, timeout=10).raise_for_status()
    run = swept(place, table_proxy)
    place.deliver(run.app, RECORDS)
    run.refused("General_InternalServerError")
    run.app.sweep()
    assert place.nothing_is_queued(), "it rests for a minute"

    run.lands(3)

    assert place.landed_offsets(3) == ROWS
    assert place.states == ["landed"]


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        ("n: long, _kafka: dynamic", None),
        ("n: long, meta: dynamic", {"n": "$.n", "meta": "$._kafka"}),
        ("n: long, part: string", {"n": "$.n", "part": "$['_kafka'].segment"}),
    ],
    ids=["identity", "the whole field", "the segment alone"],
)
def test_a_segment_has_landed_once_its_rows_are_in_the_table(
    columns: str, mapping: dict[str, str] | None, bare: Place, table_proxy: FaultProxy
) -> None:
    bare.make_table(columns)
    if mapping is not None:
        text = json.dumps([{"column": column, "path": path} for column, path in mapping.items()]).replace(
            "'", "\\'"
        )
        bare.command(f".create table {bare.table} ingestion json mapping 'm' '{text}'")
        bare.route["mapping"] = "m"
    run = swept(bare, table_proxy)
    bare.deliver(run.app, flights(0, 1))
    bare.deliver(run.app, flights(2, 3))
    run.app.sweep()
    assert bare.states == ["queued", "queued"]

    wait_until("the rows land", lambda: bare.row_count() >= 4, LANDS_WITHIN_S)
    run.sweep()

    assert bare.states == ["landed", "landed"]
    assert list(bare.ledger.open_segments()) == []


def test_a_table_that_drops_the_metadata_leaves_its_segments_queued(
    bare: Place, table_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    bare.make_table("n: long")
    run = swept(bare, table_proxy)
    bare.deliver(run.app, flights(0, 1))
    run.sweep()

    assert bare.states == ["queued"]
    assert list(bare.ledger.open_segments()) == []
    assert [r.getMessage().partition(" ")[0] for r in caplog.records if "impossible" in r.getMessage()] == [
        "confirmation_impossible"
    ]


@dataclass
class Failures:
    """A queue of failed ingestions of its own, and what the app's client makes of it."""

    queue: QueueClient
    client: AdxFailures

    def count(self) -> int:
        """The messages that are there, hidden ones too."""
        return int(self.queue.get_queue_properties().approximate_message_count or 0)


@pytest.fixture
def failures(azurite: str, adx: Adx, dm_proxy: FaultProxy) -> Iterator[Failures]:
    service = QueueServiceClient.from_connection_string(azurite)
    queue = service.create_queue(f"failures-{uuid.uuid4().hex[:12]}")
    sas = generate_queue_sas(
        ACCOUNT,
        queue.queue_name,
        account_key=KEY,
        permission=QueueSasPermissions(read=True, process=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )

    def instead(reply: bytes) -> bytes:
        answer = json.loads(reply)
        for row in answer["Tables"][0]["Rows"]:
            if row[0] == "FailedIngestionsQueue":
                row[1] = f"{queue.url}?{sas}"
        return json.dumps(answer).encode()

    dm_proxy.faults = [Fault("/v1/rest/mgmt", b"ingestion resources", edit=instead)]
    kcsb = KustoConnectionStringBuilder.with_no_authentication(dm_proxy.url)
    yield Failures(queue, AdxFailures(lambda: QueuedIngestClient(kcsb)))
    queue.delete_queue()


def test_messages_are_received_by_so_many_hidden_and_deleted_one_by_one(failures: Failures) -> None:
    for n in range(70):
        failures.queue.send_message(base64.b64encode(json.dumps({"ErrorCode": f"E{n}"}).encode()).decode())

    found = failures.client.receive(64)
    rest = failures.client.receive(64)

    assert (len(found), len(rest)) == (64, 6)
    assert failures.client.receive(64) == [], "hidden from everybody for half a minute"
    failures.client.delete(found[0])
    failures.client.delete(found[0])
    assert failures.count() == 69


def test_messages_that_cannot_be_read_are_received_as_nobodys_and_stay(failures: Failures, place: Place) -> None:
    """One of them must not keep the others from being read."""
    texts = ["no base64!", base64.b64encode(b"no JSON").decode(), base64.b64encode(b"[1]").decode(), "e30="]
    foreign = {"IngestionSourcePath": "https://somebody.blob.core.windows.net/c/b.csv", "ErrorCode": "Forbidden"}
    texts.append(base64.b64encode(json.dumps(foreign).encode()).decode())
    for text in texts:
        failures.queue.send_message(text)
    app = place.app()
    app.sweeper.failures = failures.client
    place.deliver(app, flights(0))
    app.sweep()

    assert failures.count() == len(texts)


def test_a_queue_that_cannot_be_read_is_a_transient_error(failures: Failures, dm_proxy: FaultProxy) -> None:
    failures.client.receive(1)
    failures.queue.delete_queue()
    with pytest.raises(TransientError, match="KUSTO_INGESTION_URL"):
        failures.client.receive(1)
    failures.queue.create_queue()
    dm_proxy.faults = [Fault("/v1/rest/mgmt", status=503)]
    broken = AdxFailures(
        lambda: QueuedIngestClient(KustoConnectionStringBuilder.with_no_authentication(dm_proxy.url))
    )
    with pytest.raises(TransientError):
        broken.receive(1)
