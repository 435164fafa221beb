"""`make simulate SEED=... RUNS=...`: how often each fault and each interleaving was met, and what broke."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.run import INTERLEAVINGS, run, run_all, text_of


def main() -> int:
    """1 if a run has broken a promise."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if asked.runs == 1:
        outcome = run(asked.seed)
        print(text_of(outcome) if outcome.broken else "\n".join(outcome.trace))  # noqa: T201 - its purpose
        return bool(outcome.broken)
    summary = run_all(range(asked.seed, asked.seed + asked.runs), processes=asked.processes)
    names = sorted({*summary.counts, *(f"interleaving {n}" for n in range(1, INTERLEAVINGS + 1))})
    for name in names:
        print(f"{summary.counts[name]:8} {name}")  # noqa: T201
    print(  # noqa: T201
        f"{summary.runs} runs, {summary.events} events, at least {summary.events_min} a run, at most "
        f"{summary.sweeps_max} sweeps to settle; {len(summary.broken)} broken"
    )
    for outcome in summary.broken[:3]:
        print(text_of(outcome))  # noqa: T201
    print("broken seeds:", [(o.seed, o.broken[0][:60]) for o in summary.broken[:40]])  # noqa: T201
    return bool(summary.broken)


if __name__ == "__main__":
    sys.exit(main())
