"""What the demo shows: a progress bar while it works, and one table at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localrunner.demo.cli import Result
    from localrunner.demo.records import Feed

BAR = 40


def say(text: str) -> None:
    """A sentence is on the screen."""
    print(text, flush=True)


def silent(text: str) -> None:
    """Nothing is on the screen: `--json` prints one object and no more."""


class Progress:
    """A bar that fills in place, on a terminal; elsewhere a line for every quarter."""

    def __init__(self, whole: int, *, shown: bool) -> None:
        self._whole = whole
        self._shown = shown
        self._in_place = sys.stdout.isatty()
        self._quarter = 0

    def show(self, rows: int) -> None:
        """The bar is as long as `rows` says."""
        if not self._shown:
            return
        part = min(rows / self._whole, 1.0)
        if self._in_place:
            filled = round(part * BAR)
            print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {rows:,} of {self._whole:,} rows", end="", flush=True)
        elif int(part * 4) > self._quarter:
            self._quarter = int(part * 4)
            print(f"{rows:,} of {self._whole:,} rows", flush=True)

    def note(self, text: str) -> None:
        """A sentence stands above the bar."""
        if self._shown:
            print(f"\r{text}{' ' * BAR}" if self._in_place else text, flush=True)

    def end(self) -> None:
        """The bar stays as it is, and what follows begins on a line of its own."""
        if self._shown and self._in_place:
            print(flush=True)


def table(result: Result, feeds: list[Feed]) -> str:
    """The result as a table of two columns."""
    sums = ", ".join(f"sum({feed.total_column}) of {feed.table} {feed.total:,}" for feed in feeds)
    rows = [
        ("records produced", f"{result.records:,}"),
        *((f"rows in {name}", f"{count:,}") for name, count in result.rows.items()),
        ("dead letters", f"{result.dead_letters:,}"),
        ("lost", f"{result.lost:,}"),
        ("twice", f"{result.twice:,}"),
        ("sums as in the files", f"{'yes' if result.sums_agree else 'NO'}: {sums}"),
        ("blobs", f"{result.blobs:,}"),
        ("MB raw, stored", f"{result.raw_bytes / 1e6:.1f}, {result.stored_bytes / 1e6:.1f}"),
        ("seconds until the last row", f"{result.seconds:.1f}"),
        ("records/s", f"{result.records_per_s:,}"),
        *((f"CPU µs/record, {name}", f"{used:.1f}") for name, used in result.cpu_us_per_record.items()),
    ]
    width = max(len(name) for name, _ in rows)
    verdict = (
        "Proven: every offset of every topic-partition is in its table or in a dead letter, exactly once."
        if result.proven
        else "NOT proven: the figures above do not add up."
    )
    return "\n".join(["", *(f"  {name:<{width}}  {value}" for name, value in rows), "", verdict])
