"""What runs came to, in words."""

from __future__ import annotations

from tests.simulation.faults import expected_kinds
from tests.simulation.runs import Summary
from tests.simulation.world import Outcome

WRONG_SHOWN_MAX = 10


def summary_text(summary: Summary) -> str:
    """Figures, then how often each fault was met."""
    per_s = summary.runs / summary.took_s if summary.took_s else 0
    lines = [
        f"{summary.runs} runs in {summary.took_s:.0f} s, {per_s:.1f} a second; "
        f"{summary.events / max(1, summary.runs):.0f} events a run, at least {summary.events_least}; "
        f"{len(summary.failed)} failed",
        "",
        "Faults, and how often each was met:",
    ]
    names = sorted(expected_kinds() | set(summary.faults))
    lines += [f"{summary.faults[name]:>9}  {name}" for name in names]
    return "\n".join(lines)


def failure_text(outcome: Outcome) -> str:
    """What is wrong with a run, and how to see it again."""
    shown = [f"  {what}" for what in outcome.wrong[:WRONG_SHOWN_MAX]]
    more = len(outcome.wrong) - len(shown)
    return "\n".join(
        [
            f"seed {outcome.seed}: {len(outcome.wrong)} faults in {outcome.events} events",
            *shown,
            *([f"  and {more} more"] if more > 0 else []),
            f"  again, with its trace: make simulate SEED={outcome.seed} RUNS=1 ARGS=--trace",
        ]
    )
