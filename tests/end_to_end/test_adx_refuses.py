"""ADX fails in every way it can: batches are committed, wait, and are queued once, when it is back."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from azure.kusto.data import KustoClient

from localrunner.processes import wait_until
from sinkcore.clients import App
from sinkcore.ingest import CALLS_MAX, AdxQueue
from sinkcore.unfinished import REFUSALS_MAX
from tests.conftest import Adx
from tests.end_to_end.place import LANDS_WITHIN_S, LATER_S, SWEEPS_MAX, Place, flights, once
from tests.end_to_end.told import SECRET_RECORD, nothing_is_told
from tests.support.proxy import Fault, FaultProxy, blob_error, proxy_to

RECORDS = [*flights(0, 1), SECRET_RECORD]
# Room for a batch on a busy machine; whatever hangs is waited for until it is over.
INVOCATION_MAX_S = 3
# Well above that, and below the 30 s that a call gets at the most.
BOUND_S = 25.0
SWEEP_MAX_S = 8

MGMT = "^POST /v1/rest/mgmt"
SEND = "^POST .*/messages"
PAGE = ("text/html", b"<html>Bad gateway</html>")


def kusto_error(status: int, code: str) -> Fault:
    """Kusto answers with an error as it words it."""
    error = {"code": code, "message": "Made up.", "@type": "x", "@message": "Made up.", "@permanent": False}
    return Fault(MGMT, status=status, reply=("application/json", json.dumps({"error": error}).encode()))


def without_queues(reply: bytes) -> bytes:
    """The list of resources, without an ingestion queue."""
    answer = json.loads(reply)
    table = answer["Tables"][0]
    table["Rows"] = [row for row in table["Rows"] if row[0] != "SecuredReadyForAggregationQueue"]
    return json.dumps(answer).encode()


MANAGEMENT: dict[str, Callable[[], Fault]] = {
    "401": partial(kusto_error, 401, "Unauthorized"),
    "403": partial(kusto_error, 403, "Forbidden"),
    "429": partial(kusto_error, 429, "TooManyRequests"),
    "503": partial(kusto_error, 503, "ServiceUnavailable"),
    "a gateway's page": partial(Fault, MGMT, status=502, reply=PAGE),
    "a page that says all is well": partial(Fault, MGMT, status=200, reply=PAGE),
    "JSON that is not Kusto's": partial(Fault, MGMT, status=200, reply=("application/json", b'{"Tables":[]}')),
    "an empty answer": partial(Fault, MGMT, status=200),
    "a dropped connection": partial(Fault, MGMT),
    "a hanging socket": partial(Fault, MGMT, hang=True),
    "no queue": partial(Fault, MGMT, b"ingestion resources", edit=without_queues),
}
QUEUE: dict[str, Callable[[], Fault]] = {
    "403": partial(blob_error, 403, "AuthenticationFailed", request=SEND),
    "404": partial(blob_error, 404, "QueueNotFound", request=SEND),
    "a dropped connection": partial(Fault, SEND),
    "a hanging socket": partial(Fault, SEND, hang=True),
    "a message whose reply hangs": partial(Fault, SEND, when="after", hang=True),
    "a message whose reply is lost": partial(Fault, SEND, when="after"),
    "a message that was taken and answered with 503": partial(
        blob_error, 503, "ServerBusy", request=SEND, when="after"
    ),
}


def deliver_and_settle(place: Place, fails: FaultProxy, ahead: FaultProxy, fault: Fault) -> int:
    """A batch while ADX fails, then sweepers when it is well again; how many requests had failed."""
    app = place.through(table=ahead).app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))
    fails.faults = [fault]
    began = time.monotonic()
    place.deliver(app, RECORDS)
    assert time.monotonic() - began < BOUND_S
    assert fault.met > 0
    assert place.ledger_offsets() == once(0, 1, 2)
    assert place.states == ["staged"]

    failed, fault.times = fault.met, 0
    wait_until("ADX has taken every message", place.nothing_is_queued, LANDS_WITHIN_S)
    place.settle(ahead)
    assert place.landed_offsets(2) == once(0, 1)
    assert len(place.dead_letters()) == 1
    assert place.states == ["landed"]
    return failed


def calls_left(app: App) -> int:
    """How many more calls to data management may hang at once."""
    assert isinstance(app.sink.queue, AdxQueue)
    return app.sink.queue._calls._value


@pytest.mark.parametrize("what", MANAGEMENT)
def test_while_data_management_refuses_a_batch_is_committed_and_it_is_queued_later(
    what: str, place: Place, dm_proxy: FaultProxy, table_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sinkcore")
    place.dm = dm_proxy.url

    deliver_and_settle(place, dm_proxy, table_proxy, MANAGEMENT[what]())

    nothing_is_told(caplog)
    assert any("blob_left_staged" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("what", QUEUE)
def test_while_the_queue_refuses_a_batch_is_committed_and_it_is_queued_later(
    what: str,
    place: Place,
    dm_proxy: FaultProxy,
    queue_proxy: FaultProxy,
    table_proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the reply was lost the table has to be asked; the client by itself would send the message again."""
    monkeypatch.setattr("azure.storage.queue._shared.policies.ExponentialRetry.get_backoff_time", lambda *_: 0)
    caplog.set_level(logging.DEBUG, "sinkcore")
    dm_proxy.faults = [Fault(MGMT, edit=lambda reply: reply.replace(queue_proxy.upstream.encode(), own))]
    own = queue_proxy.url.removeprefix("http://").encode()
    place.dm = dm_proxy.url

    assert deliver_and_settle(place, queue_proxy, table_proxy, QUEUE[what]()) == 1, "a message is sent once"

    nothing_is_told(caplog)


def test_an_answer_that_comes_after_all_has_been_settled_repeats_nothing(
    place: Place, dm_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """A call that was given up goes on in its thread: it must not send what the sweeper has sent meanwhile."""
    dm, place.dm = place.dm, dm_proxy.url
    app = place.app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))
    dm_proxy.faults = [late := Fault(MGMT, hang=True, times=1)]
    place.deliver(app, RECORDS)
    place.dm = dm
    place.settle(table_proxy)
    assert place.landed_offsets(2) == once(0, 1)
    asked = len(dm_proxy.seen)

    late.release.set()

    wait_until("the late call has gone on", lambda: len(dm_proxy.seen) > asked, LANDS_WITHIN_S)
    wait_until("the late call has ended", lambda: calls_left(app) == CALLS_MAX, LANDS_WITHIN_S)
    assert place.landed_offsets(2) == once(0, 1)


def test_a_doubtful_segment_of_which_adx_has_more_than_all_is_finished(
    place: Place, dm_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """ADX ingests a blob again where it was killed before it had deleted the message; that stays as it is."""
    dm, place.dm = place.dm, dm_proxy.url
    dm_proxy.faults = [Fault(MGMT, hang=True, times=1)]
    place.deliver(place.app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S)), RECORDS)
    place.dm = dm
    app = place.app()
    blob = next(blob for blob in place.segment.blobs if blob.kind == "rows")
    assert blob.state == "staged"
    for times in (1, 2):
        app.sink.queue.queue(blob, app.sink.blobs.url_for_adx(blob.container, blob.path), BOUND_S)
        assert place.landed_offsets(2 * times).total() == 2 * times

    place.settle(table_proxy)

    assert place.states == ["landed"]
    assert place.row_count() == 4


def test_a_call_that_was_given_up_ends_by_itself(
    place: Place, dm_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would wait for an hour, and a few such calls hold back all that follow."""
    monkeypatch.setattr("sinkcore.clients.QUEUE_TIMEOUT_S", 1)
    monkeypatch.setattr(KustoClient, "_client_server_delta", timedelta(0))
    place.dm = dm_proxy.url
    app = place.app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))
    dm_proxy.faults = [Fault(MGMT, hang=True)]

    place.deliver(app, RECORDS)

    wait_until("the call has ended", lambda: calls_left(app) == CALLS_MAX, LANDS_WITHIN_S)


def test_an_engine_that_makes_no_sense_for_one_topic_does_not_keep_the_sweeper_from_others(
    place: Place, adx: Adx, dm_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    other = Place(place.azurite, place.dm, place.engine, values={"SINK_LEDGER_TABLE": f"ledger{place.name}"})
    other.make_table()
    dm_proxy.faults = [Fault(MGMT, hang=True, times=2)]
    for one in (place, other):
        through = replace(one.through(table=table_proxy), dm=dm_proxy.url)
        one.deliver(through.app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S)), RECORDS)
    with proxy_to(adx.engine) as engine_proxy:
        sense = Fault("/rest/", place.table.encode(), status=200, reply=("application/json", b"{}"))
        engine_proxy.faults = [sense]
        app = replace(place.through(table=table_proxy), engine=engine_proxy.url).app()
        for _ in range(2):
            table_proxy.ahead_s += LATER_S
            app.sweep()

    assert sense.met > 0
    assert place.states == ["staged"]
    assert other.states == ["queued"]
    assert other.landed_offsets(2) == once(0, 1)


@pytest.mark.parametrize("what", ["429", "503", "a dropped connection", "a hanging socket"])
def test_while_adx_is_down_only_sweeps_ask_it_and_it_recovers_by_itself(
    what: str, place: Place, dm_proxy: FaultProxy, table_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second instance, whatever way ADX is down, commits its batches without a word to it.

    A sweep has room for many tries, as it has by default: eight of 30 s.
    """
    monkeypatch.setattr("sinkcore.clients.QUEUE_TIMEOUT_S", 1)
    monkeypatch.setattr("sinkcore.queueing.QUEUE_TIMEOUT_S", 1)
    monkeypatch.setattr(KustoClient, "_client_server_delta", timedelta(0))
    down = replace(place.through(table=table_proxy), dm=dm_proxy.url)
    sweeper, other = (down.app(SINK_INVOCATION_MAX_S=str(SWEEP_MAX_S)) for _ in range(2))
    dm_proxy.faults = [fault := MANAGEMENT[what]()]
    for offset in range(REFUSALS_MAX):
        place.deliver(sweeper, flights(offset))
    ages = 0
    while not (row := place.ledger.topic()) or not row.probes:
        # One that hangs leaves doubts, of which ADX's tables are asked before its queue is.
        table_proxy.ahead_s, ages = LATER_S * ages, ages + 1
        assert ages < 2 * SWEEPS_MAX
        sweeper.sweep()

    # A call that was given up goes on by itself for a while.
    wait_until("the calls have ended", lambda: calls_left(sweeper) == CALLS_MAX, LANDS_WITHIN_S)
    asked, began = len(dm_proxy.seen), time.monotonic()
    place.deliver(other, flights(*range(REFUSALS_MAX, 9)))
    assert len(dm_proxy.seen) == asked
    assert time.monotonic() - began < BOUND_S

    fault.times = 0
    dm_proxy.faults = []
    place.settle(table_proxy)
    assert place.landed_offsets(9) == once(*range(9))
    row = place.ledger.topic()
    assert row is not None
    assert (row.probes, row.pending) == (0, 0)
