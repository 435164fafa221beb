"""A consumer group: who has which partitions, and what is committed. Assignment is eager: each change takes all back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tests.simulation.kafka import SimKafka
from tests.simulation.scheduler import Scheduler


class Member(Protocol):
    """A host's consumer, as its group sees it."""

    name: str

    def revoke(self) -> None:
        """Its partitions are taken from it."""

    def assign(self, partitions: list[int]) -> None:
        """These partitions are its own from now on."""


@dataclass
class Group:
    """The group of one topic."""

    name: str
    kafka: SimKafka
    scheduler: Scheduler
    members: list[Member] = field(default_factory=list)

    @property
    def committed(self) -> dict[int, int]:
        return self.kafka.inner.commits.setdefault(self.name, {})

    def join(self, member: Member) -> None:
        if member not in self.members:
            self.members.append(member)
            self.rebalance(f"{member.name} joins")

    def leave(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
            self.rebalance(f"{member.name} leaves")

    def rebalance(self, why: str) -> None:
        self.scheduler.say(f"rebalance: {why}")
        for member in self.members:
            member.revoke()
        shares: dict[str, list[int]] = {member.name: [] for member in self.members}
        partitions = list(range(len(self.kafka.logs)))
        self.scheduler.rng.shuffle(partitions)
        for number, partition in enumerate(partitions if self.members else []):
            shares[self.members[number % len(self.members)].name].append(partition)
        for member in self.members:
            member.assign(sorted(shares[member.name]))
