"""How batches are formed: docs/functions-host.md, "Batches"."""

from __future__ import annotations

import itertools
import time

from tests.host.hosting import Broker, Hosts, eventually, never

NOTE_PLACES = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("batch", places=places(records))
"""

NOTE_AND_WAIT = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("begin", places=places(records))
    until("release")
    note("end")
"""


def test_a_batch_mixes_partitions_and_keeps_the_order_within_each(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """docs/functions-host.md, "Batches": one list a function, in runs, not interleaved."""
    broker.create(topic_name, partitions=3)
    for partition in range(3):
        broker.produce(topic_name, 200, partition)
    host = hosts.start(hosts.app(NOTE_PLACES, {"maxBatchSize": 600, "subscriberIntervalInSeconds": 2}))

    eventually("all records came", lambda: sum(len(note["places"]) for note in host.notes("batch")) == 600)
    batches = [note["places"] for note in host.notes("batch")]
    places = [place for batch in batches for place in batch]
    for partition in range(3):
        assert [offset for found, offset in places if found == partition] == list(range(200))
    assert max(len({partition for partition, _ in batch}) for batch in batches) > 1
    changes = sum(before[0] != after[0] for before, after in itertools.pairwise(places))
    assert changes < 300


def test_full_batches_go_at_once_and_their_remainder_goes_later(
    hosts: Hosts, broker: Broker, topic_name: str, group: str
) -> None:
    """docs/functions-host.md, "Batches": flush at maxBatchSize, or at the end of a window in which no full batch
    was flushed, so that a remainder waits one to two intervals."""
    broker.create(topic_name)
    broker.produce(topic_name, 25)
    app = hosts.app(NOTE_PLACES, {"maxBatchSize": 10, "subscriberIntervalInSeconds": 3600})
    host = hosts.start(app)

    host.wait_notes("batch", 2)
    eventually("the full ones are committed", lambda: broker.committed(group) == {0: 20})
    never("the remainder goes before its window ends", lambda: len(host.notes("batch")) > 2)
    assert host.stop() == 0
    interval = "AzureFunctionsJobHost__extensions__kafka__subscriberIntervalInSeconds"
    hosts.start(app, **{interval: "1"})
    batches = host.wait_notes("batch", 3)
    assert [len(batch["places"]) for batch in batches] == [10, 10, 5]


def test_a_window_with_a_full_batch_flushes_no_remainder(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """docs/functions-host.md, "Batches": while each window fills a batch, no partial one is ever delivered."""
    broker.create(topic_name)
    host = hosts.start(hosts.app(NOTE_PLACES, {"maxBatchSize": 10, "subscriberIntervalInSeconds": 2}))
    host.wait_log("Assigned partitions")
    produced = 0
    # Seven at a time, so that a flush at the end of a window would nearly always find a remainder. It takes two
    # windows, each of them so long that a busy machine fills a batch in it, too.
    for _ in range(80):
        broker.produce(topic_name, 7)
        produced += 7
        time.sleep(0.05)
    eventually("all came", lambda: sum(len(note["places"]) for note in host.notes("batch")) == produced)

    # The first window may have held only the beginning, the last one the end.
    sizes = [len(note["places"]) for note in host.notes("batch")]
    assert set(sizes[1:-1]) == {10}


def test_a_partial_batch_goes_at_the_end_of_its_window(hosts: Hosts, broker: Broker, topic_name: str) -> None:
    """docs/functions-host.md, "Batches": records do not go one by one, and do not wait for a full batch."""
    broker.create(topic_name)
    host = hosts.start(hosts.app(NOTE_PLACES, {"maxBatchSize": 1000, "subscriberIntervalInSeconds": 1}))
    host.wait_log("Assigned partitions")
    broker.produce(topic_name, 3)
    first = host.wait_notes("batch", 1)
    broker.produce(topic_name, 2)

    batches = host.wait_notes("batch", len(first) + 1)
    assert sum(len(batch["places"]) for batch in batches) == 5
    assert len(batches) <= 4


def test_one_invocation_runs_at_a_time_and_three_batches_exist(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """docs/functions-host.md, "Batches": one executing, one queued, one waiting for room while nothing is
    polled."""
    broker.create(topic_name)
    broker.produce(topic_name, 50)
    host = hosts.start(hosts.app(NOTE_AND_WAIT, {"maxBatchSize": 5}))
    host.wait_notes("begin", 1)

    # The third batch begins at offset 10: that is what finds the channel full.
    host.wait_log(f"Channel {topic_name} / 0 / 10 is full")
    never("a second invocation runs", lambda: len(host.notes("begin")) > 1)
    assert "/ 0 / 15 is full" not in host.log()

    host.release("release")
    ends = host.wait_notes("end", 10)
    begins = host.notes("begin")
    assert [begin["places"][0][1] for begin in begins] == list(range(0, 50, 5))
    assert all(end["at"] <= begin["at"] for end, begin in zip(ends, begins[1:], strict=False))


def test_a_full_channel_is_looked_at_again_only_after_its_interval(
    hosts: Hosts, broker: Broker, topic_name: str
) -> None:
    """docs/functions-host.md, "Batches": the thread that polls sleeps channelFullRetryIntervalInMs, however soon
    the function is done; with small batches that, and not the function, is what a host's speed comes to."""
    broker.create(topic_name)
    broker.produce(topic_name, 8)
    an_hour = {"maxBatchSize": 1, "channelFullRetryIntervalInMs": 3_600_000}
    host = hosts.start(hosts.app(NOTE_AND_WAIT, an_hour))
    host.wait_log("is full, waiting")
    # The second batch finds the channel full if the first has not begun by then, or else the third does.
    waits = int(host.log().partition(" is full, waiting")[0].rpartition(" / ")[2])

    host.release("release")
    host.wait_notes("end", waits)
    never("there is room, and the hour is not over", lambda: len(host.notes("begin")) > waits)
