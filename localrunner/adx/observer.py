"""What every part of the double has in common: where things are noted down, and what goes wrong on demand."""

from __future__ import annotations

from dataclasses import dataclass, field

from localrunner.adx.counters import Counters, RequestLog
from localrunner.adx.faults import Faults


@dataclass(frozen=True, slots=True)
class Observer:
    """The counters and the log of requests of this process, and the faults that are in force."""

    counters: Counters = field(default_factory=Counters)
    requests: RequestLog = field(default_factory=RequestLog)
    faults: Faults = field(default_factory=Faults)
