"""What a rebalance does to lists, batches and offsets: docs/functions-host.md, "Offsets and failures"."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from tests.host.hosting import Broker, Hosts, RunningHost, eventually, never

PARTITIONS = 2
RECORDS = 5
# Invocation number N of the first host ends when the file `go-N` is there; the second host's end at once.
NOTE_HOST = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    number = seen("first")
    note(os.environ["HOST_NAME"], places=places(records))
    if os.environ["HOST_NAME"] == "first":
        until(f"go-{number}")
"""
# A batch is full with one partition's records more than there are, so nothing is flushed before a rebalance.
WINDOW_S = 3600
OVERRIDE = "AzureFunctionsJobHost__extensions__kafka__maxBatchSize"
SAFE = {"commitOnFailure": False, "maxRetries": -1}


def prepared(hosts: Hosts, broker: Broker, topic: str, batch_records: int) -> RunningHost:
    """The first host has all partitions and has begun to collect or to run."""
    broker.create(topic, PARTITIONS)
    for partition in range(PARTITIONS):
        broker.produce(topic, RECORDS, partition)
    options = {
        **SAFE,
        "maxBatchSize": batch_records,
        "subscriberIntervalInSeconds": WINDOW_S,
        "libkafkaDebug": "cgrp,topic,msg",
    }
    app = hosts.app(NOTE_HOST, options, logging={"logLevel": {"Host.Triggers.Kafka": "Debug"}})
    return hosts.start(app, HOST_NAME="first")


def joined(hosts: Hosts, first: RunningHost) -> RunningHost:
    """A second host in the same group; it takes a partition's records as one batch."""
    return hosts.start(first.app, HOST_NAME="second", **{OVERRIDE: str(RECORDS)})


def offsets(places: Iterable[list[int]], partition: int) -> list[int]:
    return [offset for found, offset in places if found == partition]


def stored(host: RunningHost) -> list[tuple[int, int]]:
    """Partition and next offset of each store that succeeded, in order."""
    lines = [line.rpartition("Stored commit offset ")[2] for line in host.log().splitlines() if "Stored" in line]
    return [(int(partition), int(offset)) for _, partition, offset in (line.split(" / ") for line in lines)]


def test_a_list_outlives_a_revoke_and_runs_backwards(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """KafkaListener.cs: nothing clears the list. What was consumed before a second host joined is still in it, the
    partition that stayed is rewound to its committed offset inside it, and the one that went is in both hosts'."""
    first = prepared(hosts, broker, topic_name, (PARTITIONS + 1) * RECORDS)
    first.wait_log("Assigned partitions")
    for partition in range(PARTITIONS):
        # The host polls it from there at once, and shows nothing of that; a second one takes far longer to join.
        first.wait_log(f"on {topic_name} [{partition}] fetch queue")
    second = joined(hosts, first)
    (taken,) = second.wait_notes("second", 1)
    ((gone, _), *_) = taken["places"]
    (kept,) = {0, 1} - {gone}

    (batch,) = first.wait_notes("first", 1)
    assert offsets(batch["places"], kept) == [*range(RECORDS), *range(RECORDS)]
    assert offsets(batch["places"], gone) == list(range(RECORDS)) == offsets(taken["places"], gone)
    assert len(taken["places"]) == RECORDS


def test_the_first_store_that_fails_leaves_out_the_rest_of_its_batch(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """MultipleItemFunctionExecutor.cs stores from the end of the list to its beginning, AsyncCommitStrategy.cs
    ends with the first error: a partition that this host still has can be left out with the one it has lost."""
    broker.create(topic_name, 4)
    options = {**SAFE, "maxBatchSize": 4, "subscriberIntervalInSeconds": WINDOW_S}
    first = hosts.start(hosts.app(NOTE_HOST, options), HOST_NAME="first")
    first.wait_log("Assigned partitions")
    # A host gets 0 and 1 or 2 and 3: in this order there is always one of its own behind one that it has lost.
    for partition in (3, 1, 2, 0):
        broker.produce(topic_name, 1, partition)
        time.sleep(0.1)  # one after the other; the assertion holds in any order
    (batch,) = first.wait_notes("first", 1)
    second = hosts.start(first.app, HOST_NAME="second", **{OVERRIDE: "2"})
    (taken,) = second.wait_notes("second", 1)
    gone = {partition for partition, _ in taken["places"]}

    first.release("go-0")
    first.wait_log("Commit error: Local: Erroneous state")
    order = list(dict.fromkeys(partition for partition, _ in reversed(batch["places"])))
    expected = [(partition, 1) for partition in itertools.takewhile(lambda found: found not in gone, order)]
    never("another partition is stored", lambda: stored(first) != expected)


def test_a_late_store_for_a_partition_that_came_back_moves_its_committed_offset_back(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """A batch in flight runs on through two rebalances. Its partition was another host's meanwhile, which has
    committed beyond it, and is back: the store succeeds, and what that other host had done comes again.

    librdkafka's timer commits only what is above the offset that came with the assignment (rdkafka_partition.c,
    rd_kafka_topic_partition_list_set_offsets). But when the partition goes, as at a stop or with a third host, it
    commits what is stored, whatever that is (rdkafka_assignment.c, rd_kafka_assignment_serve_removals).
    """
    first = prepared(hosts, broker, topic_name, PARTITIONS * RECORDS)
    first.wait_notes("first", 1)
    second = joined(hosts, first)
    ((gone, _), *_) = second.wait_notes("second", 1)[0]["places"]
    (kept,) = {0, 1} - {gone}
    broker.produce(topic_name, RECORDS, gone)
    eventually("the second committed", lambda: broker.committed(group) == {gone: 2 * RECORDS})
    assigned = first.log().count("Assigned partitions")
    assert second.stop() == 0
    eventually("the first has both", lambda: first.log().count("Assigned partitions") > assigned)

    first.release("go-0")
    eventually("the other is committed", lambda: broker.committed(group).get(kept) == RECORDS)
    assert sorted(stored(first)) == [(0, RECORDS), (1, RECORDS)]
    assert broker.committed(group)[gone] == 2 * RECORDS, "not by the timer"

    first.release("go-1")  # what its list holds by now may be running
    assert first.stop() == 0
    assert broker.committed(group) == {kept: RECORDS, gone: RECORDS}
    third = hosts.start(first.app, HOST_NAME="third", **{OVERRIDE: str(RECORDS)})
    (again,) = third.wait_notes("third", 1)
    assert again["places"] == [[gone, offset] for offset in range(RECORDS, 2 * RECORDS)]


def test_a_batch_that_takes_longer_than_the_longest_poll_is_taken_again(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Batches": while a batch waits for room nothing is polled, so a function that runs
    longer than maxPollIntervalMs costs its host the assignment, and what it was given comes again."""
    broker.create(topic_name)
    broker.produce(topic_name, 4)
    host = hosts.start(
        hosts.app(NOTE_HOST, {**SAFE, "maxBatchSize": 1, "maxPollIntervalMs": 6000}), HOST_NAME="first"
    )
    host.wait_notes("first", 1)
    host.wait_log("is full, waiting")
    eventually("the group has no member", lambda: broker.members(group) == 0)
    assert broker.committed(group) == {}

    for number in range(12):
        host.release(f"go-{number}")
    eventually("everything is committed in the end", lambda: broker.committed(group) == {0: 4})
    counts = [note["places"][0][1] for note in host.notes("first")]
    assert counts[:3] == [0, 1, 2], "the three batches in existence run, assignment or not"
    assert counts.count(0) == 2
    assert "maximum poll interval (6000ms) exceeded" in host.log()
    assert host.log().count("Assigned partitions") == 2
