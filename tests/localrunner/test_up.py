"""`python -m localrunner up`, as contract section 1 has it: two hosts on a directory that is kept.

The tests of this file share one stack and stand in the order of its life.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tests.localrunner.conftest import DATABASE, END_S, GROUP, TOPIC, Starter, Up
from tests.localrunner.processes import age_s, eventually, listed, living

RESTART_STARTED_S = 5
RESTART_ANSWERS_S = 90.0
SEEN_S = 60.0
NAMES = {"supervisor", "kafka", "azurite", "adx", "host-0", "worker-0", "host-1", "worker-1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "kept"


@pytest.fixture(scope="module")
def up(starter: Starter, data: Path) -> Up:
    """Two hosts on a directory of their own; whoever needs it waits until it answers."""
    found = starter.start("--hosts", "2", "--data", str(data), "--adx-time-scale", "0.001")
    found.wait_ready()
    return found


def ask(url: str, body: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 -- loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- loopback
        return answer.read()


def produce(bootstrap: str, value: bytes, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(TOPIC, value, partition=partition)
    assert producer.flush(20) == 0


def end_offset(bootstrap: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests-ask-only"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=20)[1])
    finally:
        consumer.close()


def databases(engine: str) -> str:
    return str(ask(f"{engine}/v1/rest/mgmt", {"db": "db", "csl": ".show databases"}))


def kill_and_wait(up: Up, name: str) -> dict[str, Any]:
    """`name` was killed and another process answers in its place; the ready file after that."""
    old = up.pid(name)
    killed_at = time.monotonic()
    os.kill(old, signal.SIGKILL)
    eventually(f"{name} has another process id", lambda: up.pid(name) != old, RESTART_ANSWERS_S)
    # When it was started, by its own age, however long it took to answer; `ps` counts whole seconds, so it may
    # take one too many.
    assert time.monotonic() - killed_at - age_s(up.pid(name)) <= RESTART_STARTED_S + 1
    return up.ready()


def test_the_ready_file_names_addresses_that_answer_and_living_processes(up: Up) -> None:
    """Whoever scripts the stack has nothing else to go by."""
    ready = up.ready()
    assert set(ready) == {"kafka", "engine", "dm", "storage", "pids"}
    assert set(ready["pids"]) == NAMES
    assert ready["pids"]["supervisor"] == up.process.pid
    assert len(living(ready["pids"].values())) == len(NAMES)
    assert AdminClient({"bootstrap.servers": ready["kafka"]}).list_topics(timeout=20).brokers
    assert json.loads(ask(f"{ready['dm']}/local/batches")) is not None
    assert ask(f"{ready['engine']}/local/health") is not None
    with BlobServiceClient.from_connection_string(ready["storage"]) as blobs:
        blobs.create_container("from-a-test")
    assert stat.S_IMODE(up.ready_file.stat().st_mode) == 0o600


def test_topics_and_databases_that_routes_name_are_there(up: Up) -> None:
    topics = AdminClient({"bootstrap.servers": up.ready()["kafka"]}).list_topics(timeout=20).topics
    assert len(topics[TOPIC].partitions) == 4
    assert "'db'" in databases(up.ready()["engine"]).replace('"', "'")
    assert DATABASE in databases(up.ready()["engine"])


def test_partitions_that_a_topic_gets_later_are_read(up: Up, data: Path) -> None:
    """Left alone the client asks for metadata every three minutes, and a tester would take it for a loss.

    That `up` sets less than the 10 s of the contract is for test_plan.py; here it is seen to matter.
    """

    def taken() -> int:
        logs = (data / "logs").glob("host-*.log")
        return sum(log.read_text().count("took 1") for log in logs)

    bootstrap = up.ready()["kafka"]
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def settled() -> bool:
        group = admin.describe_consumer_groups([GROUP])[GROUP].result(timeout=20)
        return len(group.members) == 2 and all(member.assignment.topic_partitions for member in group.members)

    # A rebalance would bring fresh metadata whatever is set.
    eventually("both hosts have their partitions", settled, SEEN_S)
    admin.create_partitions([NewPartitions(TOPIC, 6)])[TOPIC].result(timeout=20)
    eventually(
        "the broker has six partitions",
        lambda: len(admin.list_topics(TOPIC, timeout=20).topics[TOPIC].partitions) == 6,
        20,
    )
    before = taken()
    produce(bootstrap, b"late", partition=5)
    eventually("a host has taken the record", lambda: taken() > before, SEEN_S)


def test_the_screen_shows_addresses_and_commands_to_try(up: Up) -> None:
    screen = up.screen.read_text()
    assert up.ready()["kafka"] in screen
    assert "/local/batches" in screen
    assert "AccountKey" not in screen


def test_only_one_stack_at_a_time_has_a_data_directory(up: Up, starter: Starter, data: Path) -> None:
    """Two Azurites on the same files would destroy them."""
    second = starter.start("--data", str(data))
    assert second.process.wait(timeout=END_S) == 1
    assert "in use by another stack" in second.screen.read_text()


@pytest.mark.parametrize("name", ["azurite", "adx"])
def test_what_is_killed_is_started_again_on_the_same_address(up: Up, name: str) -> None:
    before = up.ready()
    after = kill_and_wait(up, name)
    assert {key: after[key] for key in after if key != "pids"} == {
        key: before[key] for key in before if key != "pids"
    }
    assert {key for key in NAMES if after["pids"][key] != before["pids"][key]} == {name}
    assert f"{name}: process {before['pids'][name]} was ended by SIGKILL" in up.screen.read_text()


def test_a_killed_kafka_comes_back_with_its_records(up: Up) -> None:
    """It takes longer to answer than the others, since its former session must run out first."""
    bootstrap = up.ready()["kafka"]
    produce(bootstrap, b"kept")
    after = kill_and_wait(up, "kafka")
    assert after["kafka"] == bootstrap
    assert end_offset(bootstrap) == 1


def test_a_killed_host_takes_its_worker_along_and_both_are_started_again(up: Up) -> None:
    """A worker without its host would go on moving positions that nobody watches."""
    before = up.ready()["pids"]
    after = kill_and_wait(up, "host-0")["pids"]
    assert after["worker-0"] != before["worker-0"]
    assert not living([before["worker-0"]])
    assert (after["host-1"], after["worker-1"]) == (before["host-1"], before["worker-1"])


def test_a_worker_that_the_host_replaces_is_in_the_ready_file(up: Up) -> None:
    before = up.ready()["pids"]
    after = kill_and_wait(up, "worker-1")["pids"]
    assert after["host-1"] == before["host-1"]
    assert living([after["worker-1"]])


def test_a_frozen_process_is_left_alone(up: Up) -> None:
    """Freezing is how a slow dependency is tried; whoever did it thaws it."""
    before = up.ready()
    os.kill(before["pids"]["adx"], signal.SIGSTOP)
    # That another one is started again meanwhile shows that the supervisor has looked.
    kill_and_wait(up, "host-1")
    assert up.pid("adx") == before["pids"]["adx"]
    assert listed()[up.pid("adx")][1] == "T"
    os.kill(before["pids"]["adx"], signal.SIGCONT)
    assert DATABASE in databases(before["engine"])


def test_sigterm_drains_everything_a_frozen_process_too(up: Up) -> None:
    """The exit code is what a script goes by; the ready file must not name what is gone."""
    ask(f"{up.ready()['engine']}/v1/rest/mgmt", {"db": DATABASE, "csl": ".create table Rows (n: long)"})
    os.kill(up.pid("adx"), signal.SIGSTOP)
    assert up.end(signal.SIGTERM) == (0, set())
    assert not up.ready_file.exists()


def test_a_data_directory_brings_everything_back_on_the_same_addresses(
    up: Up, starter: Starter, data: Path
) -> None:
    """`--data` holds what must survive; and a SIGKILL of the supervisor itself leaves no process behind."""
    ports = json.loads((data / "ports.json").read_text())
    again = starter.start("--data", str(data))
    ready = again.wait_ready()
    assert ready["kafka"] == f"127.0.0.1:{ports['kafka']}"
    assert ready["dm"] == f"http://127.0.0.1:{ports['dm']}"
    assert end_offset(ready["kafka"]) == 1
    assert b"Rows" in ask(f"{ready['engine']}/v1/rest/mgmt", {"db": DATABASE, "csl": ".show tables"})
    with BlobServiceClient.from_connection_string(ready["storage"]) as blobs:
        assert "from-a-test" in [container.name for container in blobs.list_containers()]
    assert set(ready["pids"]) == NAMES - {"host-1", "worker-1"}
    assert again.end(signal.SIGKILL)[1] == set()


def test_the_mock_broker_keeps_its_address_and_an_interrupt_ends_it(starter: Starter) -> None:
    """The way without Java and Docker; its records are gone with it, which the screen says."""
    mock = starter.start("--kafka", "mock")
    ready = mock.wait_ready()
    assert "5 MB a partition" in mock.screen.read_text()
    produce(ready["kafka"], b"forgotten")
    assert end_offset(ready["kafka"]) == 1
    assert kill_and_wait(mock, "kafka")["kafka"] == ready["kafka"]
    assert end_offset(ready["kafka"]) == 0
    topics = AdminClient({"bootstrap.servers": ready["kafka"]}).list_topics(timeout=20).topics
    assert len(topics[TOPIC].partitions) == 4
    assert mock.end(signal.SIGINT) == (0, set())
