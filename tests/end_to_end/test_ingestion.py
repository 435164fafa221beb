"""What ADX is sent for a segment, read from the queue itself, and what becomes of it."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.queue import QueueClient, QueueSasPermissions, QueueServiceClient, generate_queue_sas

from localrunner.azurite import ACCOUNT, KEY
from localrunner.processes import wait_until
from sinkcore.errors import SinkError
from sinkcore.segment import Blob, source_id_of
from tests.end_to_end.place import LANDS_WITHIN_S, Place, flights, once
from tests.support.events import Sent
from tests.support.proxy import Fault, FaultProxy, blob_error


class Mailbox:
    """An ingestion queue that no ADX reads."""

    def __init__(self, azurite: str) -> None:
        service = QueueServiceClient.from_connection_string(azurite)
        self.client: QueueClient = service.create_queue(f"mailbox-{uuid.uuid4().hex[:12]}")

    def instead(self, reply: bytes) -> bytes:
        """The service's resources with this queue in the place of its own."""
        sas = generate_queue_sas(
            ACCOUNT,
            self.client.queue_name,
            account_key=KEY,
            permission=QueueSasPermissions(add=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        answer = json.loads(reply)
        for row in answer["Tables"][0]["Rows"]:
            if row[0] == "SecuredReadyForAggregationQueue":
                row[1] = f"{self.client.url}?{sas}"
        return json.dumps(answer).encode()

    def messages(self) -> list[dict[str, Any]]:
        """What has been sent, oldest first."""
        found = self.client.receive_messages(messages_per_page=32)
        return [json.loads(base64.b64decode(message.content)) for message in found]


@pytest.fixture
def mailbox(azurite: str, place: Place, dm_proxy: FaultProxy) -> Iterator[Mailbox]:
    """The queue to which everything of `place` goes."""
    found = Mailbox(azurite)
    dm_proxy.faults = [Fault("/v1/rest/mgmt", b"ingestion resources", edit=found.instead)]
    place.dm = dm_proxy.url
    yield found
    found.client.delete_queue()


def test_a_message_holds_all_that_adx_needs(place: Place, mailbox: Mailbox) -> None:
    """Failures are reported, so that somebody can be told; without an exact size ADX would batch nothing."""
    place.route["mapping"] = "m"
    place.deliver(place.app(), [*flights(0, 1), Sent(b'{"n": "\xc3\xa9"}', 2)])

    (message,) = mailbox.messages()
    (blob,) = place.segment.blobs
    body = urllib.request.urlopen(message["BlobPath"], timeout=10).read()  # noqa: S310 - a URL of ours
    assert message["RawDataSize"] == len(gzip.decompress(body)) == blob.raw_size_bytes
    assert (message["ReportLevel"], message["ReportMethod"]) == (0, 0), "failures only, to the queue"
    assert (message["DatabaseName"], message["TableName"]) == ("db", place.table)
    assert message["Id"] == blob.source_id == source_id_of(place.segment.id, 0)
    assert message["FlushImmediately"] is message["IgnoreSizeLimit"] is False
    properties = message["AdditionalProperties"]
    assert properties.pop("authorizationContext")
    assert properties == {"format": "json", "ingestionMappingReference": "m", "ingestionMappingType": "Json"}


def test_tags_of_one_message_are_not_in_the_next(place: Place, mailbox: Mailbox) -> None:
    """The client writes into the properties that it is given."""
    app = place.app(SINK_DELIVERY="exactly_once")
    for offset in range(3):
        place.deliver(app, flights(offset))

    tags = [
        (json.loads(message["AdditionalProperties"]["tags"]), message["AdditionalProperties"]["ingestIfNotExists"])
        for message in mailbox.messages()
    ]
    ids = [segment.blobs[0].source_id for segment in place.ledger.segments()]
    assert tags == [([f"ingest-by:{one}"], json.dumps([one])) for one in ids]


def test_without_exactly_once_no_tag_keeps_blobs_from_being_batched(place: Place, mailbox: Mailbox) -> None:
    place.deliver(place.app(), flights(0))

    (message,) = mailbox.messages()
    assert message["AdditionalProperties"].keys() == {"authorizationContext", "format"}


def test_the_size_is_the_ledgers_and_not_the_last_four_bytes_of_the_file(place: Place, mailbox: Mailbox) -> None:
    """Of a file of several members these tell the last one's size alone, and the client would go by them."""
    app = place.app()
    first, last = b"x" * 100_000, b"\n"
    data = gzip.compress(first) + gzip.compress(last)
    path = "several.json.gz"
    app.sink.blobs.put(app.sink.settings.staging_container, path, data)
    blob = Blob(
        "rows",
        app.sink.settings.staging_container,
        path,
        rows=1,
        raw_size_bytes=len(first + last),
        stored_size_bytes=len(data),
        db="db",
        table=place.table,
        format="json",
        source_id=str(uuid.uuid5(uuid.NAMESPACE_URL, path)),
    )

    app.sink.queue.queue(blob, app.sink.blobs.url_for_adx(blob.container, path), 10)

    (message,) = mailbox.messages()
    assert int.from_bytes(data[-4:], "little") == len(last)
    assert message["RawDataSize"] == 100_001


@pytest.mark.parametrize("identity", ["system", "1b671a64-40d5-491e-99b0-da01ff1f3341"])
def test_adx_reads_by_its_own_identity_where_it_is_told_so(place: Place, mailbox: Mailbox, identity: str) -> None:
    app = place.app(SINK_STAGED_BLOB_ACCESS=f"managed_identity={identity}")
    place.deliver(app, flights(0))

    (message,) = mailbox.messages()
    (blob,) = place.segment.blobs
    assert message["BlobPath"].endswith(f"/{blob.container}/{blob.path};managed_identity={identity}")
    assert "?" not in message["BlobPath"]


def test_what_is_staged_is_whole_though_the_first_attempt_failed(
    place: Place, mailbox: Mailbox, blob_proxy: FaultProxy
) -> None:
    """ADX's own client sends nothing at all the second time, and calls that a success."""
    blob_proxy.faults = [fault := blob_error(503, "ServerBusy", request=r"^PUT .*\.json\.gz", times=1)]
    place.deliver(place.through(blob=blob_proxy).app(), flights(*range(500)))

    (blob,) = place.segment.blobs
    data = place.blob(blob.container, blob.path)
    assert fault.met == 2
    assert len(data) == blob.stored_size_bytes
    assert [json.loads(line)["n"] for line in gzip.decompress(data).splitlines()] == list(range(500))


def test_a_body_that_is_sent_in_blocks_is_whole(
    place: Place, mailbox: Mailbox, blob_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large bodies must get through slow lines; the list of their blocks is what nobody may overwrite."""
    monkeypatch.setattr("sinkcore.clients.SINGLE_PUT_MAX_BYTES", 1000)
    lost = Fault(r"^PUT .*\.json\.gz\?comp=blocklist", when="after", times=1)
    blob_proxy.faults = [lost]
    place.deliver(place.through(blob=blob_proxy).app(), flights(*range(1500)))

    (blob,) = place.segment.blobs
    data = place.blob(blob.container, blob.path)
    assert lost.met == 2
    assert len(data) == blob.stored_size_bytes > 1000
    assert len(gzip.decompress(data).splitlines()) == 1500


def test_names_tell_their_segment_and_are_made_once(place: Place, mailbox: Mailbox) -> None:
    """Who meets a blob knows whose it is; one that is put twice is there once."""
    place.deliver(place.app(), [*flights(0), Sent(b"broken", 1)])

    segment = place.segment
    staged = {blob.path for blob in segment.blobs}
    names = {blob.name for blob in place.blobs.get_container_client(f"staging-{place.name}").list_blobs()}
    letters = {blob.name for blob in place.blobs.get_container_client(f"dead-{place.name}").list_blobs()}
    assert names == staged
    assert all(f"/{segment.id}/" in name for name in names)
    assert letters == {staged.pop().rpartition("/")[0] + ".jsonl.gz"}


def reported(place: Place, ids: set[str]) -> dict[str, str]:
    """The codes of the failures of these source ids, once all of them are in ADX's queue."""
    queue = place.queue("FailedIngestionsQueue")
    codes: dict[str, str] = {}

    def all_there() -> bool:
        # They are looked at and not taken, since the queue is everybody's.
        for message in queue.receive_messages(messages_per_page=32, visibility_timeout=1):
            body = json.loads(base64.b64decode(message.content))
            codes[body["IngestionSourceId"]] = body["ErrorCode"]
        return ids <= codes.keys()

    wait_until("failures are reported", all_there, LANDS_WITHIN_S)
    return {one: codes[one] for one in ids}


@pytest.mark.parametrize(
    ("route", "code"),
    [
        ({"table": "NeverMade"}, "BadRequest_TableNotExist"),
        ({"mapping": "NeverMade"}, "BadRequest_MappingReferenceWasNotFound"),
        ({"db": "never_made"}, "BadRequest_DatabaseNotExist"),
    ],
)
def test_a_missing_table_or_mapping_does_not_stop_the_app_and_is_reported(
    place: Place, route: dict[str, str], code: str
) -> None:
    place.route |= route
    app = place.app()

    place.deliver(app, flights(0))
    place.deliver(app, flights(1))

    ids = {segment.blobs[0].source_id for segment in place.ledger.segments()}
    assert place.ledger_offsets() == once(0, 1)
    assert reported(place, ids) == dict.fromkeys(ids, code)
    app.sweep()


@pytest.mark.parametrize(("delivery", "times"), [("exactly_once", 1), ("effectively_once", 2)])
def test_a_blob_that_is_queued_twice_gives_its_rows_once_under_its_tag(
    place: Place, delivery: str, times: int
) -> None:
    """Without the tag ADX takes the second message for more of the same, which is why it is asked first."""
    app = place.app(SINK_DELIVERY=delivery)
    place.deliver(app, flights(0, 1))
    assert place.landed_offsets(2) == once(0, 1)
    (blob,) = place.segment.blobs

    app.sink.queue.queue(blob, app.sink.blobs.url_for_adx(blob.container, blob.path), 10)

    assert place.landed_offsets(2 * times) == Counter(once(0, 1) | dict.fromkeys(once(0, 1), times))


def test_two_hosts_that_start_at_once_on_an_empty_ledger_take_each_record_once(
    place: Place, table_proxy: FaultProxy
) -> None:
    """Neither finds a table, a container, a topic or a position, and both make them."""
    records = [*flights(*range(50)), *flights(*range(50), partition=1)]
    start = threading.Barrier(3)
    errors: list[BaseException] = []

    def host() -> None:
        start.wait()
        try:
            place.deliver(place.app(), records)
        except SinkError as error:
            errors.append(error)

    threads = [threading.Thread(target=host) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) < len(threads)
    place.settle(table_proxy)

    expected = once(*range(50)) | once(*range(50), partition=1)
    assert place.ledger_offsets() == expected
    assert place.landed_offsets(100) == expected
