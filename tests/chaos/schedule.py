"""Which process is killed or frozen when: the same seed gives the same schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "freeze"]
# Between two faults, and for how long one freezes: around the session time-out, 6 s, and the sink's deadline, 4 s.
PAUSE_S = (1.0, 5.0)
FREEZE_S = (0.5, 9.0)
# Until everything runs, and records are under way.
BEGIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Fault:
    """At `at_s` the process `part` is killed, or frozen for `for_s`."""

    at_s: float
    kind: Kind
    part: str
    for_s: float = 0.0


def parts_of(hosts: int) -> list[str]:
    """What can be killed and frozen, by the names of the ready file."""
    each = [name for number in range(hosts) for name in (f"host-{number}", f"worker-{number}")]
    return [*each, "adx", "azurite", "kafka"]


def schedule(seed: int, seconds: float, hosts: int) -> list[Fault]:
    """The faults of a run: each part is killed and frozen once before the second round begins."""
    chance = random.Random(seed)
    deck: list[tuple[Kind, str]] = []
    faults: list[Fault] = []
    at_s = BEGIN_S
    while at_s < seconds:
        if not deck:
            deck = [(kind, part) for part in parts_of(hosts) for kind in ("kill", "freeze")]
            chance.shuffle(deck)
        kind, part = deck.pop()
        # None outlasts the run by much.
        for_s = min(chance.uniform(*FREEZE_S), seconds - at_s + FREEZE_S[0]) if kind == "freeze" else 0.0
        faults.append(Fault(at_s, kind, part, for_s))
        at_s += chance.uniform(*PAUSE_S)
    return faults
