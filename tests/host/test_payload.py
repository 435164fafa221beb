"""What reaches a function is what the Kafka extension sends: docs/functions-host.md, "Payload"."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.host.hosting import WAIT_S, Broker, Hosts, eventually

NOTE_ALL = """
@trigger(data_type="{data_type}", key_data_type="{key_type}")
def take(records: typing.List[func.KafkaEvent]) -> None:
    for r in records:
        note("record", body=r.get_body().hex(), key=r.key, headers=r.headers, timestamp=r.timestamp,
             partition=r.partition, offset=r.offset, topic=r.topic)
    note("batch", metadata=sorted(records[0].metadata), epochs=records[0].metadata["LeaderEpochArray"],
         ends=records[0].metadata["IsPartitionEOFArray"])
"""

# 2013-01-01T10:00:00Z
MOMENT_MS = 1_357_034_400_000


def app_noting_all(data_type: str, key_type: str) -> str:
    return NOTE_ALL.replace("{data_type}", data_type).replace("{key_type}", key_type)


def delivered(hosts: Hosts, broker: Broker, topic: str, code: str, records: list[dict[str, Any]]) -> Any:
    broker.create(topic)
    for record in records:
        broker.producer.produce(topic, partition=0, **record)
    assert broker.producer.flush(WAIT_S) == 0
    return hosts.start(hosts.app(code))


def test_binary_records_arrive_with_values_keys_headers_and_timestamps_as_the_extension_sends_them(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """docs/functions-host.md, "Payload", column `binary`.

    A null value is an empty one; keys are base64; duplicate headers keep their order, null values are null;
    timestamps lose trailing zeros; Kafka's "no timestamp" is the last millisecond of 1969.
    """
    records: list[dict[str, Any]] = [
        {"value": b"\x00\xff plain", "key": b"\xff\xfe", "timestamp": MOMENT_MS},
        {"value": None, "key": b"k", "timestamp": MOMENT_MS + 100},
        {"value": b"", "key": None, "timestamp": MOMENT_MS + 120},
        {"value": b"h", "headers": [("a", b"\xff"), ("b", None), ("a", b"")], "timestamp": MOMENT_MS + 123},
        {"value": b"n", "key": b"", "timestamp": -1},
    ]
    host = delivered(hosts, broker, topic_name, app_noting_all("binary", "binary"), records)

    got = host.wait_notes("record", 5)
    assert [bytes.fromhex(record["body"]) for record in got] == [b"\x00\xff plain", b"", b"", b"h", b"n"]
    assert [record["key"] for record in got] == ["//4=", "aw==", None, None, ""]
    assert [record["timestamp"] for record in got] == [
        "2013-01-01T10:00:00Z",
        "2013-01-01T10:00:00.1Z",
        "2013-01-01T10:00:00.12Z",
        "2013-01-01T10:00:00.123Z",
        "1969-12-31T23:59:59.999Z",
    ]
    assert got[3]["headers"] == [
        {"Key": "a", "Value": "/w=="},
        {"Key": "b", "Value": None},
        {"Key": "a", "Value": ""},
    ]
    assert got[0]["headers"] == []
    assert [(record["topic"], record["partition"], record["offset"]) for record in got] == [
        (topic_name, 0, offset) for offset in range(5)
    ]
    batch = host.wait_notes("batch", 1)[0]
    assert batch["metadata"] == [
        "HeadersArray",
        "IsPartitionEOFArray",
        "KeyArray",
        "LeaderEpochArray",
        "OffsetArray",
        "PartitionArray",
        "TimestampArray",
        "TopicArray",
    ]
    assert json.loads(batch["epochs"]) == [0] * 5
    assert json.loads(batch["ends"]) == [False] * 5


def test_string_mode_wraps_the_value_into_an_envelope_and_destroys_what_is_not_utf8(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """docs/functions-host.md, "Payload": in string mode `get_body()` is an envelope, and keys decode lossily."""
    records: list[dict[str, Any]] = [
        {"value": b"\xff\xfe", "key": b"\xff\xfe", "headers": [("a", b"1")], "timestamp": MOMENT_MS},
        {"value": None, "key": None, "timestamp": MOMENT_MS},
    ]
    host = delivered(hosts, broker, topic_name, app_noting_all("string", "string"), records)

    first, second = host.wait_notes("record", 2)
    assert first["key"] == "\ufffd\ufffd"
    envelope = json.loads(bytes.fromhex(first["body"]))
    assert list(envelope) == [
        "Offset",
        "Partition",
        "Topic",
        "Timestamp",
        "Value",
        "LeaderEpoch",
        "IsPartitionEOF",
        "Key",
        "Headers",
    ]
    assert envelope["Value"] == "\ufffd\ufffd"
    assert envelope["Headers"] == [{"Key": "a", "Value": base64.b64encode(b"1").decode()}]
    assert json.loads(bytes.fromhex(second["body"]))["Value"] is None


@pytest.mark.parametrize(("key_type", "length"), [("int", 4), ("long", 8)])
def test_a_key_that_is_no_integer_leaves_its_record_out_where_keys_are_integers(
    hosts: Hosts, broker: Broker, topic_name: str, group: str, key_type: str, length: int
) -> None:
    """docs/functions-host.md, "Payload": a null or odd-length key fails to deserialize; the record is skipped, and
    its offset is committed with the next one's."""
    records: list[dict[str, Any]] = [
        {"value": b"none", "key": None},
        {"value": b"odd", "key": b"abc"},
        {"value": b"other", "key": bytes(12 - length)},
        {"value": b"good", "key": (-2).to_bytes(length, "big", signed=True)},
    ]
    host = delivered(hosts, broker, topic_name, app_noting_all("binary", key_type), records)

    (record,) = host.wait_notes("record", 1)
    assert (record["key"], bytes.fromhex(record["body"])) == (-2, b"good")
    assert host.log().count("Consume error") == 3
    eventually("all are committed", lambda: broker.committed(group) == {0: 4})
