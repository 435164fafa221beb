"""Storage fails in every way it can: each record is taken once, however often that needs saying."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from localrunner.processes import wait_until
from sinkcore.clients import App
from sinkcore.errors import OutcomeUnknownError, TransientError
from tests.end_to_end.place import LANDS_WITHIN_S, Place, flights, once
from tests.support.events import Sent
from tests.support.proxy import Fault, FaultProxy, blob_error, table_error

RECORDS = [*flights(0, 1), Sent(b"broken", 2), *flights(0, 1, partition=3)]
OFFSETS = once(0, 1, 2) | once(0, 1, partition=3)
ROWS = once(0, 1) | once(0, 1, partition=3)
# A try at storage gets an eighth of it, and at least a second.
INVOCATION_MAX_S = 8

STAGE = r"^PUT /[^/]+/staging-[^?]+/\d+\.json\.gz"
STAGE_LETTERS = r"^PUT /[^/]+/staging-[^?]+/dead-letters"
PUT_LETTERS = r"^PUT /[^/]+/dead-[^?]+/"
BATCH = r"^POST /[^/]+/\$batch"
COMMIT = rb'"RowKey": "p-'
MARK = rb'"state": "queued"'
POSITIONS = r"^GET .*p-"

REFUSALS: dict[str, tuple[str, Callable[[], Fault]]] = {
    "staging is forbidden": ("blob", partial(blob_error, 403, "AuthorizationFailure", request=STAGE)),
    "the container is missing": ("blob", partial(blob_error, 404, "ContainerNotFound", request=STAGE)),
    "staging is busy for ever": ("blob", partial(blob_error, 503, "ServerBusy", request=STAGE)),
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
    assert [(letter["offset"], letter["value"]) for letter in place.dead_letters()] == [(2, b"broken")]
    assert set(place.states) == {"landed"}


@pytest.mark.parametrize("what", REFUSALS)
def test_storage_that_refuses_raises_in_time_and_nothing_is_lost(
    what: str, place: Place, blob_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """The function must raise, or the host takes the batch for done; and soon, or its time is gone."""
    where, make = REFUSALS[what]
    proxy = {"blob": blob_proxy, "table": table_proxy}[where]
    app = proxied_app(place, blob_proxy, table_proxy)
    proxy.faults = [fault := make()]
    began = time.monotonic()

    with pytest.raises((TransientError, OutcomeUnknownError)):
        place.deliver(app, RECORDS)

    assert time.monotonic() - began < INVOCATION_MAX_S * 1.5
    assert fault.met > 0
    assert place.ledger.positions() == {}
    proxy.faults.clear()
    taken_once(place, table_proxy)


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
