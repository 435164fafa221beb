"""The same host with Microsoft's own worker behind it: docs/functions-host.md, "Microsoft's own worker"."""

from __future__ import annotations

import json

import pytest

from localrunner.host.settings import SettingsError
from localrunner.host.workers import MICROSOFT, choose
from tests.host.hosting import WAIT_S, Broker, Hosts, eventually

OPTION = f"--worker={MICROSOFT}"


@pytest.fixture(scope="module", autouse=True)
def present() -> None:
    """Skips where the worker is not there, and says what is missing."""
    try:
        choose(MICROSOFT)
    except SettingsError as fault:
        pytest.skip(str(fault))


def test_it_decodes_what_the_extension_sends_and_the_batch_is_committed(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """Payload, context, logging and commit, by the runtime that Azure runs for Python 3.13."""
    code = """
@app.retry(strategy="fixed_delay", max_retry_count="3", delay_interval="00:00:00")
@trigger()
def take(records: typing.List[func.KafkaEvent], context: func.Context) -> None:
    logging.getLogger("sinkcore.sink").info("segment_queued records=%d", len(records))
    retry = context.retry_context
    note("batch", python=sys.version_info[:2], module=type(context).__module__, name=context.function_name,
         bodies=[r.get_body().hex() for r in records], keys=[r.key for r in records], headers=records[0].headers,
         offsets=[r.offset for r in records], timestamp=records[0].timestamp, retry=retry.retry_count)
    if seen("batch") == 1:
        raise RuntimeError("refused on purpose")
"""
    broker.create(topic_name)
    for value, key in ((b"\x00\xff", b"\xff"), (None, None)):
        broker.producer.produce(topic_name, value, key, headers=[("a", b"1")], timestamp=1_357_034_400_100)
    assert broker.producer.flush(WAIT_S) == 0
    host = hosts.start(hosts.app(code, {"maxBatchSize": 2}), OPTION)

    first, second = host.wait_notes("batch", 2)
    assert first["python"] == [3, 13]
    assert first["module"].startswith("azure_functions_runtime.")
    assert (first["name"], first["retry"], second["retry"]) == ("take", 0, 1)
    assert [bytes.fromhex(body) for body in first["bodies"]] == [b"\x00\xff", b""]
    assert (first["keys"], first["offsets"]) == (["/w==", None], [0, 1])
    assert first["headers"] == [{"Key": "a", "Value": "MQ=="}]
    assert first["timestamp"] == "2013-01-01T10:00:00.1Z"
    host.wait_log("Function.take.User: segment_queued records=2")
    host.wait_log("RuntimeError: refused on purpose")
    eventually("the batch is committed", lambda: broker.committed(group) == {0: 2})


def test_it_refuses_an_app_as_our_worker_does(hosts: Hosts) -> None:
    """Rules that our worker copies are worth what the original says of them."""
    code = """
@trigger()
def take(records: {annotation}) -> None:
    note("batch")
"""
    faults = {
        "list[func.KafkaEvent]": "has invalid non-type annotation",
        "func.TimerRequest": "annotation TimerRequest",
    }
    started = [
        (hosts.start(hosts.app(code.replace("{annotation}", annotation)), OPTION), reason)
        for annotation, reason in faults.items()
    ]

    for host, reason in started:
        status = host.wait_running()
        assert status["functions"] == []
        assert reason in status["error"]


def test_a_value_that_is_returned_and_a_worker_that_is_killed_fail_the_batch(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """The host's own rules hold whichever worker there is: retry, replace, commit."""
    code = """
@trigger()
def take(records: typing.List[func.KafkaEvent]):
    note("batch")
    if seen("batch") == 2:
        os._exit(7)
    return "done" if seen("batch") == 1 else None
"""
    broker.create(topic_name)
    broker.produce(topic_name, 1)
    options = {"maxBatchSize": 1, "commitOnFailure": False, "maxRetries": -1}
    host = hosts.start(hosts.app(code, options), OPTION)

    batches = host.wait_notes("batch", 3)
    assert "returned a non-None value" in host.log()
    assert batches[2]["pid"] != batches[1]["pid"]
    eventually("the batch is committed", lambda: broker.committed(group) == {0: 1})
    assert host.status()["worker"] == batches[2]["pid"]


def test_a_timer_runs_under_it(hosts: Hosts) -> None:
    """The sweeper is a timer."""
    code = """
@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True)
async def sweep(timer: func.TimerRequest) -> None:
    note("run", past_due=timer.past_due)
"""
    (run,) = hosts.start(hosts.app(code), OPTION).wait_notes("run", 1)

    assert json.dumps(run["past_due"]) == "false"
