"""`python -m tests.simulation --seed S --runs N`: runs of the simulation, and what was met in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.simulation.report import failure_text, summary_text
from tests.simulation.runs import run_all
from tests.simulation.world import run

SHOWN_MAX = 10


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first run's seed; each run takes the next (1)")
    parser.add_argument("--runs", type=int, default=2_000, help="how many (2,000)")
    parser.add_argument("--processes", type=int, help="how many at once (one a processor)")
    parser.add_argument("--trace", action="store_true", help="print the trace of the run, whatever comes of it")
    given = parser.parse_args(arguments)
    if given.trace:
        outcome = run(given.seed)
        print("\n".join(outcome.trace), failure_text(outcome), sep="\n")  # noqa: T201
        return 1 if outcome.wrong else 0
    summary = run_all(range(given.seed, given.seed + given.runs), processes=given.processes)
    print(summary_text(summary))  # noqa: T201
    for outcome in summary.failed[:SHOWN_MAX]:
        print(failure_text(outcome))  # noqa: T201
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
