"""What happens while a run lasts: records are written, and the world is unkind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World


class Disturbances:
    """Writers, deaths, rebalances, and what else befalls a topic and its app."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._over = False
        self._open: list[int] = []

    def write_before(self) -> None:
        """Some records are there before the app."""
        for _ in range(self.world.rng.randint(0, 10)):
            self._write_one(None)

    def begin(self) -> None:
        """From now on things happen."""
        self._write()
        self._soon(self.world.config.disturb_every_ms, self._disturb)

    def end(self) -> None:
        """Nothing more happens; what is open is closed."""
        for transaction in self._open:
            self._finish(transaction)
        self._open.clear()
        self._over = True

    def _soon(self, within_ms: tuple[int, int], call: Callable[[], None]) -> None:
        self.world.scheduler.after(self.world.rng.randint(*within_ms), lambda: None if self._over else call())

    def _write(self) -> None:
        world, rng = self.world, self.world.rng
        self._soon(world.config.write_every_ms, self._write)
        if world.config.kind == "transactional" and rng.random() < 0.8:
            transaction = world.broker.begin()
            self._open.append(transaction)
            for _ in range(rng.randint(1, 6)):
                self._write_one(transaction)
            self._soon((10, rng.choice((100, 5_000, 300_000))), lambda: self._close(transaction))
            return
        for _ in range(rng.randint(1, 6)):
            self._write_one(None)

    def _write_one(self, transaction: int | None) -> None:
        world, rng = self.world, self.world.rng
        made = world.broker.produce(
            rng.randrange(len(world.broker.logs)),
            good=rng.random() < 0.95,
            padding=300 if world.config.blob_max_bytes == 1_024 else 0,
            key=rng.randrange(4) if world.config.kind == "compacted" else None,
            transaction=transaction,
        )
        world.trace.add(
            "writer", f"writes {made.id} at {made.partition}/{made.offset}", "open" if transaction else ""
        )

    def _close(self, transaction: int) -> None:
        if transaction in self._open:
            self._open.remove(transaction)
            self._finish(transaction)

    def _finish(self, transaction: int) -> None:
        commit = self.world.rng.random() < 0.7
        self.world.broker.finish(transaction, commit=commit)
        self.world.trace.add("writer", f"{'commits' if commit else 'aborts'} transaction {transaction}")

    def _disturb(self) -> None:
        world, rng = self.world, self.world.rng
        self._soon(world.config.disturb_every_ms, self._disturb)
        alive = [host for host in world.hosts if host.alive]
        what = rng.choices(
            ("kill host", "kill worker", "freeze host", "freeze worker", "stop", "start", "jump", "none"),
            (2, 3, 3, 2, 2, 3, 2, 3),
        )[0]
        if not alive:
            what = "start"
        host = rng.choice(alive) if alive else None
        world.faults.met[what] += 1
        if what == "start" and len(alive) < 4:
            world.new_host()
        elif host is None or what in ("none", "start"):
            return
        elif what == "kill host":
            host.die()
        elif what == "stop":
            host.stop(drain=rng.random() < 0.5)
        elif what == "freeze host":
            host.freeze(world.freeze_ms())
        elif host.worker is not None:
            if what == "kill worker":
                world.trace.add(host.worker.name, "is killed")
                host.worker.die()
            elif what == "freeze worker":
                host.worker.stand_still(world.freeze_ms())
            elif what == "jump":
                host.worker.jump(rng.choice((-1, 1)) * rng.randint(1_000, 4_000_000))
