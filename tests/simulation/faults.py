"""What goes wrong with a call to the outside: which fault, how often, and what it does."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Service = Literal["table", "blobs", "queue", "engine", "kafka"]

# What can happen to a call, by service, with its weight. `refused`: an error before anything was done.
# `unheard`: the reply is lost, and nothing was done. `lost reply`: it is lost, and all was done. `lands later`: it
# is lost, and all will be done. `sent twice`: the client sends again by itself after a 503, and is answered the second
# time. `silent`: no answer within the caller's time, or only part of one. The others befall the caller's process.
_PROCESS = {"killed before": 2, "killed after": 3, "frozen before": 2, "frozen after": 3, "slow": 4}
KINDS: dict[str, dict[str, int]] = {
    "table write": {"refused": 3, "unheard": 2, "lost reply": 4, "lands later": 2, "sent twice": 2, **_PROCESS},
    "table read": {"refused": 4, **_PROCESS},
    "blob write": {"refused": 4, "lost reply": 3, **_PROCESS},
    "blob read": {"refused": 4, **_PROCESS},
    "queue": {"refused": 5, "unheard": 3, "lost reply": 3, "lands later": 2, **_PROCESS},
    "engine": {"refused": 6, **_PROCESS},
    "kafka": {"refused": 4, "silent": 4, **_PROCESS},
}
_DRAWN = {name: (list(kinds), list(kinds.values())) for name, kinds in KINDS.items()}


@dataclass
class Faults:
    """How often calls fail, and which services are down until when."""

    rng: random.Random
    rate: float
    met: Counter[str] = field(default_factory=Counter)
    down_until_ms: dict[Service, int] = field(default_factory=dict)
    on: bool = True

    def pick(self, service: Service, kind: str, now_ms: int) -> str:
        """What happens to this call; empty if nothing does."""
        if now_ms < self.down_until_ms.get(service, 0):
            self.met[f"{service} down"] += 1
            return "refused"
        if not self.on or self.rng.random() >= self.rate:
            return ""
        fault = self.rng.choices(*_DRAWN[kind])[0]
        self.met[f"{kind}: {fault}"] += 1
        return fault

    def end(self) -> None:
        """From now on nothing fails."""
        self.on = False
        self.down_until_ms.clear()


def expected_kinds() -> set[str]:
    """Every fault of a call that a large enough number of runs must have met."""
    return {f"{kind}: {fault}" for kind, faults in KINDS.items() for fault in faults}
