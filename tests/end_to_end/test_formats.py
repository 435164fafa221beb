"""A route for each format, on the whole stack: the table's rows, and the blobs as other libraries read them."""

from __future__ import annotations

import io
import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import avro.datafile
import avro.io
import duckdb
import fastavro
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.json  # type: ignore[import-untyped]
import pytest
from azure.storage.blob import BlobServiceClient
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from localrunner.demo.kusto import DB
from localrunner.processes import wait_until
from sinkcore.lanes import LANES
from tests.end_to_end.whole import ANSWER_S, SETTLES_WITHIN_S, Topic, Whole, running
from tests.support.avro import written
from tests.support.protobuf import class_of, compiled
from tests.support.protobuf import field as proto_field
from tests.support.schemas import framed

ROWS = 3
FLIGHT = {"type": "record", "name": "Flight", "fields": [{"name": "n", "type": "long"}]}
JSON_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
PROTO = FileDescriptorProto(name="flight.proto", package="air", syntax="proto3")
PROTO.message_type.add(name="Flight", field=[proto_field("n", 1, "int32")])
MESSAGE = class_of(PROTO, "air.Flight")
IN_COLUMNS = "topic: string, partition: int, offset: long, timestamp: datetime, segment: string, key: string, "
AS_OBJECT = "n: long, _kafka: dynamic"
AVRO_IDS, PROTOBUF_ID, JSON_ID, KEY_ID = 1, 2, 3, 4
DELIMITERS = {"csv": ",", "tsv": "\t", "tsve": "\t", "scsv": ";", "sohsv": "\x01", "psv": "|"}
BAD = framed(99, b"")


@dataclass(frozen=True)
class Case:
    """A format: its route, what a value is for a number, and the table's columns."""

    name: str
    route: dict[str, Any]
    columns: str = AS_OBJECT
    frame: int | None = None
    delimiter: str = ""

    def value(self, number: int) -> bytes:
        """The record of that number."""
        made: dict[str, Callable[[], bytes]] = {
            "Avro": lambda: written(FLIGHT, {"n": number}),
            "Apache": lambda: written(FLIGHT, {"n": number}),
            "Bare": lambda: written(FLIGHT, {"n": number}),
            "Plain": lambda: written(FLIGHT, {"n": number}),
            "Single": lambda: json.dumps([{"n": number}]).encode(),
            "Protobuf": lambda: b"\x00" + MESSAGE(n=number).SerializeToString(),
            "Descriptors": lambda: MESSAGE(n=number).SerializeToString(),
        }
        if self.delimiter:
            return f"{number}{self.delimiter}x".encode()
        bare = made.get(self.name, lambda: json.dumps({"n": number}).encode())()
        return bare if self.frame is None else framed(self.frame, bare)


def text_case(name: str, format_: str, delimiter: str) -> Case:
    own = "line: string" if name in ("Txt", "Raw") else "n: long, s: string"
    columns = f"{IN_COLUMNS}headers: dynamic, {own}"
    return Case(name, {"format": format_}, columns, delimiter=delimiter)


CASES = [
    Case("Json", {}),
    Case("Multi", {"format": "multijson"}),
    Case("Single", {"format": "singlejson"}),
    Case("JsonFile", {"schema": "flight.json"}),
    text_case("Csv", "csv", ","),
    text_case("Tsv", "tsv", "\t"),
    text_case("Scsv", "scsv", ";"),
    text_case("Sohsv", "sohsv", "\x01"),
    text_case("Psv", "psv", "|"),
    text_case("Tsve", "tsve", "\t"),
    text_case("Txt", "txt", " "),
    text_case("Raw", "raw", " "),
    Case("Avro", {"format": "avro", "decode": "registry"}, frame=AVRO_IDS),
    Case("Apache", {"format": "apacheavro", "decode": "registry", "key": "registry"}, frame=AVRO_IDS),
    Case("Bare", {"format": "apacheavro", "schema": "flight.avsc"}),
    Case("Plain", {"format": "avro", "schema": "flight.avsc"}),
    Case("Protobuf", {"decode": "registry"}, frame=PROTOBUF_ID),
    Case("Descriptors", {"schema": "flight.desc#air.Flight"}),
    Case("Schema", {"decode": "registry"}, frame=JSON_ID),
]
REGISTERED = [
    {"schema": json.dumps(FLIGHT)},
    {"schema": compiled(PROTO), "schemaType": "PROTOBUF"},
    {"schema": json.dumps(JSON_SCHEMA), "schemaType": "JSON"},
    {"schema": '"string"'},
]


@dataclass
class Landed:
    """The stack when everything has landed, and the blobs of each topic."""

    whole: Whole
    topics: dict[str, Topic]
    blobs: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def landed(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landed]:
    """Three sound records of each format, and one that its schema's registry does not know."""
    place = tmp_path_factory.mktemp("formats")
    (place / "flight.avsc").write_text(json.dumps(FLIGHT))
    (place / "flight.json").write_text(json.dumps(JSON_SCHEMA))
    (place / "flight.desc").write_bytes(FileDescriptorSet(file=[PROTO]).SerializeToString())
    run = uuid.uuid4().hex
    topics = {case.name: Topic(f"{case.name}-{run}", case.name, 1) for case in CASES}
    routes = [_route(case, topics[case.name], place) for case in CASES]
    with running(kafka, list(topics.values()), place, hosts=1, routes=routes) as whole:
        for number, body in enumerate(REGISTERED, 1):
            _register(whole.stack.addresses["registry"], f"subject-{number}", body, number)
        for case in CASES:
            whole._engine.execute_mgmt(DB, f".drop table {case.name}")
            whole.make_table(case.name, DB, case.columns)
            key = framed(KEY_ID, written("string", "EWR")) if case.route.get("key") else b"EWR"
            for number in range(ROWS):
                # From 1 on: a bare Protobuf message of zeros alone has no bytes, and so is a tombstone.
                whole.send(topics[case.name], 0, case.value(number + 1), key=key)
            if case.frame is not None:
                whole.send(topics[case.name], 0, BAD, key=key)

        rows = ROWS * len(CASES)
        wait_until(f"{rows} rows land", lambda: whole.row_count() >= rows, SETTLES_WITHIN_S)
        whole.finish()
        yield Landed(whole, topics, _blobs(whole))


def _route(case: Case, topic: Topic, place: Path) -> dict[str, Any]:
    own = {"schema": f"{place}/{case.route['schema']}"} if "schema" in case.route else {}
    return {"topic": topic.name, "db": DB, "table": case.name, "metadata": "_kafka", **case.route, **own}


def _register(registry: str, subject: str, body: dict[str, str], expected: int) -> None:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{registry}/subjects/{subject}/versions", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 - loopback
        assert json.load(answer) == {"id": expected}


def _blobs(whole: Whole) -> dict[str, bytes]:
    service = BlobServiceClient.from_connection_string(whole.stack.plan.storage)
    client = service.get_container_client("sink-staging")
    return {each.name: client.download_blob(each.name).readall() for each in client.list_blobs()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_record_is_one_row(landed: Landed, case: Case) -> None:
    rows = landed.whole.query(case.name)

    if case.columns == AS_OBJECT:
        found = sorted((row["n"], row["_kafka"]["offset"], row["_kafka"]["key"]) for row in rows)
    elif case.name in ("Txt", "Raw"):
        found = sorted((int(row["line"].split()[0]), row["offset"], row["key"]) for row in rows)
    else:
        found = sorted((row["n"], row["offset"], row["key"]) for row in rows)
    assert found == [(number + 1, number, "EWR") for number in range(ROWS)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_other_libraries_read_the_blobs(landed: Landed, case: Case, tmp_path: Path) -> None:
    """Avro's own and fastavro; DuckDB and pyarrow for what is text."""
    topic = landed.topics[case.name].name
    blobs = {name: data for name, data in landed.blobs.items() if topic in name and "dead-letters" not in name}
    numbers: list[list[int]] = [[], []]
    for name, data in blobs.items():
        for found, of_reader in zip(numbers, _numbers_in(name, data, tmp_path), strict=True):
            found.extend(of_reader)

    assert [sorted(found) for found in numbers] == [list(range(1, ROWS + 1))] * 2


def _numbers_in(name: str, data: bytes, directory: Path) -> tuple[list[int], list[int]]:
    if name.endswith(".avro"):
        with avro.datafile.DataFileReader(io.BytesIO(data), avro.io.DatumReader()) as reader:
            by_avro: list[Any] = list(reader)
        by_fastavro: list[Any] = list(fastavro.reader(io.BytesIO(data)))
        return [row["n"] for row in by_fastavro], [row["n"] for row in by_avro]
    file = directory / "blob.gz"
    file.write_bytes(data)
    kind = name.split(".")[-2]
    if kind == "json":
        by_arrow = pyarrow.json.read_json(pyarrow.input_stream(str(file)))["n"]
        by_duckdb = duckdb.read_json(str(file), format="newline_delimited", compression="gzip").project("n")
    else:
        delimiter = DELIMITERS[kind]
        options = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
        parse = pyarrow.csv.ParseOptions(delimiter=delimiter)
        by_arrow = pyarrow.csv.read_csv(pyarrow.input_stream(str(file)), options, parse)["f7"]
        by_duckdb = duckdb.read_csv(str(file), sep=delimiter, header=False, compression="gzip").project("column7")
    return list(map(_number, by_arrow.to_pylist())), [_number(row[0]) for row in by_duckdb.fetchall()]


def _number(value: Any) -> int:
    return int(str(value).split()[0])


def test_an_id_that_the_registry_does_not_know_is_a_dead_letter(landed: Landed) -> None:
    framed_cases = [case for case in CASES if case.frame is not None]
    landed.whole.storage.ingest_dead_letters(landed.whole.stack.addresses["dm"])
    wait_until("dead letters land", lambda: landed.whole.adx.dead_letters() >= len(framed_cases), ANSWER_S)

    letters = landed.whole.query("DeadLetters | project topic, offset, reason")

    expected = [(landed.topics[case.name].name, ROWS, "unknown_schema") for case in framed_cases]
    assert sorted((each["topic"], each["offset"], each["reason"]) for each in letters) == sorted(expected)


def test_there_is_a_route_for_every_format_and_framing() -> None:
    framings = {(case.route.get("format", "json"), _framing(case.route)) for case in CASES}

    assert framings == set(LANES)


def _framing(route: dict[str, Any]) -> str:
    return "registry" if route.get("decode") == "registry" else "schema" if "schema" in route else "none"
