"""What happens around the actors: records, rebalances, deaths, outages, and what people do. One event a draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

from tests.simulation.parts.passed import BACK, FORWARD, OTHER_APP, WEEK
from tests.simulation.parts.schedule import DAY_S, Actor
from tests.simulation.parts.simulation import HOUR_MS, Simulation


@dataclass(eq=False)
class Weather:
    """Draws the next event, each with its weight."""

    sim: Simulation
    events: list[tuple[str, float, Callable[[], object]]] = field(init=False)

    def __post_init__(self) -> None:
        rare, deaths = self.sim.profile.rare, self.sim.profile.deaths
        events: list[tuple[str, float, Callable[[], object]]] = [
            ("step", 40, self.step), ("poll", 6, self.poll), ("invoke", 10, self.invoke),

            ("commit", 4, self.commit), ("sweep", 1.5, self.sweep), ("produce", 5, self.produce),
            ("time", 3, self.time),
            ("kill", 0.5 * deaths, self.kill), ("freeze", 0.6 * deaths, self.freeze),
            ("rebalance", 0.8, self.rebalance), ("host dies", 0.2 * deaths, self.host_dies),
            ("storage down", 0.3, self.storage), ("adx down", 0.3, self.adx), ("kafka down", 0.2, self.kafka),
            ("table missing", 0.15, self.table_missing), ("blob lost", 0.1 * rare, self.blob_lost),
            ("python", 0.2, self.python), ("clock", 0.3, self.clock_jumps), ("transaction", 2, self.transaction),
            ("compact", 0.3, self.compact), ("retention", 0.1 * rare, self.retention),
            ("truncate", 0.06 * rare, self.truncate), ("recreate", 0.06 * rare, self.recreate),
            ("partition added", 0.1 * rare, self.add_partition), ("offsets expire", 0.15 * rare, self.expire),
            ("reset", 0.2 * rare, self.reset), ("other app", 0.15 * rare, self.other_app),
            ("table dropped", 0.08 * rare, self.table_dropped), ("week off", 0.05 * rare, self.week_off),
            ("litter", 0.6 * rare, self.litter),
            ("days pass", 0.1 * rare, self.days_pass),
        ]  # fmt: skip
        only = self.sim.profile.only
        self.events = [each for each in events if not only or each[0] in only]
        more = dict(self.sim.profile.weights)
        self.upto = list(accumulate(weight * more.get(name, 1.0) for name, weight, _ in self.events))

    def blow(self) -> None:
        """One event happens."""
        self.sim.schedule.rng.choices(self.events, cum_weights=self.upto)[0][2]()

    def _say(self, what: str) -> None:
        self.sim.schedule.say("world", what)
        self.sim.schedule.hit(f"fault: {what.partition(':')[0]}")

    def step(self) -> None:
        schedule = self.sim.schedule
        ready = [actor for actor in schedule.actors if not schedule.is_frozen(actor)]
        if ready:
            actor = schedule.rng.choice(ready)
            if actor.frozen_until_ms:
                self._wakes(actor)
            schedule.step(actor)

    def _wakes(self, actor: Actor) -> None:
        sim = self.sim
        sim.schedule.say(actor.name, f"WAKES before: {actor.at}")
        moved = sim.positions() != actor.position_when_frozen
        slept_ms = actor.frozen_until_ms - actor.started_ms
        actor.frozen_until_ms = 0
        if actor.kind != "deliver":
            return
        if actor.at.startswith(("transact create s-", "put", "answered: put")):
            if moved:
                sim.schedule.hit("interleaving 1")
            elif slept_ms > 7 * DAY_S * 1000 and sim.litter_swept_at_ms > actor.started_ms:
                sim.schedule.hit("interleaving 2")
        if actor.at.startswith(("queue", "transact merge", "answered: commit")) and any(
            segment.attempts for segment in sim.ledger.segments()
        ):
            sim.schedule.hit("interleaving 3")

    def poll(self) -> None:
        for host in self.sim.hosts:
            if not self._frozen(host.running):
                host.poll()
                if self.sim.schedule.rng.random() < 0.7:
                    host.flush()

    def _frozen(self, actor: Actor | None) -> bool:
        return actor is not None and self.sim.schedule.is_frozen(actor)

    def invoke(self) -> None:
        self.sim.schedule.rng.choice(self.sim.hosts).invoke()

    def commit(self) -> None:
        host = self.sim.schedule.rng.choice(self.sim.hosts)
        if not self._frozen(host.running):
            host.commit()

    def sweep(self) -> None:
        self.sim.sweep(self.sim.schedule.rng.randrange(2))

    def produce(self) -> None:
        kafka, rng = self.sim.kafka, self.sim.schedule.rng
        p = rng.randrange(len(kafka.logs))
        for _ in range(rng.randint(1, 8)):
            kafka.produce(p)

    def transaction(self) -> None:
        kafka, rng = self.sim.kafka, self.sim.schedule.rng
        if not self.sim.transactional:
            return
        p = rng.randrange(len(kafka.logs))
        if any(entry.kind == "open" for entry in kafka.logs[p].entries.values()):
            if rng.random() < 0.6:
                kind = rng.choice(("record", "record", "aborted"))
                kafka.end_transaction(p, kind)
                self._say(f"transaction {'committed' if kind == 'record' else kind}")
            return
        for _ in range(rng.randint(1, 4)):
            kafka.produce(p, "open")
        self._say("transaction open")

    def time(self) -> None:
        sim = self.sim
        sim.schedule.clock.ms += sim.schedule.rng.choice((500, 5_000, 31_000, 31_000, 120_000, 300_000))
        if sim.schedule.rng.random() < 0.3:
            sim.adx.ingest()
        while sim.storage.late and sim.schedule.rng.random() < 0.5:
            sim.storage.late.pop(0)()
        for actor in list(sim.schedule.actors):
            age_ms = sim.schedule.clock.ms - actor.started_ms
            if (
                actor.kind == "deliver"
                and age_ms > 300_000
                and not self._frozen(actor)
                and not actor.frozen_until_ms
            ):
                self._say("functionTimeout")
                sim.schedule.kill(actor)

    def kill(self) -> None:
        schedule = self.sim.schedule
        alive = [actor for actor in schedule.actors if actor.at.startswith(self.sim.profile.kill_at)]
        if alive:
            actor = schedule.rng.choice(alive)
            if actor.kind == "deliver" and actor.at.startswith("transact merge s-"):
                schedule.hit("interleaving 4")
            schedule.kill(actor)

    def freeze(self) -> None:
        schedule = self.sim.schedule
        free = [actor for actor in schedule.actors if not schedule.is_frozen(actor)]
        free = [actor for actor in free if actor.at.startswith(self.sim.profile.freeze_at)]
        if free:
            actor = schedule.rng.choice(free)
            actor.position_when_frozen = self.sim.positions()
            schedule.freeze(actor, schedule.rng.choice((60, 300, 400, 800, 7.5 * DAY_S)))
            if schedule.rng.random() < 0.5:
                self.rebalance()

    def rebalance(self) -> None:
        sim = self.sim
        alive = [host for host in sim.hosts if not self._frozen(host.running)]
        self._say("rebalance")
        parts: dict[str, list[int]] = {host.name: [] for host in alive}
        for p in range(len(sim.kafka.logs)):
            if alive:
                parts[sim.schedule.rng.choice(alive).name].append(p)
        for host in sim.hosts:
            if host in alive:
                host.assign(parts[host.name])
            else:
                host.fetch, host.stored = {}, {}

    def host_dies(self) -> None:
        self._say("host dies")
        self.sim.schedule.rng.choice(self.sim.hosts).die()
        self.rebalance()

    def storage(self) -> None:
        self.sim.storage.down = not self.sim.storage.down and self.sim.schedule.rng.random() < 0.6
        self._say(f"storage outage: {self.sim.storage.down}")

    def adx(self) -> None:
        self.sim.adx.down = not self.sim.adx.down and self.sim.schedule.rng.random() < 0.6
        self._say(f"adx outage: {self.sim.adx.down}")

    def kafka(self) -> None:
        kafka, rng = self.sim.kafka, self.sim.schedule.rng
        kafka.down = not kafka.down and rng.random() < 0.4
        kafka.silent = not kafka.silent and rng.random() < 0.4
        self._say(f"kafka outage: {kafka.down}, silent {kafka.silent}")

    def table_missing(self) -> None:
        self.sim.adx.lacking = not self.sim.adx.lacking
        self._say(f"adx table missing: {self.sim.adx.lacking}")

    def table_dropped(self) -> None:
        self.sim.storage.dropped = not self.sim.storage.dropped
        self._say(f"ledger table dropped: {self.sim.storage.dropped}")

    def blob_lost(self) -> None:
        # Dead letters that are lost before they reach their container are waited for without end: that is known.
        lost = sorted(
            key for key in self.sim.blobs.inner.blobs
            if key[0] == self.sim.settings.staging_container and "dead" not in key[1]
        )  # fmt: skip
        if lost:
            del self.sim.blobs.inner.blobs[self.sim.schedule.rng.choice(lost)]
            self._say("blob lost")

    def python(self) -> None:
        host = self.sim.schedule.rng.choice(self.sim.hosts)
        host.python_works = not host.python_works or self.sim.schedule.rng.random() < 0.5
        self._say(f"python works: {host.name} {host.python_works}")

    def clock_jumps(self) -> None:
        sim = self.sim
        clocks = [*(host.clock for host in sim.hosts), *sim.sweep_clocks]
        clock = sim.schedule.rng.choice(clocks)
        if clock.still == "wall":  # Where monotonic time stands still in a freeze, wall time must be sound.
            clock.skew_ms = sim.schedule.rng.randint(-HOUR_MS // 2, HOUR_MS // 2)
            self._say("wall clock jumps")

    def compact(self) -> None:
        kafka = self.sim.kafka
        if kafka.compact(self.sim.schedule.rng.randrange(len(kafka.logs))):
            self._say("compaction")

    def retention(self) -> None:
        kafka, rng = self.sim.kafka, self.sim.schedule.rng
        log = kafka.logs[rng.randrange(len(kafka.logs))]
        log.low = rng.randint(log.low, log.stable)
        self._say("retention")

    def truncate(self) -> None:
        """An unclean election: whatever is written at the offsets that were there is excused."""
        kafka, rng = self.sim.kafka, self.sim.schedule.rng
        log = kafka.logs[rng.randrange(len(kafka.logs))]
        if log.end - log.low < 3:
            return
        cut = rng.randint(log.low + 1, log.end - 1)
        if rng.random() < 0.7 and (taken := self.sim.positions()):
            self.sim.schedule.hit("interleaving 25" if min(taken.values()) > cut else "fault: tail cut off")
        old_end = log.end
        # A host may still hold them, and hand them over once more when the position has gone back.
        kafka.repeatable |= {entry.uid for offset, entry in log.entries.items() if offset >= cut}
        log.entries = {o: e for o, e in log.entries.items() if o < cut}
        log.end = cut
        log.excused_below = max(log.excused_below, old_end)
        for _ in range(rng.choice((0, 0, old_end - cut + 2))):
            kafka.produce(kafka.logs.index(log))
        self._say("log truncated")

    def recreate(self) -> None:
        """The topic is deleted and made again; at its offsets a host may still hold records of the old one."""
        sim = self.sim
        kafka = sim.kafka
        if sim.recreated or sim.sweeping:
            return
        sim.recreated = True
        old = [log.end for log in kafka.logs]
        positions = sim.positions()
        # Until a sweep has noticed, a host hands over the old ones as if they were the new topic's.
        kafka.repeatable |= {seen.entry.uid for host in sim.hosts for seen in host.holds()}
        kafka.recreate()
        self._say("topic made again")
        for p, end in enumerate(old):
            for _ in range(sim.schedule.rng.choice((0, end + 3))):
                kafka.produce(p)
            if kafka.logs[p].end > positions.get(p, 0) > 0:
                sim.schedule.hit("interleaving 26")

    def add_partition(self) -> None:
        from tests.simulation.parts.kafka import Log

        kafka = self.sim.kafka
        if len(kafka.logs) >= 5:
            return
        kafka.logs.append(Log())
        for _ in range(3):
            kafka.produce(len(kafka.logs) - 1)
        self._say("partition added")
        self.rebalance()

    def expire(self) -> None:
        """With the group's offsets goes what would show that a list, held for so long, spans a skip."""
        kafka, positions = self.sim.kafka, self.sim.positions()
        for p in {seen.partition for host in self.sim.hosts for seen in host.listed}:
            kafka.hidden |= {(p, o) for o in range(positions.get(p, 0), kafka.committed_at.get(p, 0))}
        kafka.committed_at.clear()
        for host in self.sim.hosts:
            host.stored = {}
        kafka.expired = True
        self._say("offsets expire")
        self.rebalance()

    def reset(self) -> None:
        kafka, rng = self.sim.kafka, self.sim.schedule.rng
        p = rng.randrange(len(kafka.logs))
        at, log = self.sim.positions().get(p, 0), kafka.logs[p]
        to = rng.randint(log.low, log.end) if log.end else 0
        for host in self.sim.hosts:
            host.stored.pop(p, None)
        kafka.committed_at[p] = to
        self._say("operator resets")
        if to < at:
            self.sim.passed.expect(p, BACK)
        self.sim.passed.add([(p, o) for o in range(at, to)], FORWARD)
        self.rebalance()

    def other_app(self) -> None:
        """Another app in the group takes what comes next, into its own ledger."""
        kafka = self.sim.kafka
        p = self.sim.schedule.rng.randrange(len(kafka.logs))
        at = kafka.committed_at.get(p, kafka.logs[p].low)
        if at < kafka.logs[p].stable:
            kafka.committed_at[p] = kafka.logs[p].stable
            self.sim.passed.add([(p, o) for o in range(at, kafka.logs[p].stable)], OTHER_APP)
            self._say("other app")
            self.rebalance()

    def _is_at_rest(self) -> bool:
        """Whether ADX and the sweeper have done their work: what waits for longer than blobs are kept is lost."""
        sim = self.sim
        return not sim.adx.queued and not sim.adx.failures.messages and not list(sim.ledger.open_segments())

    def week_off(self) -> None:
        if not self._is_at_rest():
            return
        for host in self.sim.hosts:
            host.die()
        for actor in list(self.sim.schedule.actors):
            self.sim.schedule.kill(actor)
        self.sim.schedule.clock.ms += 6 * DAY_S * 1000
        self._say("week off")
        for p in self.sim.kafka.committed_at:
            self.sim.passed.expect(p, WEEK)
        self.rebalance()

    def litter(self) -> None:
        """A batch freezes between staging and commit, for longer than litter is kept, and nobody goes on."""
        sim = self.sim
        actor = next((a for a in sim.schedule.actors if a.kind == "deliver" and a.at == "answered: put"), None)
        if actor is None or not self._is_at_rest() or sim.storage.down or sim.storage.dropped:
            return
        for other in [each for each in sim.schedule.actors if each is not actor]:
            sim.schedule.kill(other)
        actor.position_when_frozen = sim.positions()
        sim.schedule.freeze(actor, 8 * DAY_S)
        sim.schedule.clock.ms += int(8.01 * DAY_S * 1000)
        sim.sweep(0)
        while 0 in sim.sweeping and sim.sweeping[0].calls < 1_000:
            sim.schedule.step(sim.sweeping[0])

    def days_pass(self) -> None:
        """Nothing is under way but what is frozen; then the sweepers look for what is old."""
        if not self._is_at_rest() or any(not self.sim.schedule.is_frozen(a) for a in self.sim.schedule.actors):
            return
        self.sim.schedule.clock.ms += 8 * DAY_S * 1000
        self._say("eight days pass")
        self.sim.sweep(0)
