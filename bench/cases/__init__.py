"""One file a subject, each with `run(options)`, which yields results as it measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure. `quick` proves that the benchmark runs; its times mean nothing."""

    quick: bool

    @property
    def batches(self) -> tuple[int, ...]:
        """Records in a batch."""
        return (200,) if self.quick else (500, 5000)

    def rounds(self, raw_size_bytes: int) -> int:
        """Repetitions for work on so many bytes."""
        if self.quick:
            return 1
        return 25 if raw_size_bytes < 1 << 20 else 15 if raw_size_bytes < 16 << 20 else 7


CASES = ("handler", "formats", "memory", "start", "requests", "drain", "host", "adx", "delivery", "gap")
"""Modules of this package, in the order in which they run."""
