"""Storage fails in every way it can: each record is taken once, however often that needs saying."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from localrunner.processes import wait_until
from sinkcore import clients
from sinkcore.clients import App
from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.sink import ROUNDS_MAX
from tests.end_to_end.place import LANDS_WITHIN_S, Place, flights, once
from tests.end_to_end.told import SECRET_RECORD, VALUE, nothing_is_told
from tests.support.proxy import Fault, FaultProxy, blob_error, table_error

RECORDS = [*flights(0, 1), SECRET_RECORD, *flights(0, 1, partition=3)]
OFFSETS = once(0, 1, 2) | once(0, 1, partition=3)
ROWS = once(0, 1) | once(0, 1, partition=3)
# A try at storage gets an eighth of it, and at least a second.
INVOCATION_MAX_S = 8
# Above the sink's own deadline; the SDK's pauses alone are 57 s, and its time-outs 60 s a try.
BOUND_S = 30.0

STAGE = r"^PUT /[^/]+/staging-[^?]+/\d+\.json\.gz"
STAGE_LETTERS = r"^PUT /[^/]+/staging-[^?]+/dead-letters"
PUT_LETTERS = r"^PUT /[^/]+/dead-[^?]+/"
BATCH = r"^POST /[^/]+/\$batch"
COMMIT = rb'"RowKey":"p-'
MARK = rb'"state":"queued"'
POSITIONS = r"^GET .*p-"

REFUSALS: dict[str, tuple[str, Callable[[], Fault]]] = {
    "staging is forbidden": ("blob", partial(blob_error, 403, "AuthorizationFailure", request=STAGE)),
    "the container is missing": ("blob", partial(blob_error, 404, "ContainerNotFound", request=STAGE)),
    "the container is being deleted": ("blob", partial(blob_error, 409, "ContainerBeingDeleted", request=STAGE)),
    "staging hangs": ("blob", partial(Fault, request=STAGE, hang=True)),
    "staging of the dead letters is forbidden": (
        "blob",
        partial(blob_error, 403, "AuthorizationFailure", request=STAGE_LETTERS),
    ),
    "the ledger is forbidden": ("table", partial(table_error, 403, "AuthorizationFailure", request=BATCH)),
    "the ledger is missing": ("table", partial(table_error, 404, "TableNotFound", request=BATCH, body=COMMIT)),
    "the ledger throttles": ("table", partial(table_error, 429, "TooManyRequests", request=BATCH, body=COMMIT)),
    "the ledger is busy for ever": ("table", partial(table_error, 503, "ServerBusy", request=BATCH, body=COMMIT)),
    "the ledger hangs": ("table", partial(Fault, request=BATCH, body=COMMIT, hang=True)),
    "positions cannot be read": ("table", partial(table_error, 403, "AuthorizationFailure", request=POSITIONS)),
    "each commit meets a conflict": (
        "table",
        partial(table_error, 412, "UpdateConditionNotSatisfied", request=BATCH, body=COMMIT),
    ),
}

BLIPS: dict[str, tuple[str, Callable[[], Fault]]] = {
    "staging is busy once": ("blob", partial(blob_error, 503, "ServerBusy", request=STAGE)),
    "staging is dropped": ("blob", partial(Fault, request=STAGE)),
    "the reply to staging is lost": ("blob", partial(Fault, request=STAGE, when="after")),
    "staging fails after it was done": (
        "blob",
        partial(blob_error, 503, "ServerBusy", request=STAGE, when="after"),
    ),
    "putting the dead letters is forbidden": (
        "blob",
        partial(blob_error, 403, "AuthorizationFailure", request=PUT_LETTERS),
    ),
    "the reply to putting the dead letters is lost": ("blob", partial(Fault, request=PUT_LETTERS, when="after")),
    "the positions are busy once": ("table", partial(table_error, 503, "ServerBusy", request=POSITIONS)),
    "the commit is busy once": ("table", partial(table_error, 503, "ServerBusy", request=BATCH, body=COMMIT)),
    "the commit is dropped": ("table", partial(Fault, request=BATCH, body=COMMIT)),
    "the commit hangs": ("table", partial(Fault, request=BATCH, body=COMMIT, hang=True)),
    "the commit's reply is lost": ("table", partial(Fault, request=BATCH, body=COMMIT, when="after")),
    "the commit's reply hangs": ("table", partial(Fault, request=BATCH, body=COMMIT, when="after", hang=True)),
    "the commit fails after it was done": (
        "table",
        partial(table_error, 503, "ServerBusy", request=BATCH, body=COMMIT, when="after"),
    ),
    "the commit comes back as its own conflict": (
        "table",
        partial(table_error, 409, "EntityAlreadyExists", request=BATCH, body=COMMIT, when="after"),
    ),
    "the mark is forbidden": (
        "table",
        partial(table_error, 403, "AuthorizationFailure", request=BATCH, body=MARK),
    ),
    "the mark's reply is lost": ("table", partial(Fault, request=BATCH, body=MARK, when="after")),
}

LEFT_TO_THE_SWEEPER = {"putting the dead letters is forbidden"}


def proxied_app(place: Place, blob: FaultProxy, table: FaultProxy) -> App:
    return place.through(blob=blob, table=table).app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))


def taken_once(place: Place, table: FaultProxy) -> None:
    """A new worker is handed the batch again, sweepers follow; then everything is where it belongs, once."""
    place.deliver(place.app(), RECORDS)
    wait_until("ADX has taken every message", place.nothing_is_queued, LANDS_WITHIN_S)
    place.settle(table)

    assert place.ledger_offsets() == OFFSETS
    assert place.landed_offsets(len(ROWS)) == ROWS
    assert [(letter["offset"], letter["value"]) for letter in place.dead_letters()] == [(2, VALUE)]
    assert set(place.states) == {"landed"}


@pytest.mark.parametrize("what", REFUSALS)
def test_storage_that_refuses_raises_in_time_and_nothing_is_lost(
    what: str,
    place: Place,
    blob_proxy: FaultProxy,
    table_proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The function must raise, or the host takes the batch for done; and soon, or its time is gone."""
    caplog.set_level(logging.DEBUG, "sinkcore")
    where, make = REFUSALS[what]
    proxy = {"blob": blob_proxy, "table": table_proxy}[where]
    app = proxied_app(place, blob_proxy, table_proxy)
    proxy.faults = [fault := make()]
    began = time.monotonic()

    with pytest.raises((TransientError, OutcomeUnknownError)) as raised:
        place.deliver(app, RECORDS)

    assert time.monotonic() - began < BOUND_S
    assert fault.met > 0
    assert place.ledger.positions() == {}
    proxy.faults.clear()
    taken_once(place, table_proxy)
    nothing_is_told(caplog, raised.value)


def test_storage_that_is_busy_for_ever_is_given_up_in_time(
    place: Place, blob_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself the SDK pauses for a minute, which most invocations have not."""
    monkeypatch.undo()
    blob_proxy.faults = [fault := blob_error(503, "ServerBusy", request=STAGE)]
    app = place.through(blob=blob_proxy).app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))
    began = time.monotonic()

    with pytest.raises(TransientError, match="503 ServerBusy"):
        place.deliver(app, RECORDS)

    assert fault.met == 1 + clients.BLOB_RETRIES["retry_total"]
    assert time.monotonic() - began < BOUND_S


@pytest.mark.parametrize("what", BLIPS)
def test_storage_that_fails_once_is_asked_again_and_nothing_is_repeated(
    what: str, place: Place, blob_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """A lost reply says nothing about what was done."""
    where, make = BLIPS[what]
    proxy = {"blob": blob_proxy, "table": table_proxy}[where]
    app = proxied_app(place, blob_proxy, table_proxy)
    proxy.faults = [fault := make()]
    fault.times = 1

    place.deliver(app, RECORDS)

    assert fault.met > 0
    assert place.ledger_offsets() == OFFSETS
    assert place.states == (["staged"] if what in LEFT_TO_THE_SWEEPER else ["queued"])
    taken_once(place, table_proxy)


def test_a_commit_that_arrives_after_all_has_been_settled_changes_nothing(
    place: Place, table_proxy: FaultProxy
) -> None:
    """A request that was given up may still be on its way."""
    app = place.through(table=table_proxy).app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))
    table_proxy.faults = [late := Fault(BATCH, COMMIT, hang=True, times=1)]
    place.deliver(app, RECORDS)
    taken_once(place, table_proxy)
    segments = place.ledger.segments()

    late.release.set()

    wait_until("the late commit has been answered", lambda: late.answered, LANDS_WITHIN_S)
    assert place.ledger.segments() == segments
    assert place.ledger_offsets() == OFFSETS


def test_a_lost_commit_that_arrives_after_the_batch_was_given_back_is_not_taken_twice(
    place: Place, table_proxy: FaultProxy
) -> None:
    """The ledger said that it was not there, and then it was: the batch that comes again finds it."""
    app = place.through(table=table_proxy).app(SINK_INVOCATION_MAX_S=str(INVOCATION_MAX_S))
    late = [Fault(BATCH, COMMIT, hang=True, times=1) for _ in range(ROUNDS_MAX)]
    table_proxy.faults = [*late]
    with pytest.raises(TransientError):
        place.deliver(app, RECORDS)
    assert place.ledger.segments() == []

    late[0].release.set()

    wait_until("the late commit has been answered", lambda: late[0].answered, LANDS_WITHIN_S)
    assert place.states == ["staged"]
    place.deliver(app, RECORDS)
    assert place.states == ["staged"], "it is the sweeper's"
    taken_once(place, table_proxy)


def test_a_staging_container_that_is_deleted_is_made_again_and_its_records_come_from_kafka(
    place: Place, dm_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """What was in it and not in ADX is in Kafka alone."""
    down = replace(place, dm=dm_proxy.url)
    app = down.app()
    dm_proxy.faults = [refuses := Fault(status=503)]
    place.deliver(app, RECORDS)
    place.blobs.delete_container(f"staging-{place.name}")

    place.deliver(app, flights(3))
    refuses.times = 0
    place.settle(table_proxy)

    assert place.landed_offsets(5) == ROWS | once(3)
    assert place.ledger_offsets() == OFFSETS | once(3)
    assert len(place.dead_letters()) == 1
