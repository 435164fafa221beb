"""The whole way once more with the worker that Azure runs: Kafka, the app in Microsoft's runtime, storage, ADX."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from localrunner.demo.kusto import proof
from localrunner.host.settings import SettingsError
from localrunner.host.workers import MICROSOFT, choose
from localrunner.processes import wait_until
from tests.end_to_end.whole import ANSWER_S, Topic, running

PARTITIONS = 4
RECORDS = 100


@pytest.fixture(scope="module", autouse=True)
def present() -> None:
    """Skips where the worker is not there, and says what is missing."""
    try:
        choose(MICROSOFT)
    except SettingsError as fault:
        pytest.skip(str(fault))


def test_every_offset_arrives_exactly_once_under_microsofts_own_worker(kafka: str, tmp_path: Path) -> None:
    """The app meets the library and the rules of the Python that Azure has, and a worker that dies."""
    topic = Topic(f"flights-{uuid.uuid4().hex}", "Sound", PARTITIONS, tombstones="dead_letter")
    with running(kafka, [topic], tmp_path, hosts=1, worker=MICROSOFT) as whole:
        for number in range(RECORDS):
            whole.send(topic, number % PARTITIONS, b'{"n": %d}' % number, key=b"EWR", headers=[("type", b"x")])
        for value in (None, b"no JSON"):
            whole.send(topic, 0, value)
        wait_until("rows land", lambda: whole.row_count() > 0, ANSWER_S)
        whole.stack.wait_restarted("worker-0", whole.stack.kill("worker-0"), ANSWER_S)
        whole.send(topic, 1, b'{"n": 0}')
        whole.settle()

        ends = whole.end_offsets()
        rows = whole.query(proof([topic.feed]))
        found = {
            row["partition"]: (row["offsets"], row["first_offset"], row["last_offset"], row["twice"])
            for row in rows
        }
        (total,) = whole.query("Sound | summarize records = count(), total = sum(n), keys = make_set(kafka.key)")

    assert sum(ends.values()) == RECORDS + 3
    assert found == {partition: (end, 0, end - 1, 0) for (_, partition), end in ends.items()}
    assert total == {"records": RECORDS + 1, "total": sum(range(RECORDS)), "keys": total["keys"]}
    assert {"EWR"} <= set(total["keys"])
