"""When offsets are stored, and what a failure costs: docs/functions-host.md, "Offsets and failures"."""

from __future__ import annotations

from tests.host.hosting import Broker, Hosts, eventually

NOTE_AND_WAIT = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    until("release")
    note("end")
"""

FAIL_AT_FIRST = """
FAILURES = {failures}

@trigger()
def take(records: typing.List[func.KafkaEvent], context: func.Context) -> None:
    retry = context.retry_context
    note("attempt", places=places(records), retry=retry.retry_count, maximum=retry.max_retry_count,
         name=context.function_name, exception=retry.exception.message)
    if seen("attempt") <= FAILURES:
        raise RuntimeError("refused on purpose")
"""


def failing(failures: int, retry: str = "") -> str:
    code = FAIL_AT_FIRST.replace("{failures}", str(failures))
    return code.replace("@trigger()", f"{retry}\n@trigger()") if retry else code


def test_offsets_are_stored_after_the_invocation_and_not_before(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": last offset + 1 of each partition, once it has succeeded."""
    broker.create(topic_name, partitions=2)
    broker.produce(topic_name, 3, 0)
    broker.produce(topic_name, 4, 1)
    host = hosts.start(hosts.app(NOTE_AND_WAIT))
    host.wait_notes("begin", 1)
    assert broker.committed(group) == {}

    host.release("release")
    eventually("both offsets are committed", lambda: broker.committed(group) == {0: 3, 1: 4})


def test_with_default_settings_a_failed_batch_is_skipped_and_lost(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": commitOnFailure defaults to true. The sink's guard against
    skipping is worth nothing if it is tested on a host that does not skip."""
    broker.create(topic_name)
    broker.produce(topic_name, 4)
    host = hosts.start(hosts.app(failing(1), {"maxBatchSize": 2}))

    attempts = host.wait_notes("attempt", 2)
    eventually("everything is committed", lambda: broker.committed(group) == {0: 4})
    assert [attempt["places"] for attempt in attempts] == [[[0, 0], [0, 1]], [[0, 2], [0, 3]]]
    host.stop()
    again = hosts.start(host.app)
    again.wait_log("Assigned partitions")
    broker.produce(topic_name, 1)
    assert again.wait_notes("attempt", 3)[2]["places"] == [[0, 4]]


def test_unlimited_retries_repeat_the_same_batch_until_it_succeeds(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": commitOnFailure false and maxRetries -1 lose nothing."""
    broker.create(topic_name)
    broker.produce(topic_name, 2)
    options = {"maxBatchSize": 2, "commitOnFailure": False, "maxRetries": -1}
    host = hosts.start(hosts.app(failing(8), options))

    attempts = host.wait_notes("attempt", 9)
    eventually("the batch is committed", lambda: broker.committed(group) == {0: 2})
    assert [attempt["places"] for attempt in attempts] == [[[0, 0], [0, 1]]] * 9
    assert "max retries" not in host.log()


def test_finite_retries_commit_a_failed_batch_in_the_end(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": after maxRetries, without any delay, the offsets are
    committed, and the function goes on with what follows."""
    broker.create(topic_name)
    broker.produce(topic_name, 4)
    options = {"maxBatchSize": 2, "commitOnFailure": False, "maxRetries": 2}
    host = hosts.start(hosts.app(failing(3), options))

    attempts = host.wait_notes("attempt", 4)
    eventually("both batches are committed", lambda: broker.committed(group) == {0: 4})
    assert [attempt["places"][0][1] for attempt in attempts] == [0, 0, 0, 2]
    assert "max retries (2) exceeded" in host.log()
    assert "before retry" not in host.log(), "nothing waits between them, as a policy's would"


def test_a_retry_policy_runs_inside_each_retry_of_the_extension(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": attempts = (policy + 1) x (maxRetries + 1), and
    `context.retry_context` knows the policy's alone."""
    broker.create(topic_name)
    broker.produce(topic_name, 2)
    policy = '@app.retry(strategy="fixed_delay", max_retry_count="1", delay_interval="00:00:00")'
    options = {"maxBatchSize": 1, "commitOnFailure": False, "maxRetries": 1}
    host = hosts.start(hosts.app(failing(4, policy), options))

    attempts = host.wait_notes("attempt", 5)
    assert [attempt["places"][0][1] for attempt in attempts] == [0, 0, 0, 0, 1]
    assert [attempt["retry"] for attempt in attempts] == [0, 1, 0, 1, 0]
    assert {attempt["maximum"] for attempt in attempts} == {1}
    assert {attempt["name"] for attempt in attempts} == {"take"}
    assert ["refused on purpose" in attempt["exception"] for attempt in attempts] == [
        False,
        True,
        False,
        True,
        False,
    ]


def test_an_unlimited_policy_waits_between_attempts(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """docs/functions-host.md, "Offsets and failures": -1 is unlimited; the exponential strategy begins at its
    minimum."""
    broker.create(topic_name)
    broker.produce(topic_name, 1)
    policy = (
        '@app.retry(strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:01",'
        ' maximum_interval="00:01:00")'
    )
    host = hosts.start(hosts.app(failing(1, policy), {"maxBatchSize": 1}))

    first, second = host.wait_notes("attempt", 2)
    assert (first["retry"], second["retry"], second["maximum"]) == (0, 1, -1)
    _, before, after = host.log().split("Executing 'Functions.take'")
    assert "Waiting 1.000 s before retry 1 (policy maximum -1)" in before
    assert "Waiting" not in after


def test_returning_anything_but_none_fails_the_invocation(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """docs/functions-host.md, "Offsets and failures": and so the whole batch is retried."""
    broker.create(topic_name)
    broker.produce(topic_name, 1)
    code = """
@trigger()
async def take(records: typing.List[func.KafkaEvent]):
    note("attempt")
    return "done" if seen("attempt") == 1 else None
"""
    host = hosts.start(hosts.app(code, {"maxBatchSize": 1, "commitOnFailure": False, "maxRetries": -1}))

    host.wait_notes("attempt", 2)
    host.wait_log("returned a non-None value")
