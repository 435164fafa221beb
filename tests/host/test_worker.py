"""The worker's process: time-outs, crashes, and its end with the host: docs/functions-host.md, "Worker"."""

from __future__ import annotations

import os
import signal

import pytest

from tests.host.hosting import Broker, Hosts, alive, eventually

RETRY_FOR_EVER = {"maxBatchSize": 2, "commitOnFailure": False, "maxRetries": -1}


def test_a_function_that_runs_too_long_is_killed_with_its_worker(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Worker": the worker process is killed, the batch is retried."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    if seen("begin") == 1:
        time.sleep(600)
"""
    broker.create(topic_name)
    broker.produce(topic_name, 2)
    host = hosts.start(hosts.app(code, RETRY_FOR_EVER, functionTimeout="00:00:01"))

    first, second = host.wait_notes("begin", 2)
    assert first["pid"] != second["pid"]
    assert first["places"] == second["places"]
    assert "Timeout value of 1 s exceeded by function 'Functions.take'" in host.log()
    assert not alive(first["pid"])
    eventually("the batch is committed", lambda: broker.committed(group) == {0: 2})
    assert host.status()["worker"] == second["pid"]


def test_a_worker_killed_in_a_batch_is_replaced_and_the_batch_retried(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Worker": all executing invocations fail; the host starts another."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    if seen("begin") == 1:
        until("never")
"""
    broker.create(topic_name)
    broker.produce(topic_name, 2)
    host = hosts.start(hosts.app(code, RETRY_FOR_EVER))
    (first,) = host.wait_notes("begin", 1)
    os.kill(first["pid"], signal.SIGKILL)

    second = host.wait_notes("begin", 2)[1]
    assert (second["places"], second["pid"] != first["pid"]) == (first["places"], True)
    eventually("the batch is committed", lambda: broker.committed(group) == {0: 2})
    assert host.process.poll() is None


@pytest.mark.parametrize("what", ["os._exit(7)", "time.sleep(600)"])
def test_with_default_settings_a_batch_whose_worker_dies_is_skipped_by_the_host(
    hosts: Hosts, broker: Broker, topic_name: str, group: str, what: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": commitOnFailure covers crashes and time-outs too. No code of
    the app has run to its end, so it is the host that loses these records."""
    code = f"""
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    if seen("begin") == 1:
        {what}
"""
    broker.create(topic_name)
    broker.produce(topic_name, 4)
    host = hosts.start(hosts.app(code, {"maxBatchSize": 2}, functionTimeout="00:00:01"))

    begins = host.wait_notes("begin", 2)
    eventually("everything is committed", lambda: broker.committed(group) == {0: 4})
    assert [begin["places"][0][1] for begin in begins] == [0, 2]


def test_after_three_crashes_the_host_restarts_itself(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """docs/functions-host.md, "Worker": 3 x process count errors, then the host itself; nothing is lost."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    if seen("begin") <= 3:
        os._exit(7)
"""
    broker.create(topic_name)
    broker.produce(topic_name, 2)
    host = hosts.start(hosts.app(code, RETRY_FOR_EVER))

    begins = host.wait_notes("begin", 4)
    assert len({begin["pid"] for begin in begins}) == 4
    assert all(begin["places"] == [[0, 0], [0, 1]] for begin in begins)
    assert "the host restarts itself" in host.log()
    assert host.status()["pid"] == host.process.pid


def test_a_host_that_is_killed_leaves_no_worker(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """A worker that outlived its host would go on writing for a host that has taken its place."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin")
    until("never")
"""
    broker.create(topic_name)
    broker.produce(topic_name, 1)
    host = hosts.start(hosts.app(code, RETRY_FOR_EVER))
    (begin,) = host.wait_notes("begin", 1)
    host.stop(signal.SIGKILL)

    eventually("the worker is gone", lambda: not alive(begin["pid"]))


def test_what_the_app_logs_is_one_line_of_the_host_and_its_attributes_stay_behind(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """Azure's worker sends the message alone; the sink has its facts in it, and they would be there twice."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent], context: func.Context) -> None:
    logging.getLogger("sinkcore.sink").info("segment_queued {}", extra={"records": len(records), "blobs": 2})
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("a fault\\nin two lines")
    note("done", invocation=context.invocation_id, parent=context.trace_context.trace_parent)
"""
    broker.create(topic_name)
    broker.produce(topic_name, 3)
    host = hosts.start(hosts.app(code, {"maxBatchSize": 3}))

    (done,) = host.wait_notes("done", 1)
    host.wait_log("[Information] Function.take.User: segment_queued {}\n")
    host.wait_log("[Error] Function.take.User: a fault | in two lines | Traceback")
    host.wait_log(f"(Succeeded, Id={done['invocation']}")
    assert len(done["parent"].split("-")) == 4
