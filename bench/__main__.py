"""`python -m bench [--quick] [--case NAME]...`: prints the tables and writes bench/results/latest.jsonl."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from bench.cases import CASES, Options
from bench.data import SEED
from bench.measure import Result, pin_to_one_core

RESULTS = Path(__file__).parent / "results" / "latest.jsonl"
_PACKAGES = ("msgspec", "isal", "azure-functions")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that were asked for. The exit code says whether they ran, not whether the marks hold."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="prove that it runs; the times mean nothing")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON lines go")
    asked = parser.parse_args(arguments)
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "pinning": pin_to_one_core(),
        "collector": "on",
        "clock": "CPU time of the thread, median",
        "seed": SEED,
        **{name: version(name) for name in _PACKAGES},
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    with asked.out.open("w", encoding="utf-8") as file:
        print(json.dumps({"about": about, "quick": asked.quick}), file=file)
        for name in asked.case or CASES:
            results = list(importlib.import_module(f"bench.cases.{name}").run(Options(asked.quick)))
            file.writelines(json.dumps(result.as_dict()) + "\n" for result in results)
            file.flush()
            print_table(name, results)
            failed += sum(result.met is False for result in results)
    if not asked.quick:
        print(f"\nmarks missed: {failed}")
    return 0


def print_table(case: str, results: Iterable[Result]) -> None:
    """One row a figure, one column for each size and batch."""
    columns = list(dict.fromkeys((result.data, result.batch) for result in results))
    by_row: dict[tuple[str, str], dict[tuple[str, int], Result]] = {}
    for result in results:
        by_row.setdefault((result.what, result.unit), {})[result.data, result.batch] = result
    print(f"\n{case}")
    print(" " * 34 + "".join(f"{f'{data} x {batch}':>20}" for data, batch in columns))
    for (what, unit), cells in by_row.items():
        print(f"{f'{what} {unit}':<34}" + "".join(f"{_cell(cells.get(column)):>20}" for column in columns))


def _cell(result: Result | None) -> str:
    if result is None:
        return "-"
    value = f"{result.value:.3f}" if result.value < 100 else f"{result.value:.0f}"
    if result.mark is None:
        return value
    return f"{value} ({'<=' if result.met else 'MISSED'} {result.mark:g})"


if __name__ == "__main__":
    sys.exit(main())
