"""A message to ADX that cannot be sent: what is known afterwards, how long it took, and what is said."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.kusto.ingest import QueuedIngestClient

from sinkcore.clients import _ingest_client
from sinkcore.connections import Kusto
from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.ingest import CALLS_MAX, AdxQueue, _send_error
from sinkcore.segment import Blob
from tests.conftest import Adx
from tests.support.app import settings_of

BLOB = Blob("rows", "staging", "p", 1, 10, 10, "db", "T", "json", source_id="1b671a64-40d5-591e-99b0-da01ff1f3341")
PATIENCE_S = 30.0
URL = "http://127.0.0.1/staging/p?sig=secret"


def queue_to(kusto: Kusto) -> AdxQueue:
    return AdxQueue(lambda: _ingest_client(kusto), ingest_by=False)


def local(port: int) -> Kusto:
    """A data-management endpoint on this machine."""
    return replace(settings_of().kusto, ingestion_url=f"http://127.0.0.1:{port}")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


def test_an_endpoint_that_is_not_there_is_known_at_once() -> None:
    """By itself the client would try for more than a minute, and the outcome would be open after all that time."""
    with pytest.raises(TransientError, match=r"KustoNetworkError .* before anything was sent") as raised:
        queue_to(local(1)).queue(BLOB, URL, PATIENCE_S)

    assert "secret" not in str(raised.value)


def test_an_endpoint_that_hangs_is_given_up_and_the_outcome_is_open(silent_port: int) -> None:
    """It hangs for as long as this test lasts, so that only our own clock can have ended the call."""
    with pytest.raises(OutcomeUnknownError, match="no answer within 0 s"):
        queue_to(local(silent_port)).queue(BLOB, URL, 0.2)


def test_calls_that_hang_do_not_pile_up(silent_port: int) -> None:
    """Each holds a thread and a socket, and an endpoint can hang for hours."""
    queue = queue_to(local(silent_port))
    for _ in range(CALLS_MAX):
        with pytest.raises(OutcomeUnknownError):
            queue.queue(BLOB, URL, 0.01)

    with pytest.raises(TransientError, match=f"{CALLS_MAX} earlier calls still hang"):
        queue.queue(BLOB, URL, 10)


def test_an_identity_that_gets_no_token_is_said(monkeypatch: pytest.MonkeyPatch, adx: Adx) -> None:
    """Nothing was sent then, so that nothing is in doubt."""
    monkeypatch.setenv("PATH", "/nowhere")
    kusto = replace(settings_of().kusto, ingestion_url=adx.dm, authentication="azure_cli")

    with pytest.raises(TransientError, match=r"Kusto\w*Error .* before anything was sent"):
        queue_to(kusto).queue(BLOB, URL, 10)


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (ServiceRequestError("could not connect"), TransientError),
        (ServiceResponseError("the reply was lost"), OutcomeUnknownError),
        (None, OutcomeUnknownError),
        (403, TransientError),
        (404, TransientError),
        (413, TransientError),
        (500, OutcomeUnknownError),
        (503, OutcomeUnknownError),
    ],
)
def test_only_a_clear_refusal_says_that_no_message_was_taken(
    cause: Exception | int | None, error: type[Exception]
) -> None:
    if isinstance(cause, int):
        status, cause = cause, HttpResponseError(f"https://x/?sig=secret {base64.b64encode(b'body').decode()}")
        cause.status_code = status

    found = _send_error(cause)

    assert type(found) is error
    assert "secret" not in str(found)


def test_the_clients_limits_are_those_that_the_client_reads() -> None:
    """They are private to it: a version that names them otherwise must not come in unnoticed."""
    client = _ingest_client(local(1))

    assert isinstance(client, QueuedIngestClient)
    assert QueuedIngestClient._MAX_RETRIES == 3
    assert client._MAX_RETRIES == 1
    assert client._resource_manager._kusto_client._mgmt_default_timeout.total_seconds() == 30
