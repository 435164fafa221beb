"""One record an invocation, cardinality `one`: docs/functions-host.md, "One record an invocation"."""

from __future__ import annotations

from typing import Any

import pytest

from localrunner.host.settings import SettingsError
from localrunner.host.workers import EMULATED, MICROSOFT, choose
from tests.host.hosting import WAIT_S, Broker, Hosts, eventually

NOTE_ONE = """
@trigger(cardinality="one", arg_name="record", data_type="{data_type}", key_data_type="{key_type}")
def take(record: func.KafkaEvent) -> None:
    note("record", body=record.get_body().decode(), key=record.key, partition=record.partition, topic=record.topic,
         offset=record.offset, headers=record.headers, timestamp=record.timestamp)
"""


def app_noting_one(data_type: str, key_type: str) -> str:
    return NOTE_ONE.replace("{data_type}", data_type).replace("{key_type}", key_type)


def send(broker: Broker, topic: str, *keys: bytes | None) -> None:
    broker.create(topic)
    for key in keys:
        broker.producer.produce(topic, b"v", key, headers=[("a", b"1")], timestamp=1_357_034_400_120, partition=0)
    assert broker.producer.flush(WAIT_S) == 0


@pytest.mark.parametrize("worker", [EMULATED, MICROSOFT])
def test_a_record_arrives_alone_with_all_that_a_batch_has(
    hosts: Hosts, broker: Broker, topic_name: str, group: str, worker: str
) -> None:
    """KafkaTriggerBindingStrategy.cs, AddBindingData of one event: names without `Array`, and no key as none."""
    try:
        choose(worker)
    except SettingsError as fault:
        pytest.skip(str(fault))
    send(broker, topic_name, b"EWR", None)
    host = hosts.start(hosts.app(app_noting_one("binary", "string")), f"--worker={worker}")

    records = host.wait_notes("record", 2)
    facts: list[dict[str, Any]] = [
        {name: value for name, value in record.items() if name not in ("what", "at", "pid")} for record in records
    ]
    same = {
        "body": "v",
        "partition": 0,
        "topic": topic_name,
        "headers": [{"Key": "a", "Value": "MQ=="}],
        "timestamp": "2013-01-01T10:00:00.12Z",
    }
    assert facts == [same | {"key": "EWR", "offset": 0}, same | {"key": None, "offset": 1}]
    eventually("each is committed", lambda: broker.committed(group) == {0: 2})


def test_a_binary_key_fails_every_invocation_and_the_host_skips_the_record(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """GrpcMessageConversionExtensions.cs sends a lone key as bytes, which azure-functions does not decode: BINARY
    keys and cardinality `one` do not go together, and with the default commitOnFailure that loses everything."""
    send(broker, topic_name, b"EWR")
    host = hosts.start(hosts.app(app_noting_one("binary", "binary")))

    host.wait_log("unsupported type of field 'Key' in trigger metadata: bytes")
    eventually("it is committed all the same", lambda: broker.committed(group) == {0: 1})
    assert host.notes("record") == []


def test_partitions_run_side_by_side_each_in_order_and_a_failure_holds_back_its_own_alone(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """SingleItemFunctionExecutor.cs: a task a partition; each record is stored and retried by itself."""
    code = """
@trigger(cardinality="one", arg_name="record", key_data_type="string")
def take(record: func.KafkaEvent) -> None:
    note("begin", partition=record.partition, offset=record.offset)
    if record.partition == 0 and record.offset == 1:
        until("release")
        raise RuntimeError("refused on purpose")
"""
    broker.create(topic_name, partitions=2)
    for partition in range(2):
        broker.produce(topic_name, 3, partition)
    options = {"maxBatchSize": 6, "subscriberIntervalInSeconds": 5, "commitOnFailure": False, "maxRetries": 1}
    host = hosts.start(hosts.app(code, options))

    eventually("the other partition is through", lambda: broker.committed(group) == {0: 1, 1: 3})
    host.release("release")
    eventually("the record is skipped in the end", lambda: broker.committed(group) == {0: 3, 1: 3})
    begins = [(note["partition"], note["offset"]) for note in host.notes("begin")]
    assert [offset for partition, offset in begins if partition == 0] == [0, 1, 1, 2]
    assert [offset for partition, offset in begins if partition == 1] == [0, 1, 2]
    assert f"Message at {topic_name} / 0 / 1 failed and max retries (1) exceeded" in host.log()
