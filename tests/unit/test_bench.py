"""The benchmark runs and says what it measured. No test looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_TIMEOUT_S = 120


def test_a_quick_run_prints_tables_and_writes_json_lines(tmp_path: Path) -> None:
    """In a process of its own: the benchmark ties itself to one core."""
    out = tmp_path / "results.jsonl"

    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--case", "handler", "--case", "memory", "--out", str(out)],
        capture_output=True,
        check=True,
        text=True,
        timeout=_TIMEOUT_S,
    )

    about, *results = [json.loads(line) for line in out.read_text().splitlines()]
    assert about["quick"] is True
    assert {result["case"] for result in results} == {"handler", "memory"}
    for what in ("(a) floor", "(b) handler", "(c) decode", "(e) zlib 6", "(b) / (a)", "stored / (e)'s"):
        # Others are differences of two measured figures, which noise can turn below 0.
        values = [result["value"] for result in results if result["what"] == what]
        assert values
        assert min(values) > 0
        assert what in run.stdout
