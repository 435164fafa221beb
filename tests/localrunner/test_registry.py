"""The local schema registry, by Confluent's own client: what it promises in `docs/formats.md`."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient, SchemaRegistryError
from google.protobuf import timestamp_pb2

from localrunner.registry.cli import serve
from localrunner.registry.store import Entry, RegistryError, Store

FLIGHT = '{"type": "record", "name": "Flight", "fields": [{"name": "n", "type": "int"}]}'


@pytest.fixture
def client() -> Iterator[SchemaRegistryClient]:
    server = serve(Store(None), 0)
    with SchemaRegistryClient({"url": f"http://127.0.0.1:{server.server_port}"}) as found:
        yield found
    server.shutdown()
    server.server_close()


def test_confluents_client_registers_and_reads_back(client: SchemaRegistryClient) -> None:
    """Producers use this client; whatever they need of a registry has to be here."""
    first = client.register_schema("flights-value", Schema(FLIGHT, "AVRO"))
    again = client.register_schema("flights-value", Schema(FLIGHT, "AVRO"))
    other = client.register_schema("other", Schema(FLIGHT, "AVRO"))
    second = client.register_schema("flights-value", Schema('{"type": "object"}', "JSON"))

    assert (first, again, other, second) == (1, 1, 1, 2)
    assert client.get_schema(1).schema_str == FLIGHT
    assert client.get_schema(2).schema_type == "JSON"
    assert client.get_subjects() == ["flights-value", "other"]
    assert client.get_versions("flights-value") == [1, 2]
    assert client.get_latest_version("flights-value").schema_id == 2
    assert client.get_version("flights-value", 1).schema.schema_str == FLIGHT
    assert client.lookup_schema("flights-value", Schema(FLIGHT, "AVRO")).version == 1


def test_references_are_kept_and_must_exist(client: SchemaRegistryClient) -> None:
    outer = '{"type": "record", "name": "Outer", "fields": [{"name": "f", "type": "Flight"}]}'
    with pytest.raises(SchemaRegistryError) as raised:
        client.register_schema("o", Schema(outer, "AVRO", [SchemaReference("Flight", "flights-value", 1)]))
    assert raised.value.error_code == 40401

    client.register_schema("flights-value", Schema(FLIGHT, "AVRO"))
    found = client.register_schema("o", Schema(outer, "AVRO", [SchemaReference("Flight", "flights-value", 1)]))

    references = client.get_schema(found).references or []
    assert [(r.name, r.subject, r.version) for r in references] == [("Flight", "flights-value", 1)]


@pytest.mark.parametrize(
    "schema",
    [
        Schema('{"type": "recrod"}', "AVRO"),
        Schema("{", "AVRO"),
        Schema("{", "JSON"),
        Schema('syntax = "proto3";', "PROTOBUF"),
        Schema(base64.b64encode(b"\xff\xff").decode(), "PROTOBUF"),
        Schema("{}", "XML"),
    ],
)
def test_what_cannot_be_parsed_is_refused(client: SchemaRegistryClient, schema: Schema) -> None:
    with pytest.raises(SchemaRegistryError) as raised:
        client.register_schema("s", schema)

    assert raised.value.error_code == 42201
    assert client.get_subjects() == []


def test_what_is_not_there_has_confluents_codes(client: SchemaRegistryClient) -> None:
    """A reader tells an unknown id from a registry that is elsewhere by them."""
    client.register_schema("s", Schema(FLIGHT, "AVRO"))
    codes = []
    for ask in (
        lambda: client.get_schema(7),
        lambda: client.get_latest_version("nobody"),
        lambda: client.get_version("s", 2),
        lambda: client.lookup_schema("s", Schema('"int"', "AVRO")),
    ):
        with pytest.raises(SchemaRegistryError) as raised:
            ask()
        codes.append(raised.value.error_code)

    assert codes == [40403, 40401, 40402, 40403]


def test_protobuf_is_given_back_in_its_compiled_form(client: SchemaRegistryClient) -> None:
    text = base64.b64encode(timestamp_pb2.DESCRIPTOR.serialized_pb).decode()

    schema_id = client.register_schema("t", Schema(text, "PROTOBUF"))

    assert client.get_schema(schema_id, fmt="serialized").schema_str == text


def test_everything_survives_a_kill(tmp_path: Path) -> None:
    """Records in Kafka name their schemas by id: an id that changed would make nonsense of them."""
    command = [sys.executable, "-m", "localrunner", "registry", "--data", str(tmp_path / "registry")]

    def start() -> tuple[subprocess.Popen[str], SchemaRegistryClient]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, SchemaRegistryClient({"url": json.loads(process.stdout.readline())["registry"]})

    process, client = start()
    with process, client:
        assert client.register_schema("a", Schema(FLIGHT, "AVRO")) == 1
        assert client.register_schema("b", Schema('"int"', "AVRO")) == 2
        process.kill()
    process, client = start()
    with process, client:
        assert client.get_schema(2).schema_str == '"int"'
        assert client.register_schema("a", Schema('"long"', "AVRO")) == 3
        assert client.get_versions("a") == [1, 2]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_schemas_that_refer_to_each_other_end() -> None:
    """They cannot be registered here, but a file may hold them."""
    store = Store(None)
    store.register("a", Entry('"int"'))
    store._entries[0] = Entry('"int"', "AVRO", (("a", "a", 1),))

    with pytest.raises(RegistryError):
        store.register("b", Entry('"a"', "AVRO", (("a", "a", 1),)))
