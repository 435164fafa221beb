"""Kafka and Azurite as the tests get them."""

from __future__ import annotations

import urllib.request
import uuid

from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.conftest import Adx


def test_a_record_produced_to_kafka_is_consumed_again(kafka: str, topic_name: str) -> None:
    """The fixture is a broker that keeps records and runs groups, not only one that listens."""
    admin = AdminClient({"bootstrap.servers": kafka})
    created = admin.create_topics([NewTopic(topic_name, 2)])
    created[topic_name].result(timeout=10)
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic_name, b"value", key=b"key")
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic_name, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic_name])
    try:
        record = consumer.poll(20)
        assert record is not None
        assert (record.error(), record.key(), record.value()) == (None, b"key", b"value")
    finally:
        consumer.close()


def test_azurite_answers_the_real_clients_for_blobs_and_tables(azurite: str) -> None:
    """The ledger and the staged blobs meet Azure's own client libraries."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with BlobServiceClient.from_connection_string(azurite) as blobs:
        container = blobs.create_container(name)
        container.upload_blob("b", b"bytes")
        assert container.download_blob("b").readall() == b"bytes"
    with TableServiceClient.from_connection_string(azurite) as tables:
        table = tables.create_table(name)
        table.create_entity({"PartitionKey": "p", "RowKey": "r", "n": 1})
        assert table.get_entity("p", "r")["n"] == 1


def test_the_double_answers_on_both_of_its_endpoints(adx: Adx) -> None:
    """What the tests of the way into ADX stand on."""
    for url in (adx.dm, adx.engine):
        with urllib.request.urlopen(f"{url}/local/health", timeout=10) as answer:  # noqa: S310 -- loopback
            assert answer.status == 200
