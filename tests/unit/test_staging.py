"""Blobs as the sink needs them, in memory and in Azurite, and the URL by which ADX may read one."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator

import pytest
from azure.storage.blob import BlobServiceClient

from sinkcore.clock import SystemClock
from sinkcore.errors import TransientError
from sinkcore.staging import AzureBlobs, Blobs, read_by_managed_identity, sign_with_account_key
from tests.support.memory import ManualClock, MemoryBlobs

CONTAINER = "staging"


@pytest.fixture(params=["memory", "azurite"])
def blobs(request: pytest.FixtureRequest) -> Iterator[Blobs]:
    if request.param == "memory":
        yield MemoryBlobs()
        return
    with BlobServiceClient.from_connection_string(request.getfixturevalue("azurite")) as service:
        azure = azure_blobs(service)
        azure.create_container_if_missing(CONTAINER)
        azure.create_container_if_missing(CONTAINER)
        yield azure


def azure_blobs(service: BlobServiceClient, clock: SystemClock | ManualClock | None = None) -> AzureBlobs:
    credential = service.credential
    return AzureBlobs(
        service, sign_with_account_key(credential.account_name, credential.account_key, clock or SystemClock())
    )


def a_path() -> str:
    return f"flights/2026/01/02/{uuid.uuid4().hex}/0.json.gz"


def test_what_is_put_can_be_read(blobs: Blobs) -> None:
    path = a_path()

    blobs.put(CONTAINER, path, b"\x1f\x8bdata")

    assert blobs.get(CONTAINER, path) == b"\x1f\x8bdata"


def test_a_blob_is_there_once_it_was_put_and_until_it_is_deleted(blobs: Blobs) -> None:
    path = a_path()

    before = blobs.exists(CONTAINER, path)
    blobs.put(CONTAINER, path, b"data")
    there = blobs.exists(CONTAINER, path)
    blobs.delete(CONTAINER, path)

    assert (before, there, blobs.exists(CONTAINER, path)) == (False, True, False)
    assert not blobs.exists("no-such-container", path)


def test_what_is_not_there_can_be_deleted(blobs: Blobs) -> None:
    """Two sweepers remove the same old segment, and neither may stumble over the other."""
    path = a_path()
    blobs.put(CONTAINER, path, b"data")

    for container in (CONTAINER, CONTAINER, "no-such-container"):
        blobs.delete(container, path)

    assert not blobs.exists(CONTAINER, path)


def test_a_container_that_is_gone_is_made_again_with_the_next_blob(
    azurite: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only a restart would have done so before, and every batch until then failed."""
    container = f"c{uuid.uuid4().hex[:12]}"
    with BlobServiceClient.from_connection_string(azurite) as service:
        azure_blobs(service).put(container, path := a_path(), b"data")

        assert azure_blobs(service).get(container, path) == b"data"
    assert "container_made_again" in caplog.text


def test_putting_a_blob_again_changes_nothing(blobs: Blobs) -> None:
    """A put whose reply was lost is sent again, and dead letters are put by whoever finishes their segment."""
    path = a_path()
    blobs.put(CONTAINER, path, b"first")

    blobs.put(CONTAINER, path, b"second")

    assert blobs.get(CONTAINER, path) == b"first"


def test_a_url_for_adx_reads_its_blob_and_nothing_else(azurite: str) -> None:
    with BlobServiceClient.from_connection_string(azurite) as service:
        blobs = azure_blobs(service)
        blobs.create_container_if_missing(CONTAINER)
        path, other = a_path(), a_path()
        blobs.put(CONTAINER, path, b"mine")
        blobs.put(CONTAINER, other, b"not yours")
        url = blobs.url_for_adx(CONTAINER, path)

    assert urllib.request.urlopen(url, timeout=10).read() == b"mine"  # noqa: S310 - a URL of ours
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace(path, other), timeout=10)  # noqa: S310
    headers = {"x-ms-blob-type": "BlockBlob"}
    write = urllib.request.Request(url, data=b"x", method="PUT", headers=headers)  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(write, timeout=10)  # noqa: S310


def test_a_url_for_adx_ends_with_its_life(azurite: str) -> None:
    long_ago = ManualClock(int(time.time() - 4 * 24 * 3600) * 1000)
    with BlobServiceClient.from_connection_string(azurite) as service:
        blobs = azure_blobs(service, long_ago)
        blobs.create_container_if_missing(CONTAINER)
        path = a_path()
        blobs.put(CONTAINER, path, b"mine")
        url = blobs.url_for_adx(CONTAINER, path)

    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url, timeout=10)  # noqa: S310


def test_adx_may_read_by_its_own_identity(azurite: str) -> None:
    """Then the URL holds no secret at all."""
    with BlobServiceClient.from_connection_string(azurite) as service:
        blobs = AzureBlobs(service, read_by_managed_identity("managed_identity=system"))

        url = blobs.url_for_adx(CONTAINER, "flights/x.json.gz")

    assert url.endswith("/staging/flights/x.json.gz;managed_identity=system")
    assert "?" not in url


def test_a_missing_container_is_said(azurite: str) -> None:
    with (
        BlobServiceClient.from_connection_string(azurite) as service,
        pytest.raises(TransientError, match="the container is missing"),
    ):
        azure_blobs(service).get("never-made", a_path())


def test_a_wrong_key_is_said_without_the_key(azurite: str) -> None:
    wrong = azurite.replace("AccountKey=Eby8", "AccountKey=AAAA")
    with (
        BlobServiceClient.from_connection_string(wrong, retry_total=0) as service,
        pytest.raises(TransientError, match="Storage Blob Data Contributor") as raised,
    ):
        azure_blobs(service).put(CONTAINER, a_path(), b"x")
    assert "AAAA" not in str(raised.value)


def test_a_socket_that_hangs_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = (
            f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:{port}/a;"
        )
        with (
            BlobServiceClient.from_connection_string(text, read_timeout=0.2, retry_total=0) as service,
            pytest.raises(TransientError, match="ServiceResponse"),
        ):
            azure_blobs(service).put(CONTAINER, a_path(), b"x")
