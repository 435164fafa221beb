"""The demo from beginning to end: start, produce, kill, wait, prove, print."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from localrunner import totry
from localrunner.demo.cpu import CpuMeter
from localrunner.demo.kusto import DB, METADATA, Adx
from localrunner.demo.produce import ProduceError, create_topics, end_offsets, produce, register
from localrunner.demo.records import Feed, feeds
from localrunner.demo.screen import Progress, say, silent, table
from localrunner.demo.storage import Storage, Stored
from localrunner.host import workers
from localrunner.plan import Options, kafka_here, make_plan
from localrunner.processes import NotReadyError
from localrunner.settingsfile import app_settings
from localrunner.stack import Stack, write_ready_file
from localrunner.stops import Interrupt, on_stop_signals, say_draining
from sinkcore.errors import ConfigError

# The demo's own, so that a host that was killed is missed for seconds and not for minutes.
INVOCATION_MAX_S = 10
SESSION_TIMEOUT_MS = 10_000
SETTINGS = (
    f"SINK_INVOCATION_MAX_S={INVOCATION_MAX_S}",
    f"AzureFunctionsJobHost__extensions__kafka__sessionTimeoutMs={SESSION_TIMEOUT_MS}",
    "AzureFunctionsJobHost__extensions__kafka__subscriberIntervalInSeconds=1",
    "SINK_SWEEP_SCHEDULE=*/5 * * * * *",
    "SINK_DOUBT_MARGIN_S=5",
)
WAIT_MAX_S = 240.0
ASK_EVERY_S = 0.5
MOCK_RECORDS_MAX = 8_000
EXIT_UNPROVEN = 1
EXIT_FAULTS = 2

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo found; `lost` and `twice` are counts of offsets, over all topic-partitions."""

    records: int
    rows: dict[str, int]
    dead_letters: int
    lost: int
    twice: int
    sums_agree: bool
    seconds: float
    records_per_s: int
    cpu_us_per_record: dict[str, float]
    blobs: int
    raw_bytes: int
    stored_bytes: int

    @property
    def proven(self) -> bool:
        """Every record is in its table or a dead letter exactly once, and the tables add up."""
        accounted = sum(self.rows.values()) + self.dead_letters
        return self.lost == self.twice == 0 and self.sums_agree and accounted == self.records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`parser` knows the options of `demo`."""
    parser.add_argument("--kafka", metavar="embedded|mock|HOST:PORT", help="which Kafka (default: embedded)")
    parser.add_argument(
        "--worker", choices=workers.NAMES, default=workers.EMULATED, help="what runs the app (default: emulated)"
    )
    parser.add_argument("--no-crash", action="store_true", help="do not kill the host half way")
    parser.add_argument("--keep", action="store_true", help="leave the stack up until Ctrl-C")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="addresses and process ids, as JSON")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(parsed: argparse.Namespace) -> int:
    """The exit code of `demo`: 0 only if the proof holds."""
    on_stop_signals(_interrupt, at_once=lambda: None)
    try:
        return _run(parsed)
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_FAULTS
    except (NotReadyError, ProduceError, DemoError) as error:
        print(error, file=sys.stderr)
        return EXIT_UNPROVEN
    except Interrupt as ended:
        return 128 + ended.number
    except SystemError as error:
        # An interpreter in whose C code a handler's exception comes up at a bad moment raises this one from it.
        if not isinstance(error.__cause__, Interrupt):
            raise
        return 128 + error.__cause__.number


class DemoError(Exception):
    """The demo cannot go on; the message says what it waited for."""


def _run(parsed: argparse.Namespace) -> int:
    tell = silent if parsed.json else say
    external = parsed.kafka not in (None, "embedded", "mock")
    # Somebody's own broker may have topics by these names.
    suffix = f"-demo-{os.getpid()}" if external else ""
    tell("Reading the flights and the weather of 2013 ...")
    is_mock = (parsed.kafka or kafka_here()[0]) == "mock"
    sent = feeds(f"flights{suffix}", f"weather{suffix}", MOCK_RECORDS_MAX if is_mock else None)
    with _stack(parsed, sent) as stack:
        for note in stack.plan.notes:
            tell(note)
        if is_mock:
            tell(f"So the demo takes {MOCK_RECORDS_MAX:,} flights and {MOCK_RECORDS_MAX:,} rows of weather.")
        tell(
            f"Kafka, a schema registry, Azurite, the ADX double and the Functions app run. For this demo "
            f"the sink has {INVOCATION_MAX_S} s for a batch, and Kafka misses a dead host after "
            f"{SESSION_TIMEOUT_MS // 1000} s."
        )
        result = _prove(stack, sent, parsed, tell)
        print(json.dumps(asdict(result)) if parsed.json else table(result, sent), flush=True)
        if parsed.keep:
            _keep(stack)
    return 0 if result.proven else EXIT_UNPROVEN


@contextmanager
def _stack(parsed: argparse.Namespace, sent: list[Feed]) -> Iterator[Stack]:
    routes = [
        {
            "topic": f.topic,
            "db": DB,
            "table": f.table,
            "mapping": f"{f.table}Mapping",
            "metadata": METADATA,
            **({"format": "avro", "decode": "registry"} if f.avro else {}),
        }
        for f in sent
    ]
    # Settings of somebody's own app, in the environment or a file, must not get into the demo.
    theirs = app_settings(os.environ)
    environment = {name: value for name, value in os.environ.items() if name not in theirs}
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        settings_file = Path(folder) / "settings.json"
        settings_file.write_text(json.dumps({"Values": {"SINK_TOPICS_MAPPING": json.dumps(routes)}}))
        options = Options(settings_file=settings_file, sets=SETTINGS, kafka=parsed.kafka, worker=parsed.worker)

        def changed(stack: Stack) -> None:
            if parsed.ready_file is not None:
                write_ready_file(parsed.ready_file, stack)

        stack = Stack(make_plan(options, environment), changed)
        _stop_on_signals(stack, folder)
        with stack:
            try:
                yield stack
            except Interrupt:
                say_draining()
                raise


def _interrupt(number: int) -> None:
    raise Interrupt(number)


def _stop_on_signals(stack: Stack, folder: str) -> None:
    """The first SIGINT or SIGTERM raises Interrupt, but where `stack` is stopping already."""

    def first(number: int) -> None:
        if not stack.stopping.is_set():
            _interrupt(number)

    def at_once() -> None:
        stack.end_at_once()
        shutil.rmtree(folder, ignore_errors=True)

    on_stop_signals(first, at_once)


def _prove(stack: Stack, sent: list[Feed], parsed: argparse.Namespace, tell: Tell) -> Result:
    """The records are produced, land, and are counted by KQL."""
    adx = Adx(stack.addresses["engine"])
    storage = Storage(stack.plan.settings, stack.plan.storage)
    meter = CpuMeter()
    adx.make_tables()
    brokers = stack.addresses["kafka"]
    if stack.plan.kafka is None:
        create_topics(brokers, [feed.topic for feed in sent])
    register(stack.addresses["registry"], sent)
    records = sum(len(feed.records) for feed in sent)
    tell(f"Producing {records:,} records; {sum(feed.broken for feed in sent)} of them are broken on purpose.")
    meter.sample(stack.pids)
    idle = meter.by_name()
    began = time.monotonic()
    produce(brokers, sent)
    seconds = _wait_for_rows(stack, adx, sent, meter, began, crash=not parsed.no_crash, tell=tell)
    stored = _wait_for_segments(storage, records, tell)
    meter.sample(stack.pids)
    letters = _bring_dead_letters(stack, storage, adx, stored)
    ends = end_offsets(brokers, [feed.topic for feed in sent])
    found = {(p.topic, p.partition): p for p in adx.partitions(sent)}
    lost = sum(end - (found[at].offsets if at in found else 0) for at, end in ends.items())
    return Result(
        records=records,
        rows=adx.rows(sent),
        dead_letters=letters,
        lost=lost,
        twice=sum(partition.twice for partition in found.values()),
        sums_agree=all(adx.total(feed) == feed.total for feed in sent),
        seconds=round(seconds, 1),
        records_per_s=round(records / seconds),
        cpu_us_per_record={
            name: round((used - idle.get(name, 0.0)) * 1e6 / records, 1)
            for name, used in meter.by_name().items()
            if name != "supervisor"
        },
        blobs=stored.blobs,
        raw_bytes=stored.raw_bytes,
        stored_bytes=stored.stored_bytes,
    )


def _wait_for_rows(
    stack: Stack, adx: Adx, sent: list[Feed], meter: CpuMeter, began: float, *, crash: bool, tell: Tell
) -> float:
    """Every sound record is a row; half way there the host was killed. Seconds since `began`."""
    expected = sum(feed.rows for feed in sent)
    progress = Progress(expected, shown=tell is say)
    deadline = began + WAIT_MAX_S
    while time.monotonic() < deadline:
        rows = sum(adx.rows(sent).values())
        meter.sample(stack.pids)
        progress.show(rows)
        if crash and rows >= expected // 2:
            crash = False
            pid = stack.kill("host-0")
            progress.note(f"Killed the Functions host (process {pid}) with SIGKILL after {rows:,} rows.")
        if rows >= expected:
            progress.end()
            return time.monotonic() - began
        time.sleep(ASK_EVERY_S)
    progress.end()
    raise DemoError(f"demo: {rows:,} of {expected:,} rows after {WAIT_MAX_S:.0f} s; look into the stack's logs")


def _wait_for_segments(storage: Storage, records: int, tell: Tell) -> Stored:
    """Nothing is under way any more: whatever could still be repeated has been repeated."""
    deadline = time.monotonic() + WAIT_MAX_S
    said = False
    while time.monotonic() < deadline:
        stored = storage.stored()
        if stored.unfinished == 0 and stored.records >= records:
            return stored
        if stored.unfinished and not said:
            said = True
            tell(f"The dead host left {stored.unfinished} segment(s); waiting for the sweeper to settle them.")
        time.sleep(ASK_EVERY_S)
    raise DemoError(
        f"demo: {stored.unfinished} segments are unfinished after {WAIT_MAX_S:.0f} s; look into the logs"
    )


def _bring_dead_letters(stack: Stack, storage: Storage, adx: Adx, stored: Stored) -> int:
    """The dead letters are in a table of their own, so that one query sees rows and dead letters."""
    storage.ingest_dead_letters(stack.addresses["dm"])
    deadline = time.monotonic() + WAIT_MAX_S
    while time.monotonic() < deadline:
        letters = adx.dead_letters()
        if letters >= stored.dead_letters:
            return letters
        time.sleep(ASK_EVERY_S)
    raise DemoError(f"demo: {letters} of {stored.dead_letters} dead letters came back; look into the double's log")


def _keep(stack: Stack) -> None:
    engine = stack.addresses["engine"]
    print("\nThe stack is up until Ctrl-C. Try:\n")
    for text in (
        "Flights | summarize flights = count(), longest = max(distance) by origin",
        "DeadLetters | summarize dead_letters = count() by topic, reason",
    ):
        print(totry.curl(f"{engine}/v2/rest/query", DB, text))
    print("\n".join(totry.sinkctl(stack.plan, stack.settings_file, os.environ)))
    print(totry.batches(stack.plan), flush=True)
    try:
        while True:
            signal.pause()
    except Interrupt:
        say_draining()
