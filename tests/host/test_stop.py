"""Stopping a host, with and without drain mode: docs/functions-host.md, "Stopping"."""

from __future__ import annotations

import signal

from tests.host.hosting import WAIT_S, Broker, Hosts, RunningHost

SLOW = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    until("release")
    note("end")
"""
OPTIONS = {"maxBatchSize": 2, "commitOnFailure": False, "maxRetries": -1}


def stopped_in_its_first_batch(hosts: Hosts, broker: Broker, topic: str, drain: str) -> RunningHost:
    """A host that was told to stop while one batch executed, one was queued and one waited."""
    broker.create(topic)
    broker.produce(topic, 6)
    host = hosts.start(hosts.app(SLOW, OPTIONS), FUNCTIONS_ENABLE_DRAIN_ON_APP_STOPPING=drain)
    host.wait_notes("begin", 1)
    host.wait_log("/ 0 / 4 is full")
    host.process.send_signal(signal.SIGTERM)
    host.wait_log("Stopping, with drain mode")
    assert host.status()["state"] == "draining"
    host.release("release")
    assert host.process.wait(WAIT_S) == 0
    assert host.status()["state"] == "stopped"
    return host


def test_drain_mode_finishes_and_stores_what_executes_and_what_is_queued(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Stopping": no duplicates; the batch that waited is delivered again."""
    host = stopped_in_its_first_batch(hosts, broker, topic_name, drain="true")

    assert [note["places"][0][1] for note in host.notes("begin")] == [0, 2]
    assert broker.committed(group) == {0: 4}
    again = hosts.start(host.app)
    again.wait_notes("end", 3)
    assert [note["places"][0][1] for note in again.notes("begin")] == [0, 2, 4]


def test_without_drain_mode_a_successful_batch_is_delivered_again(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Stopping": it waits too, but stores nothing. One batch comes twice."""
    host = stopped_in_its_first_batch(hosts, broker, topic_name, drain="false")

    assert [note["places"][0][1] for note in host.notes("begin")] == [0]
    assert len(host.notes("end")) == 1
    assert broker.committed(group) == {}
    again = hosts.start(host.app)
    again.wait_notes("end", 4)
    assert [note["places"][0][1] for note in again.notes("begin")] == [0, 0, 2, 4]


def test_a_stop_ends_the_waiting_of_a_retry_policy(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """docs/functions-host.md, "Stopping": shutdown ends retries without committing, and is not kept waiting."""
    code = """
@app.retry(strategy="fixed_delay", max_retry_count="-1", delay_interval="00:10:00")
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("attempt")
    raise RuntimeError("refused on purpose")
"""
    broker.create(topic_name)
    broker.produce(topic_name, 1)
    host = hosts.start(hosts.app(code, OPTIONS))
    host.wait_log("before retry 1")

    assert host.stop(signal.SIGINT) == 0
    assert "Retries end because the host stops" in host.log()
    assert len(host.notes("attempt")) == 1
