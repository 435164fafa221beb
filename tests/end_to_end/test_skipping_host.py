"""The whole stack on a host that skips what fails, as the extension does by default: nothing is lost."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from localrunner.demo.kusto import DB, METADATA, Adx
from localrunner.demo.produce import end_offsets, produce
from localrunner.demo.records import Feed
from localrunner.plan import Options, make_plan
from localrunner.stack import Stack
from sinkcore.clients import build_app
from sinkcore.operate import start_topic
from tests.end_to_end.skipping import SETTINGS as SKIPPING
from tests.end_to_end.skipping import an_app_without_retries

TOPIC = "skipped"
RECORDS = 40_000
KILLS_MIN, KILLS_MAX = 6, 14
BUSY_WITHIN_S = 10.0
LOOK_EVERY_S = 0.01
WAIT_S = 240.0
SETTINGS = (
    *SKIPPING,
    "AzureFunctionsJobHost__extensions__kafka__subscriberIntervalInSeconds=1",
    "AzureFunctionsJobHost__extensions__kafka__maxBatchSize=1000",
    "SINK_INVOCATION_MAX_S=3",
    "SINK_SWEEP_SCHEDULE=*/3 * * * * *",
    "SINK_DOUBT_MARGIN_S=2",
)


def log_of(stack: Stack) -> str:
    return (stack.directory / "logs" / "host-0.log").read_text(errors="replace")


def events(stack: Stack, *names: str) -> int:
    """How many lines of the host's log are such events."""
    log = log_of(stack)
    return sum(log.count(f"{name} {{") for name in names)


def wait_busy(stack: Stack) -> None:
    """The worker is at a batch, or there is none any more; a kill before that skips nothing."""
    deadline = time.monotonic() + BUSY_WITHIN_S
    while time.monotonic() < deadline:
        log = log_of(stack)
        if log.count("Executing 'Functions.kafka_") > log.count("Executed 'Functions.kafka_"):
            return
        time.sleep(LOOK_EVERY_S)


def test_a_host_that_skips_failed_batches_loses_nothing(tmp_path: Path) -> None:
    """A worker that is killed fails its invocation, and with commitOnFailure the offsets advance all the same.

    Source: docs/functions-host.md; the extension's default, which ours overrides.
    """
    route = {"topic": TOPIC, "db": DB, "table": "Flights", "mapping": "FlightsMapping", "metadata": METADATA}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"Values": {"SINK_TOPICS_MAPPING": json.dumps([route])}}))
    records = [(b"%d" % (n % 13), b'{"flight":%d,"distance":1}' % n) for n in range(RECORDS)]
    feed = Feed(TOPIC, "Flights", records, RECORDS, 0, "distance", RECORDS)
    options = Options(settings_file=file, sets=SETTINGS, app=an_app_without_retries(tmp_path / "app"))
    with Stack(make_plan(options, {"PATH": os.environ["PATH"]})) as stack:
        adx = Adx(stack.addresses["engine"])
        adx.make_tables()
        # A step of the deployment: what is skipped before Python first runs lies above these positions.
        start_topic(build_app(stack.plan.settings).sink, TOPIC)
        produce(stack.addresses["kafka"], [feed])
        for kills in range(KILLS_MAX):
            if kills >= KILLS_MIN and events(stack, "gap_found", "trigger_silent"):
                break
            wait_busy(stack)
            with suppress(ProcessLookupError, KeyError):  # the one after it may not have been seen yet
                stack.kill("worker-0")
        deadline = time.monotonic() + WAIT_S
        while adx.rows([feed])["Flights"] < RECORDS and time.monotonic() < deadline:
            time.sleep(0.5)

        found = {(p.topic, p.partition): p for p in adx.partitions([feed])}
        ends = end_offsets(stack.addresses["kafka"], [TOPIC])
        assert {at: p.offsets for at, p in found.items()} == ends, "nothing is lost"
        assert [p.twice for p in found.values()] == [0] * len(found), "nothing is there twice"
        assert adx.total(feed) == RECORDS
        assert events(stack, "gap_found", "trigger_silent") > 0, "the host did skip: otherwise nothing is shown"
