"""The schema registry's client, against the local registry, directly and through a proxy that fails."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import timestamp_pb2

from localrunner.registry.cli import serve
from localrunner.registry.store import Entry, Store
from sinkcore.connections import SchemaRegistry
from sinkcore.errors import TransientError
from sinkcore.registry import UNKNOWN_FOR_S, Registry
from sinkcore.schemas import SCHEMA_MAX_BYTES, Reference, Schema
from tests.support.memory import ManualClock
from tests.support.proxy import Fault, FaultProxy, proxy_to

FLIGHT = '{"type": "record", "name": "Flight", "fields": [{"name": "n", "type": "int"}]}'


@pytest.fixture
def store() -> Store:
    return Store(None)


@pytest.fixture
def proxy(store: Store) -> Iterator[FaultProxy]:
    """The local registry, behind a proxy that lets everything through until a fault is set."""
    server = serve(store, 0)
    try:
        with proxy_to(f"http://127.0.0.1:{server.server_port}") as found:
            yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(proxy: FaultProxy, clock: ManualClock) -> Registry:
    return Registry(SchemaRegistry(url=proxy.url), clock)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode())  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def test_a_schema_is_asked_for_once_and_never_again(store: Store, proxy: FaultProxy, registry: Registry) -> None:
    """What an id means never changes, and a request a batch would be a registry's ruin."""
    schema_id = store.register("flights-value", Entry(FLIGHT))

    found = [registry.schema(schema_id) for _ in range(3)]

    assert found == [Schema("AVRO", FLIGHT)] * 3
    assert proxy.seen == [f"GET /schemas/ids/{schema_id}"]


def test_an_unknown_id_is_asked_for_again_after_seconds(
    store: Store, proxy: FaultProxy, registry: Registry, clock: ManualClock
) -> None:
    """Soon, for a replica may lag; not at once, for a topic of other data asks with every record."""
    assert registry.schema(1) is None
    store.register("flights-value", Entry(FLIGHT))
    clock.advance(UNKNOWN_FOR_S - 1)
    assert registry.schema(1) is None
    assert len(proxy.seen) == 1

    clock.advance(2)

    assert registry.schema(1) == Schema("AVRO", FLIGHT)


def test_what_a_schema_refers_to_comes_with_it(store: Store, registry: Registry) -> None:
    inner = '{"type": "record", "name": "Inner", "fields": []}'
    outer = '{"type": "record", "name": "Outer", "fields": [{"name": "i", "type": "Inner"}]}'
    store.register("a/b c", Entry(inner))
    outer_id = store.register("outer", Entry(outer, "AVRO", (("Inner", "a/b c", 1),)))

    assert registry.schema(outer_id) == Schema("AVRO", outer, (Reference("Inner", Schema("AVRO", inner)),))


def test_a_protobuf_schema_comes_in_its_compiled_form(store: Store, proxy: FaultProxy, registry: Registry) -> None:
    text = base64.b64encode(timestamp_pb2.DESCRIPTOR.serialized_pb).decode()
    schema_id = store.register("t", Entry(text, "PROTOBUF"))

    assert registry.schema(schema_id) == Schema("PROTOBUF", text)
    assert proxy.seen[1] == f"GET /schemas/ids/{schema_id}?format=serialized"


def test_a_registry_without_the_compiled_form_is_a_fault_of_the_set_up(
    store: Store, proxy: FaultProxy, registry: Registry
) -> None:
    """No record is to blame, so none becomes a dead letter."""
    text = base64.b64encode(timestamp_pb2.DESCRIPTOR.serialized_pb).decode()
    schema_id = store.register("t", Entry(text, "PROTOBUF"))
    answer = json.dumps({"schemaType": "PROTOBUF", "schema": 'syntax = "proto3";'}).encode()
    proxy.faults = [Fault(edit=lambda _: answer)]

    with pytest.raises(TransientError, match="no serialized form"):
        registry.schema(schema_id)


TRANSIENT: list[tuple[Fault, str]] = [
    (Fault(), "no answer to /schemas/ids/1 (RemoteDisconnected)"),
    *(
        (Fault(status=status, reply=("application/json", b'{"error_code": %d, "message": "m"}' % code)), words)
        for status, code, words in (
            (401, 401, "HTTP 401"),
            (403, 40301, "HTTP 403"),
            (404, 404, "HTTP 404"),
            (429, 42900, "HTTP 429"),
            (500, 50001, "HTTP 500"),
            (503, 40403, "HTTP 503"),
        )
    ),
    (Fault(status=404, reply=("text/html", b"<html>no such page</html>")), "HTTP 404"),
    (Fault(status=404, reply=("application/json", b'{"error_code": true}')), "HTTP 404"),
    (Fault(status=302, reply=("text/html", b"")), "HTTP 302"),
    (Fault(edit=lambda _: b"<html>log in</html>"), "JSON is malformed"),
    (Fault(edit=lambda _: b"[]"), "Expected `object`, got `array`"),
    (Fault(edit=lambda _: b"[" * 100_000), "an answer to /schemas/ids/1 that cannot be used"),
    (Fault(edit=lambda _: b"\xff\xfe"), "JSON is malformed"),
    (Fault(edit=lambda _: b"{}"), "missing required field `schema`"),
    (Fault(edit=lambda _: b'{"schema": "x", "schemaType": "XML"}'), "at `$.schemaType`"),
    (Fault(edit=lambda _: b'{"schema": {}}'), "at `$.schema`"),
    (Fault(edit=lambda _: b'{"schema": "\\"int\\"", "references": [1]}'), "at `$.references[0]`"),
    (Fault(edit=lambda _: b'{"schema": "\\"int\\"", "references": 5}'), "at `$.references`"),
    (
        Fault(
            edit=lambda _: (
                b'{"schema": "\\"int\\"", "references": [{"name": "n", "subject": "s", "version": 1e400}]}'
            )
        ),
        "at `$.references[0].version`",
    ),
    (Fault(edit=lambda _: b'{"schema": "%b"}' % (b" " * SCHEMA_MAX_BYTES)), "more than"),
]


@pytest.mark.parametrize(("fault", "words"), TRANSIENT)
def test_whatever_is_no_plain_answer_is_transient(
    store: Store, proxy: FaultProxy, registry: Registry, fault: Fault, words: str
) -> None:
    """The batch is tried again, and nothing of it becomes a dead letter; nor is the answer remembered."""
    schema_id = store.register("flights-value", Entry(FLIGHT))
    proxy.faults = [fault]

    with pytest.raises(TransientError) as raised:
        registry.schema(schema_id)

    assert words in str(raised.value)
    proxy.faults = []
    assert registry.schema(schema_id) == Schema("AVRO", FLIGHT)


def test_a_registry_that_is_not_there_is_transient() -> None:
    with pytest.raises(TransientError, match="check that it runs"):
        Registry(SchemaRegistry(url="http://127.0.0.1:1"), ManualClock()).schema(1)


def test_a_schema_whose_reference_is_gone_or_circular_cannot_be_used(store: Store, proxy: FaultProxy) -> None:
    """It is as good as unknown, to its own records only."""
    text = json.dumps({"schema": '"X"', "references": [{"name": "X", "subject": "x", "version": 1}]}).encode()
    proxy.faults = [Fault(status=200, reply=("application/json", text), times=1)]
    assert Registry(SchemaRegistry(url=proxy.url), ManualClock()).schema(1) is None

    proxy.faults = [Fault(status=200, reply=("application/json", text))]
    assert Registry(SchemaRegistry(url=proxy.url), ManualClock()).schema(1) is None
    assert len(proxy.seen) < 100


def test_credentials_go_with_every_request_and_nowhere_else(store: Store, proxy: FaultProxy) -> None:
    schema_id = store.register("s", Entry(FLIGHT))
    basic = SchemaRegistry(url=proxy.url, username="üser", password="pa:ss")
    bearer = SchemaRegistry(url=proxy.url, token="t0ken")

    for settings in (basic, bearer):
        Registry(settings, ManualClock()).schema(schema_id)

    assert proxy.authorizations == ["Basic " + base64.b64encode("üser:pa:ss".encode()).decode(), "Bearer t0ken"]
    assert "pa:ss" not in repr(basic)
    assert "t0ken" not in repr(bearer)


def test_several_threads_ask_once(store: Store, proxy: FaultProxy, registry: Registry) -> None:
    """A new schema shows in all topics of an app at the same moment."""
    schema_id = store.register("s", Entry(FLIGHT))
    found: list[Schema | None] = []
    threads = [threading.Thread(target=lambda: found.append(registry.schema(schema_id))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert found == [Schema("AVRO", FLIGHT)] * 8
    assert len(proxy.seen) == 1
