"""The proof of a run fails where it must."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrunner.demo.kusto import Adx
from tests.adx.support import Double
from tests.chaos.load import Sent
from tests.chaos.proof import Proof, Verdict
from tests.chaos.topics import BROKEN, TOPICS

PLAIN, TRANSACTIONAL, COMPACTED = TOPICS


@pytest.fixture
def double(azurite: str, tmp_path: Path) -> Iterator[Double]:
    own = Double(tmp_path, azurite, time_scale=0.001)
    own.start()
    yield own
    own.stop()


def test_what_is_lost_twice_or_foreign_is_found(double: Double) -> None:
    proof = Proof(double.engine, double.dm)
    proof.make_tables(TOPICS)
    Adx(double.engine).make_tables()

    def row(topic: str, offset: int, n: int, segment: str = "a") -> str:
        kafka = json.dumps({"topic": topic, "partition": 0, "offset": offset, "segment": segment})
        return f'{n},"{kafka.replace(chr(34), chr(34) * 2)}"'

    def ingest(table: str, *lines: str) -> None:
        double.command(f".ingest inline into table {table} <| " + "\n".join(lines))

    # Of 0 to 5: 0 is there, 1 a dead letter, 2 lost, 3 twice by two segments, 4 twice by one, 5 has another value.
    ingest("Plain", row("plain", 0, 10), row("plain", 3, 13), row("plain", 3, 13, "b"))
    ingest("Plain", row("plain", 4, 14), row("plain", 4, 14), row("plain", 5, 99))
    double.command(".ingest inline into table DeadLetters <| plain,0,1,0,,,,invalid_json,,db,Plain,2026-01-01")
    # An aborted record has become a row.
    ingest("Transactional", row("transactional", 0, 20), row("transactional", 1, 21))
    # 0 was compacted away after it was taken, 1 is there, and 2 was never sent.
    ingest("Compacted", row("compacted", 0, 30), row("compacted", 1, 31), row("compacted", 2, 32))
    committed = [("plain", 0, n, 10 + n) for n in range(6)] + [
        ("transactional", 0, 0, 20),
        ("compacted", 0, 1, 31),
    ]
    committed[1] = ("plain", 0, 1, BROKEN)
    sent = Sent({"plain": [], "transactional": [], "compacted": [(0, 0, 30), (0, 1, 31)]})

    verdict: Verdict = proof.verdict(TOPICS, committed, sent)

    assert not verdict.holds
    assert verdict.lost == {("plain", 0): 1}
    assert verdict.twice == {("plain", 0): 2}
    assert verdict.foreign == {("plain", 0): 1, ("transactional", 0): 1, ("compacted", 0): 1}
    assert verdict.rows == {("plain", 0): 6, ("transactional", 0): 2, ("compacted", 0): 3}
    assert verdict.dead_letters == {("plain", 0): 1}
