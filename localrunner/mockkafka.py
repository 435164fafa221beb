"""librdkafka's embedded mock broker as a process: a Kafka that needs neither Java nor Docker, and forgets.

Run as a script: `python -m localrunner.mockkafka PORT TOPIC...`.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka.cimpl

from localrunner.kafka import TOPIC_PARTITIONS
from localrunner.processes import Child, spawn

COST = (
    "kafka: the mock broker keeps about 5 MB a partition (older records are dropped without a word), loses all"
    " of it when it ends, and cannot make or enlarge topics by request"
)
RELAY_BYTES = 65_536
ERROR_BYTES = 512
PRODUCER = 0
STOP_S = 5.0
ROOT = Path(__file__).resolve().parent.parent


def start(log: Path, port: int, topics: Sequence[str]) -> Child:
    """A mock broker with `topics` is starting on `127.0.0.1:port`."""
    command = [sys.executable, "-m", "localrunner.mockkafka", str(port), *topics]
    return spawn("kafka", command, log, cwd=ROOT)


def open_broker(topics: Sequence[str]) -> tuple[str, int]:
    """A broker in this process, for as long as it lives, which has `topics`; its host and port.

    Source: librdkafka's rdkafka_mock.h; the wheel of confluent-kafka carries the library.
    """
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, ctypes.c_int, ctypes.c_int]

    error = ctypes.create_string_buffer(ERROR_BYTES)
    client = library.rd_kafka_new(PRODUCER, None, error, ERROR_BYTES)
    cluster = library.rd_kafka_mock_cluster_new(client, 1) if client else None
    if not cluster:
        sys.exit(f"mock broker: cannot be made: {error.value.decode(errors='replace')}")
    for topic in topics:
        if library.rd_kafka_mock_topic_create(cluster, topic.encode(), TOPIC_PARTITIONS, 1) != 0:
            sys.exit(f"mock broker: topic {topic}: cannot be made")
    host, _, port = library.rd_kafka_mock_cluster_bootstraps(cluster).decode().rpartition(":")
    return host, int(port)


async def relay(port: int, broker: tuple[str, int]) -> None:
    """Clients that ask `127.0.0.1:port` get the broker's answers, until SIGTERM.

    The mock takes a port at random, and another one when it is started again. Clients learn that one from
    the metadata that they ask for here, so this address is the one that stays.
    """

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(RELAY_BYTES):
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass  # The one side that is left sees the end below.
        finally:
            target.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(*broker)
        await asyncio.gather(copy(reader, broker_writer), copy(broker_reader, writer))

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await asyncio.start_server(connect, "127.0.0.1", port)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), open_broker(sys.argv[2:])))
