"""What must be true once the faults have stopped and the system was left to settle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sinkcore.audit import audit
from sinkcore.failures import read_message
from sinkcore.operate import release
from sinkcore.segment import Segment
from sinkcore.sink import Topic
from tests.simulation.parts.kafka import TOPIC
from tests.simulation.parts.schedule import Actor
from tests.simulation.parts.simulation import Simulation, uids_of_letters

STEPS_MAX = 6_000
SWEEPS_MAX = 60
CALLS_A_SWEEP_MAX = 1_500


class EndlessError(Exception):
    """Something does not come to its end."""


def settle(sim: Simulation) -> int:
    """The faults have stopped, and everything has had its time; how many sweeps that took."""
    _calm(sim)
    hosts_return = sim.schedule.rng.random() < 0.5
    for host in sim.hosts:
        if not hosts_return:
            host.die()
    if hosts_return:
        for n, host in enumerate(sim.hosts):
            host.assign([p for p in range(len(sim.kafka.logs)) if p % 2 == n])
    for sweeps in range(SWEEPS_MAX):
        _run_all(sim)
        for _ in range(200 if hosts_return else 0):
            before = sim.schedule.events
            for host in sim.hosts:
                host.poll()
                host.flush()
                host.invoke()
                host.commit()
            _run_all(sim)
            if before == sim.schedule.events:
                break
        if _is_settled(sim):
            return sweeps
        sim.schedule.clock.ms += 31_000 if sweeps % 10 < 7 else 3_700_000
        sim.adx.ingest()
        for gap in sim.ledger.gaps():
            if gap.held:
                release(_topic(sim), gap.key)
        sim.sweep(sweeps % 2)
    raise EndlessError(f"not settled after {SWEEPS_MAX} sweeps: {_left(sim)}")


def _calm(sim: Simulation) -> None:
    sim.schedule.say("world", "faults stop")
    sim.schedule.faults = False
    sim.storage.down = sim.storage.dropped = sim.adx.down = sim.adx.lacking = False
    sim.kafka.down = sim.kafka.silent = False
    for late in sim.storage.late:
        late()
    sim.storage.late.clear()
    for p, log in enumerate(sim.kafka.logs):
        if any(entry.kind == "open" for entry in log.entries.values()):
            sim.kafka.end_transaction(p, "record")
    for host in sim.hosts:
        host.python_works = True
    for actor in sim.schedule.actors:
        left_ms = max(0, actor.frozen_until_ms - sim.schedule.clock.ms)
        actor.clock.behind_ms -= left_ms
        actor.frozen_until_ms = 0


def _run_all(sim: Simulation) -> None:
    steps = 0
    while sim.schedule.actors:
        actor: Actor = sim.schedule.rng.choice(sim.schedule.actors)
        sim.schedule.step(actor)
        steps += 1
        if steps > STEPS_MAX:
            raise EndlessError(f"{actor.name} is still at: {actor.at}")


def _is_settled(sim: Simulation) -> bool:
    return not _left(sim)


def _left(sim: Simulation) -> list[str]:
    ledger, positions = sim.ledger, sim.positions()
    row, guards = ledger.topic(), sim.profile.guards
    ends = {p: log.stable for p, log in enumerate(sim.kafka.logs) if log.end}
    return [
        *(f"segment {each.segment.id} {each.segment.state}" for each in ledger.open_segments()),
        *(f"gap {gap.key}" for gap in ledger.gaps()),
        *(f"partition {p} at {positions.get(p)} of {end}" for p, end in ends.items() if positions.get(p) != end),
        *(["messages in ADX's queue"] if sim.adx.queued else []),
        *(["failures that nobody noted"] if _failures_of_ours(sim) and guards.failures_read else []),
        *(["topic made again, not noticed"] if row and guards.topic_ids
          and row.topic_id != f"id-{sim.kafka.incarnation}" else []),
    ]  # fmt: skip


def _failures_of_ours(sim: Simulation) -> bool:
    """Whether a message is left about a segment that the ledger has; one that became gaps is nobody's any more."""
    known = {segment.id for segment in sim.ledger.segments()}
    urls = (read_message(text, number).url for number, (text, _) in sim.adx.failures.messages.items())
    return any(url.split("/")[-2] in known for url in urls)


def _topic(sim: Simulation) -> Topic:
    row = sim.ledger.topic()
    assert row is not None, "the topic was started"
    return Topic(TOPIC, sim.settings.kafka.group_of(TOPIC), sim.ledger, row, 0.0)


def dead_letters(sim: Simulation) -> Counter[int]:
    """How often each record is a dead letter."""
    found = Counter[int]()
    for data in sim.blobs.inner.in_container(sim.settings.dead_letters_container).values():
        found.update(uids_of_letters(data))
    return found


def violations(sim: Simulation) -> Iterator[str]:
    """Every promise that the run has broken, with the records."""
    yield from sim.schedule.errors
    hit = sim.schedule.hit
    dead = dead_letters(sim)
    total = Counter(sim.adx.landed)
    total.update(dead)
    failed: set[tuple[int, int]] = set()
    for segment in sim.ledger.segments():
        if segment.state == "failed":
            failed |= {(r.partition, o) for r in segment.ranges for o in range(r.first_offset, r.next_offset)}
            if not _may_fail(sim, segment):
                yield f"failed though Kafka has all of its records: segment {segment.id}"
    row = sim.ledger.topic()
    for p, log in enumerate(sim.kafka.logs):
        for offset in range(log.low, log.stable):
            entry = log.entries.get(offset)
            if entry is None or entry.kind != "record" or not entry.value or total[entry.uid]:
                continue
            if (p, offset) in failed:
                hit("excused: failed for good, since Kafka has not all of the segment's records")
            elif offset < log.excused_below:
                hit("excused: written where a log that was cut short had other records")
            elif row and row.sparse and (p, offset) in sim.passed.why.keys() & sim.kafka.hidden:
                hit("excused: the open case of sparse topics")
            else:
                yield f"LOST: record {entry.uid} at {p}/{offset}"
    yield from _repeated(sim, dead)
    yield from _left_behind(sim)
    yield from _ranges(sim)
    if sim.calls_of_sweeps and max(sim.calls_of_sweeps) > CALLS_A_SWEEP_MAX:
        yield f"a sweep made {max(sim.calls_of_sweeps)} calls"


def _may_fail(sim: Simulation, segment: Segment) -> bool:
    """Whether Kafka does not have the segment's records any more, so that a refused blob cannot be made again."""
    if segment.topic_id != f"id-{sim.kafka.incarnation}":
        return True
    logs = [(sim.kafka.logs[r.partition], r) for r in segment.ranges]
    held = sum(log.visible(o) for log, r in logs for o in range(r.first_offset, r.next_offset))
    return held != segment.records or any(r.first_offset < log.excused_below for log, r in logs)


def _repeated(sim: Simulation, dead: Counter[int]) -> Iterator[str]:
    counts = sim.schedule.counts
    total = Counter(sim.adx.landed)
    total.update(dead)
    twice = {uid: n for uid, n in total.items() if n > 1 and uid not in sim.kafka.repeatable}
    for uid in dead:
        if dead[uid] > 1 and uid not in sim.kafka.repeatable:
            yield f"TWICE a dead letter: record {uid}"
    if sim.mode != "no metadata":
        yield from (f"TWICE: record {uid}, {n} times" for uid, n in sorted(twice.items()))
        return
    rows = Counter[tuple[str, str]]()
    for segment in sim.ledger.segments():
        for blob in segment.blobs:
            if blob.kind == "rows" and blob.state != "mended":
                rows[blob.table, segment.id] += blob.rows
    times = Counter[str]()
    for (table, segment_id), n in sim.adx.by_segment.items():
        if rows[table, segment_id]:
            times[segment_id] = max(times[segment_id], -(-n // rows[table, segment_id]) - 1)
    extra = times.total()
    doubts = sum(
        counts[f"fault: {n}"]
        for n in ("killed", "frozen", "queue reply lost", "queue time-out", "lost reply", "503 after commit",
                  "transaction lands late", "storage 503 before", "General_InternalServerError",
                  "BadRequest_InvalidBlob", "BadRequest_TableNotExist", "Download_SourceNotFound", "storage slow")
    )  # fmt: skip
    doubts += counts["interleaving 28"]  # a mark that met a ledger that was gone
    counts["repeated: segments without metadata"] += extra
    if extra > doubts or (twice and not doubts):
        yield f"TWICE: {extra} segments by {doubts} deaths, freezes and lost replies"


def _left_behind(sim: Simulation) -> Iterator[str]:
    """A segment that the sweeper had to queue though nobody died, froze, or was refused by storage or ADX."""
    reasons = ("killed", "frozen", "adx", "queue", "storage 503", "storage slow", "lost reply",
               "transaction lands", "General", "BadRequest", "Download")  # fmt: skip
    if any(name.startswith(tuple(f"fault: {reason}" for reason in reasons)) for name in sim.schedule.counts):
        return
    for segment in sim.ledger.segments():
        if segment.attempts:
            yield f"left to the sweeper: segment {segment.id}"


def _ranges(sim: Simulation) -> Iterator[str]:
    counts = sim.schedule.counts
    if counts["fault: log truncated"] or counts["fault: topic made again"] or sim.ledger.topic() is None:
        return
    for found in audit(sim.sink(sim.sweep_clocks[0]), _topic(sim)):
        if found.twice:
            yield f"ranges twice in the ledger: {found}"
        if found.missing:
            yield f"ranges missing in the ledger: {found}"
