"""`make chaos ARGS='--seconds 60 --seed 7'`: a run, and its table."""

from __future__ import annotations

import argparse
import os
import random
import sys

from localrunner.processes import NotReadyError
from tests.chaos.run import Result, run
from tests.chaos.schedule import parts_of

SECONDS = 600.0


def table(result: Result, hosts: int) -> str:
    """The result, for the screen."""
    verdict = result.verdict
    lines = [f"  {'process':<12}{'kills':>8}{'freezes':>10}"]
    lines += [
        f"  {part:<12}{result.kills.get(part, 0):>8}{result.freezes.get(part, 0):>10}" for part in parts_of(hosts)
    ]
    figures = [
        ("records that Kafka committed", result.records),
        ("rows", sum(verdict.rows.values())),
        ("dead letters", sum(verdict.dead_letters.values())),
        ("lost", sum(verdict.lost.values())),
        ("twice", sum(verdict.twice.values())),
        ("rows that are not what was sent", sum(verdict.foreign.values())),
        ("ranges that the ledger misses or has twice", result.missing),
        ("blobs that the killed ADX itself repeated", verdict.repeated_by_adx),
        ("segments queued by invocations", result.events.get("segment_queued", 0)),
        ("segments swept", result.events.get("segment_swept", 0)),
        ("doubtful segments settled", result.doubtful),
        ("gaps found", result.events.get("gap_found", 0)),
        ("gaps repaired in several steps", result.events.get("gap_repaired", 0)),
        ("silent partitions served", result.events.get("trigger_silent", 0)),
        ("seconds in all", round(result.seconds)),
        ("seconds until all was settled", round(result.settle_s)),
    ]
    lines += ["", *(f"  {name:<44}{value:>10,}" for name, value in figures), ""]
    for what in ("lost", "twice", "foreign"):
        lines += [f"  {what.upper()} {t} {p}: {n}" for (t, p), n in sorted(getattr(verdict, what).items())]
    lines.append(
        "Proven: every committed record of every topic-partition is in its table or a dead letter, exactly once."
        if result.holds
        else "NOT proven."
    )
    return "\n".join(lines)


def main() -> int:
    """Exit 0 only if nothing was lost and nothing is there twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for how long there are faults (600)")
    parser.add_argument("--seed", type=int, help="of the schedule and the records (default: a new one)")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--skipping", action="store_true", help="on hosts that skip what fails: commitOnFailure")
    parser.add_argument("--delivery", choices=("effectively_once", "exactly_once"), default="effectively_once")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    try:
        result = run(
            asked.seconds,
            seed,
            hosts=asked.hosts,
            skipping=asked.skipping,
            delivery=asked.delivery,
            tell=lambda text: print(text, flush=True),  # noqa: T201 - a program for a terminal
        )
    except NotReadyError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program for a terminal
        return 1
    print("", table(result, asked.hosts), sep="\n", flush=True)  # noqa: T201 - a program for a terminal
    return 0 if result.holds else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code) if code else None
