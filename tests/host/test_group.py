"""Several hosts in one consumer group: docs/functions-host.md, "Batches" and "Offsets and failures"."""

from __future__ import annotations

from tests.host.hosting import Broker, Hosts, RunningHost, eventually

PARTITIONS = 4
NOTE_HOST = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("batch", places=places(records), host=os.environ["HOST_NAME"])
    if os.environ["HOST_NAME"] == "first":
        until("release")
    note("end", places=places(records), host=os.environ["HOST_NAME"])
"""
OPTIONS = {"maxBatchSize": 2 * PARTITIONS, "commitOnFailure": False, "maxRetries": -1}


def taken_by(host: RunningHost, name: str) -> set[tuple[int, int]]:
    notes = [note for note in host.notes("end") if note["host"] == name]
    return {(partition, offset) for note in notes for partition, offset in note["places"]}


def test_hosts_share_partitions_and_a_revoked_one_refuses_the_offsets_of_the_batch_it_was_in(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Offsets and failures": a batch in flight still runs, its store fails, the first
    error leaves out the batch's other partitions, and the new owner gets the records once more. What one host
    gives up by stopping, the other takes over; nothing is lost."""
    broker.create(topic_name, PARTITIONS)
    for partition in range(PARTITIONS):
        broker.produce(topic_name, 2, partition)
    app = hosts.app(NOTE_HOST, OPTIONS)
    first = hosts.start(app, HOST_NAME="first")
    first.wait_notes("batch", 1)
    second = hosts.start(app, HOST_NAME="second")
    again = eventually("the second host has taken records", lambda: taken_by(second, "second"))
    assert {offset for _, offset in again} == {0, 1}

    first.release("release")
    first.wait_log("Commit error: Local: Erroneous state")
    assert again <= eventually("the first ended its batch", lambda: taken_by(first, "first"))

    assert second.stop() == 0
    for partition in range(PARTITIONS):
        broker.produce(topic_name, 1, partition)
    last = {(partition, 2) for partition in range(PARTITIONS)}
    eventually("the first host has all partitions", lambda: last <= taken_by(first, "first"))
    whole = dict.fromkeys(range(PARTITIONS), 3)
    eventually("everything is committed", lambda: broker.committed(group) == whole)
