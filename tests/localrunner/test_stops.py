"""A drain can last for minutes; whoever asks a second time is not kept waiting, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.localrunner.conftest import END_S, FUNCTION_APP, TOPIC, Starter
from tests.localrunner.processes import eventually, family, living

# Longer than any test here: a batch like one that fails again and again.
SLOW_APP = FUNCTION_APP.replace("logging.info(", "__import__('time').sleep(300); logging.info(").replace(
    "def take(records):", 'def take(records):\n    logging.info("began")'
)


@pytest.fixture(scope="module")
def slow(small_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts `up` on an app that does not come to the end of its batch."""
    app = tmp_path_factory.mktemp("slow")
    (app / "host.json").write_text((small_app / "host.json").read_text())
    (app / "function_app.py").write_text(SLOW_APP)
    found = Starter(app, tmp_path_factory.mktemp("screens"))
    try:
        yield found
    finally:
        for up in found.started:
            up.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_drain_at_once_and_removes_the_temporary_directory(
    slow: Starter, tmp_path: Path, number: int
) -> None:
    up = slow.start("--kafka", "mock", environment={**os.environ, "TMPDIR": str(tmp_path)})
    producer = Producer({"bootstrap.servers": up.wait_ready()["kafka"]})
    producer.produce(TOPIC, b"{}")
    assert producer.flush(20) == 0
    (log,) = tmp_path.glob("localrunner-*/logs/host-0.log")
    eventually("a batch is on its way", lambda: "began" in log.read_text(), END_S)
    everyone = family(up.process.pid)

    up.process.send_signal(number)
    eventually(
        "it drains", lambda: "Draining, for up to 330 s while a batch fails" in up.screen.read_text(), END_S
    )

    def ended() -> bool:
        # One that comes within a second of the first is taken for the same.
        up.process.send_signal(number)
        return up.process.poll() is not None

    eventually("a second signal ends it", ended, END_S)
    assert up.process.returncode == 128 + number
    eventually("nothing of it is left", lambda: not living(everyone), END_S)
    assert list(tmp_path.iterdir()) == []
