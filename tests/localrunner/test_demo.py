"""`localrunner demo`: one JSON object with the contract's names, and an exit code that follows the proof."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from localrunner.demo.cli import Result
from localrunner.plan import ROOT

DEMO_S = 180
# The contract's names; `sums_agree` is ours besides.
NAMES = {
    *("records", "rows", "dead_letters", "lost", "twice", "seconds", "records_per_s", "cpu_us_per_record"),
    *("blobs", "raw_bytes", "stored_bytes"),
}
PROVEN = Result(
    records=10,
    rows={"Flights": 7, "Weather": 2},
    dead_letters=1,
    lost=0,
    twice=0,
    sums_agree=True,
    seconds=1.0,
    records_per_s=10,
    cpu_us_per_record={},
    blobs=1,
    raw_bytes=100,
    stored_bytes=10,
)


def test_the_demo_prints_one_object_and_ends_with_0_only_if_the_proof_holds() -> None:
    """The mock broker keeps few records, which is enough for a host that is killed half way."""
    demo = subprocess.run(
        [sys.executable, "-m", "localrunner", "demo", "--kafka", "mock", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )

    assert demo.returncode == 0, demo.stderr
    found = json.loads(demo.stdout)
    assert found.keys() == NAMES | {"sums_agree"}
    assert (found["lost"], found["twice"]) == (0, 0)
    assert sum(found["rows"].values()) + found["dead_letters"] == found["records"]
    assert found["cpu_us_per_record"].keys() >= {"worker-0", "host-0", "adx", "azurite"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"twice": 1},
        {"sums_agree": False},
        {"dead_letters": 0},
        {"rows": {"Flights": 8, "Weather": 2}},
    ],
)
def test_whatever_does_not_add_up_is_not_proven(wrong: dict[str, object]) -> None:
    assert PROVEN.proven
    assert not replace(PROVEN, **wrong).proven  # type: ignore[arg-type]
