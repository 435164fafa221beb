"""The page on moving from the connector, done as it says, with Kafka's own tool on a real broker."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from localrunner.plan import ROOT
from sinkcore.kafkalog import ConfluentLog
from sinkcore.operate import start_topic
from sinkcore.partitions import SILENT_SWEEPS
from tests.kafka.topics import Topics
from tests.support.app import World, settings_of
from tests.support.events import Sent, events_of

PAGE = (ROOT / "docs" / "from-the-connector.md").read_text()
TOOL_S = 60
# What `kafka-consumer-groups` starts.
TOOL = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
LIBS = ROOT / ".local" / "kafka" / "libs"


def commands_of_the_page(topic: str, broker: str) -> str:
    """The page's two commands for a topic of ours and the connector `sink`."""
    (block,) = re.findall(r"```sh\n(\s+kafka-consumer-groups.*?)```", PAGE, flags=re.DOTALL)
    java = f"java -cp {shlex.quote(str(LIBS / '*'))} {TOOL}"
    for name, value in {"BROKER": broker, "connect-NAME": "connect-sink", "flights": topic}.items():
        block = block.replace(name, value)
    return str(block.replace("kafka-consumer-groups", java))


@pytest.mark.skipif(not LIBS.is_dir(), reason="Kafka's tools need a Java")
def test_the_sink_begins_where_the_connectors_group_stands_and_loses_nothing_to_kafkas_tool(
    topics: Topics, log: ConfluentLog, kafka: str, tmp_path: Path
) -> None:
    """The tool sends the trigger past a partition in which the connector had committed nothing."""
    topic = topics.make(partitions=3)
    for partition in range(3):
        topics.fill(topic, [b"{}"] * 9, partition=partition)
    topics.commit_offsets("connect-sink", {(topic, 0): 4, (topic, 2): 9})
    world = World(settings_of({"topic": topic}))
    sink = world.sink(kafka=log)

    positions = start_topic(sink, topic, "connect-sink")
    subprocess.run(
        ["bash", "-e", "-c", commands_of_the_page(topic, kafka)], cwd=tmp_path, check=True, timeout=TOOL_S
    )

    assert {p: each.next_offset for p, each in positions.items()} == {0: 4, 1: 0, 2: 9}
    assert log.committed(f"adx-sink-{topic}", topic) == {0: 4, 1: 9, 2: 9}
    sink.deliver(topic, events_of([Sent(b"{}", n) for n in range(4, 9)], topic))
    for _ in range(SILENT_SWEEPS + 1):
        world.sweep(sink)
    assert world.queued_offsets() == Counter([(0, n) for n in range(4, 9)] + [(1, n) for n in range(9)])
