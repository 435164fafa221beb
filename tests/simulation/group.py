"""The topic's consumer group: who is in it, who has which partition, and what is committed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

SESSION_MS = 45_000
# A consumer sees partitions that were added at this age of its metadata.
METADATA_MS = 60_000


@dataclass
class Group:
    """The coordinator. A member that is frozen is put out when its session ends; what it commits is refused then."""

    world: World
    members: list[Host] = field(default_factory=list)
    generation: int = 0
    under_way: bool = False

    def join(self, host: Host) -> None:
        if host not in self.members:
            self.members.append(host)
            self._soon()

    def leave(self, host: Host, why: str) -> None:
        if host in self.members:
            self.members.remove(host)
            self.world.trace.add("group", f"{host.name} is out: {why}")
            self._soon()

    def check_session(self, host: Host) -> None:
        """If the host is frozen still, its session is over."""
        if host.frozen_until_ms > self.world.scheduler.clock.ms:
            self.leave(host, "no heartbeat")

    def commit(self, host: Host, offsets: dict[int, int]) -> bool:
        """The offsets are committed; False for who is not in the group any more, or not as it is now."""
        if host not in self.members or host.generation != self.generation:
            return False
        committed = self.world.broker.committed
        for partition, offset in offsets.items():
            before = committed.get(partition, 0)
            if before != offset:
                committed[partition] = offset
                self.world.witness.committed(partition, before, offset)
        self.world.trace.add(host.name, f"commits {offsets}")
        return True

    def rebalance(self) -> None:
        """Every member gives up all partitions and gets some, from the committed offsets on."""
        world = self.world
        self.under_way = False
        frozen = [host for host in self.members if host.frozen_until_ms > world.scheduler.clock.ms]
        for host in frozen:
            self.members.remove(host)
        for host in self.members:
            host.revoke()
        self.generation += 1
        partitions = list(range(len(world.broker.logs)))
        if world.rng.random() < 0.5:
            world.rng.shuffle(partitions)
        count = len(self.members)
        for n, host in enumerate(self.members):
            host.assign(self.generation, partitions[n::count])
        if count:
            shares = {host.name: sorted(host.at) for host in self.members}
            world.trace.add("group", f"generation {self.generation}: {shares}")

    def partitions_added(self) -> None:
        self.world.scheduler.after(self.world.rng.randint(1_000, METADATA_MS), self._soon)

    def _soon(self) -> None:
        if not self.under_way:
            self.under_way = True
            self.world.scheduler.after(self.world.rng.randint(100, 5_000), self.rebalance)
