"""Between "ADX's queue has the message" and "the ledger says so": real processes killed there, and real time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from localrunner.components import is_healthy
from localrunner.plan import ROOT
from localrunner.processes import free_ports, spawn, stop, wait_until
from sinkcore.unfinished import CLAIM_MARGIN_S
from tests.conftest import START_S, STOP_S, Adx
from tests.end_to_end.place import LANDS_WITHIN_S, Place, flights, once
from tests.support.proxy import Fault, FaultProxy

MGMT, SEND = "^POST /v1/rest/mgmt", "^POST .*/messages"
KILLS_AFTER, KILLS_BEFORE = 20, 4
ANSWER_S = 60.0
BATCHING_S = 60
MARGIN_S = 5
LOOK_EVERY_S = 2.0


class Dying:
    """Workers of one place; each is killed by the next reply that passes `kill`, before it sees that reply."""

    def __init__(self, place: Place) -> None:
        what = {"azurite": place.azurite, "dm": place.dm, "engine": place.engine, "name": place.name}
        command = [sys.executable, "-m", "tests.end_to_end.dying", json.dumps(what)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._pid: Future[int] = Future()

    def deliver(self, offset: int) -> int:
        """A new process delivers the offset; how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._pid = Future()
        self.process.stdin.write(f"{offset}\n")
        self._pid.set_result(int(self.process.stdout.readline()))
        return int(self.process.stdout.readline())

    def kill(self, reply: bytes) -> bytes:
        """The process that waits for this reply is gone."""
        os.kill(self._pid.result(ANSWER_S), signal.SIGKILL)
        return reply


@pytest.fixture
def dying(place: Place, dm_proxy: FaultProxy) -> Iterator[Dying]:
    workers = Dying(Place(place.azurite, dm_proxy.url, place.engine, name=place.name))
    try:
        yield workers
    finally:
        workers.process.stdin.close()  # type: ignore[union-attr]
        workers.process.wait(ANSWER_S)
        workers.process.stdout.close()  # type: ignore[union-attr]


def test_twenty_workers_killed_between_the_queues_reply_and_the_mark_repeat_nothing(
    place: Place, dying: Dying, dm_proxy: FaultProxy, queue_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """Nor do four that die just before it lose anything: in the ledger all of them look alike."""
    own = queue_proxy.url.removeprefix("http://").encode()

    def through_proxy(reply: bytes) -> bytes:
        return reply.replace(queue_proxy.upstream.encode(), own)

    dm_proxy.faults = [Fault(MGMT, edit=through_proxy)]
    queue_proxy.faults = [taken := Fault(SEND, edit=dying.kill)]
    ended = [dying.deliver(offset) for offset in range(KILLS_AFTER)]
    dm_proxy.faults = [Fault(MGMT, edit=dying.kill)]
    ended += [dying.deliver(offset) for offset in range(KILLS_AFTER, KILLS_AFTER + KILLS_BEFORE)]

    assert ended == [-signal.SIGKILL] * (KILLS_AFTER + KILLS_BEFORE)
    assert taken.met == KILLS_AFTER, "so many messages are in ADX's queue"
    left = [opened.segment for opened in place.ledger.open_segments()]
    assert [blob.state for segment in left for blob in segment.blobs] == ["staged"] * len(ended)
    place.landed_offsets(KILLS_AFTER)
    place.settle(table_proxy)

    everything = once(*range(KILLS_AFTER + KILLS_BEFORE))
    assert place.landed_offsets(len(ended)) == everything, "lost 0, twice 0"
    assert place.ledger_offsets() == everything


@pytest.fixture
def unhurried(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adx]:
    """An ADX double whose seconds are seconds."""
    directory = tmp_path_factory.mktemp("adx")
    dm, engine = free_ports(2)
    command = [sys.executable, "-m", "localrunner", "adx", "--data", str(directory), "--storage", azurite]
    command += ["--dm-port", str(dm), "--engine-port", str(engine), "--time-scale", "1"]
    child = spawn("adx", command, directory / "adx.log", cwd=ROOT)
    try:
        wait_until("the double answers", lambda: is_healthy(dm) and is_healthy(engine), START_S, child=child)
        yield Adx(f"http://127.0.0.1:{dm}", f"http://127.0.0.1:{engine}")
    finally:
        stop(child, STOP_S)


def test_in_real_time_a_doubtful_segment_is_not_asked_about_before_adx_has_had_its_minute(
    unhurried: Adx, azurite: str, dm_proxy: FaultProxy, queue_proxy: FaultProxy, table_proxy: FaultProxy
) -> None:
    """A double that seals a batch within moments hides who asks too early, finds nothing, and sends it again.

    It takes a little more than a minute; only the age at which a segment is claimed is made up.
    """
    place = Place(azurite, unhurried.dm, unhurried.engine, values={"SINK_DOUBT_MARGIN_S": str(MARGIN_S)})
    place.make_table()
    policy = json.dumps({"MaximumBatchingTimeSpan": "00:01:00"})
    place.command(f".alter table {place.table} policy ingestionbatching @'{policy}'")
    own = queue_proxy.url.removeprefix("http://").encode()
    dm_proxy.upstream = unhurried.dm.removeprefix("http://")
    dm_proxy.faults = [Fault(MGMT, edit=lambda reply: reply.replace(queue_proxy.upstream.encode(), own))]
    queue_proxy.faults = [sent := Fault(SEND, when="after", times=1)]
    through = Place(azurite, dm_proxy.url, unhurried.engine, place.route, place.values, place.name, place.kafka)
    app = through.through(table=table_proxy).app()
    through.deliver(app, flights(*range(5)))
    began = time.monotonic()
    assert [blob.state for blob in place.segment.blobs] == ["staged"]
    table_proxy.ahead_s = app.sink.settings.invocation_max_s + CLAIM_MARGIN_S + 1
    app.sweep()
    table_proxy.ahead_s = 0
    assert place.segment.waiting

    empty = 0
    while place.segment.waiting and time.monotonic() - began < BATCHING_S + MARGIN_S + LANDS_WITHIN_S:
        empty += place.row_count() == 0
        app.sweep()
        time.sleep(LOOK_EVERY_S)

    assert empty > 1, "for a while ADX had the message and no rows"
    assert place.landed_offsets(5) == once(*range(5))
    assert sent.met == 1, "one message was ever sent"
    assert place.states == ["queued"]
