"""A run from start to table: the stack, the load, the faults, the waiting, and the proof."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localrunner.demo.kusto import Adx
from localrunner.demo.storage import Storage
from localrunner.plan import Options, make_plan
from localrunner.processes import NotReadyError, thaw, wait_until
from localrunner.stack import Stack
from sinkcore.audit import audit
from sinkcore.clients import build_app
from sinkcore.operate import start_topic
from sinkcore.sink import Sink
from tests.chaos.kafkas import committed, stable_ends
from tests.chaos.load import load
from tests.chaos.proof import Proof, Verdict
from tests.chaos.schedule import Fault, schedule
from tests.chaos.topics import TOPICS, set_compaction
from tests.end_to_end.place import ready_queue
from tests.end_to_end.skipping import SETTINGS as SKIPPING
from tests.end_to_end.skipping import an_app_without_retries

# As short as Kafka and the sink's own waiting allow, so that what is left behind is met while the run lasts.
SETTINGS = (
    "SINK_INVOCATION_MAX_S=4",
    "SINK_DOUBT_MARGIN_S=2",
    "SINK_SWEEP_SCHEDULE=*/2 * * * * *",
    "AzureFunctionsJobHost__extensions__kafka__sessionTimeoutMs=6000",
    "AzureFunctionsJobHost__extensions__kafka__subscriberIntervalInSeconds=1",
    # Many invocations, so that kills meet one between its commit and its end.
    "AzureFunctionsJobHost__extensions__kafka__maxBatchSize=50",
)
OURS = ("SINK", "KAFKA_", "KUSTO_", "AZUREWEBJOBSSTORAGE", "AZUREFUNCTIONSJOBHOST", "SCHEMA_REGISTRY_")
RESTARTED_WITHIN_S = 40.0
SETTLES_WITHIN_S = 240.0
LANDS_WITHIN_S = 60.0
TICK_S = 0.05
ASK_S = 1.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run met and what it proved."""

    kills: dict[str, int]
    freezes: dict[str, int]
    records: int
    verdict: Verdict
    missing: int
    events: dict[str, int]
    doubtful: int
    seconds: float
    settle_s: float

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing twice, and the ledger says so too."""
        return self.verdict.holds and self.missing == 0


def run(seconds: float, seed: int, *, hosts: int = 2, skipping: bool = False, delivery: str, tell: Tell) -> Result:
    """The stack ran for so long under faults, came to rest, and was compared with Kafka."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        _stack(Path(folder), hosts, skipping, delivery) as stack,
    ):
        began = time.monotonic()
        proof = Proof(stack.addresses["engine"], stack.addresses["dm"])
        proof.make_tables(TOPICS)
        adx = Adx(stack.addresses["engine"])
        adx.make_tables()
        set_compaction(stack.addresses["kafka"])
        sink = build_app(stack.plan.settings).sink
        for topic in TOPICS:
            start_topic(sink, topic.name)
        faults = schedule(seed, seconds, hosts)
        tell(f"Seed {seed}: {len(faults)} faults in {seconds:.0f} s.")
        with load(stack.addresses["kafka"], TOPICS, seed) as sent:
            done = _meet(stack, faults, seconds, tell)
            _wait_restarted(stack)
        ended = time.monotonic()
        tell("All that was sent is in Kafka. Waiting until all of it is settled ...")
        _settle(sink, stack)
        settle_s = time.monotonic() - ended
        letters = _bring_dead_letters(stack, adx)
        records = committed(stack.addresses["kafka"], TOPICS)
        verdict = proof.verdict(TOPICS, records, sent)
        assert sum(verdict.dead_letters.values()) == letters
        return Result(
            kills=dict(Counter(fault.part for fault in done if fault.kind == "kill")),
            freezes=dict(Counter(fault.part for fault in done if fault.kind == "freeze")),
            records=len(records),
            verdict=verdict,
            missing=sum(
                len(found.missing) + len(found.twice) for t in TOPICS for found in audit(sink, sink.topic(t.name))
            ),
            events=_events(stack, hosts),
            doubtful=_doubtful(sink),
            seconds=time.monotonic() - began,
            settle_s=settle_s,
        )


def _stack(folder: Path, hosts: int, skipping: bool, delivery: str) -> Stack:
    file = folder / "settings.json"
    file.write_text(json.dumps({"Values": {"SINK_TOPICS_MAPPING": json.dumps([topic.route for topic in TOPICS])}}))
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(OURS)}
    sets = (*SETTINGS, f"SINK_DELIVERY={delivery}", *(SKIPPING if skipping else ()))
    data = Path(os.environ.get("CHAOS_DATA", folder / "stack"))
    options = Options(settings_file=file, sets=sets, hosts=hosts, data=data)
    if skipping:
        options = Options(
            settings_file=file, sets=sets, hosts=hosts, data=data, app=an_app_without_retries(folder / "app")
        )
    return Stack(make_plan(options, environment))


def _meet(stack: Stack, faults: Sequence[Fault], seconds: float, tell: Tell) -> list[Fault]:
    """The faults have happened, each at its time; those whose process was there. Nothing is frozen any more."""
    began = time.monotonic()
    frozen: list[tuple[float, int]] = []
    waiting, done = list(faults), []
    while waiting or frozen or time.monotonic() - began < seconds:
        now_s = time.monotonic() - began
        for until_s, pid in list(frozen):
            if until_s <= now_s:
                thaw(pid)
                frozen.remove((until_s, pid))
        while waiting and waiting[0].at_s <= now_s:
            fault = waiting.pop(0)
            with suppress(ProcessLookupError, KeyError):  # it is being started just now
                pid = stack.pids[fault.part]
                os.kill(pid, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
                done.append(fault)
                frozen += [(now_s + fault.for_s, pid)] if fault.kind == "freeze" else []
                for_s = f" for {fault.for_s:.1f} s" if fault.kind == "freeze" else ""
                tell(f"{now_s:6.1f} s  {fault.kind} {fault.part}{for_s}")
        time.sleep(TICK_S)
    return done


def _wait_restarted(stack: Stack) -> None:
    """Whatever was killed last is there again."""

    def alive() -> bool:
        for pid in stack.pids.values():
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return False
        return True

    wait_until("everything runs again", alive, RESTARTED_WITHIN_S)


def _settle(sink: Sink, stack: Stack) -> None:
    """Every position is at its partition's end, no gap is left, every segment is queued, and ADX has taken all.

    Whether the sink itself has seen the rows does not matter: the proof looks for them.
    """
    ends = stable_ends(stack.addresses["kafka"], TOPICS)
    left: dict[str, str] = {}

    def settled() -> bool:
        left.clear()
        for name in (topic.name for topic in TOPICS):
            ledger = sink.topic(name).ledger
            positions = ledger.positions()
            behind = {
                p: (positions[p].next_offset, end)
                for (t, p), end in ends.items()
                if t == name and positions[p].next_offset < end
            }
            unfinished = [each.segment for each in ledger.open_segments() if each.segment.state != "queued"]
            if behind or unfinished or ledger.gaps():
                left[name] = f"behind {behind}, gaps {ledger.gaps()}, segments {unfinished[:3]}"
        time.sleep(ASK_S if left else 0)
        return not left

    try:
        wait_until("everything is settled", settled, SETTLES_WITHIN_S)
    except NotReadyError as error:
        raise NotReadyError(f"{error}; left: {left}") from error
    queue = ready_queue(stack.addresses["dm"], stack.plan.storage)
    wait_until(
        "ADX has ingested what it was sent",
        lambda: queue.get_queue_properties().approximate_message_count == 0,
        LANDS_WITHIN_S,
    )


def _bring_dead_letters(stack: Stack, adx: Adx) -> int:
    """The dead letters are in a table; how many there are."""
    storage = Storage(stack.plan.settings, stack.plan.storage)
    letters = storage.stored().dead_letters
    storage.ingest_dead_letters(stack.addresses["dm"])
    wait_until(f"{letters} dead letters land", lambda: adx.dead_letters() >= letters, LANDS_WITHIN_S)
    return letters


def _events(stack: Stack, hosts: int) -> dict[str, int]:
    """How often each event is in the hosts' logs."""
    found = Counter[str]()
    for number in range(hosts):
        log = (stack.directory / "logs" / f"host-{number}.log").read_text(errors="replace")
        found.update(re.findall(r"\b([a-z_]+) \{\"", log))
    return dict(found)


def _doubtful(sink: Sink) -> int:
    """Segments that a sweeper asked ADX about before it finished them: claimed once to wait, once to queue."""
    return sum(segment.attempts > 1 for t in TOPICS for segment in sink.topic(t.name).ledger.segments())
