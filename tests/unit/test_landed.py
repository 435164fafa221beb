"""What ADX is asked about a doubtful segment: how long it may hold rows back, and how many of them it has."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace

import pytest
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder

from sinkcore.encode.textmetadata import COLUMNS
from sinkcore.errors import TransientError
from sinkcore.landed import (
    ASKED_MAX,
    BATCHING_DEFAULT_S,
    CLOCK_SKEW_S,
    LOOK_UP_EVERY_S,
    SEGMENT_ORDINAL,
    AdxRows,
    NotAllowedError,
)
from sinkcore.segment import Blob, new_segment_id
from tests.conftest import Adx
from tests.support.memory import ManualClock
from tests.support.proxy import Fault, proxy_to

NOW_MS = time.time_ns() // 1_000_000
SEGMENT, OTHER, NONE = (new_segment_id(NOW_MS) for _ in range(3))
BLOB = Blob("rows", "staging", "p", 2, 10, 10, db="db", format="json", metadata="_kafka", source_id="")


class Engine:
    """The double's engine, and a table of its own for each test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(url))
        self.table = f"t{uuid.uuid4().hex[:12]}"
        self.clock = ManualClock()
        self.rows = AdxRows(lambda: self.client, self.clock)

    def make(self, columns: str, *rows: str) -> None:
        """The table exists, with these rows as CSV."""
        self.do(f".create table {self.table} ({columns})")
        if rows:
            self.do(f".ingest inline into table {self.table} <|\n" + "\n".join(rows))

    def map(self, *columns: dict[str, object], name: str = "m") -> Blob:
        """The table has a mapping of these columns; a blob that goes by it."""
        text = json.dumps(columns).replace("\\", "\\\\").replace("'", "\\'")
        self.do(f".create table {self.table} ingestion json mapping '{name}' '{text}'")
        return replace(BLOB, table=self.table, mapping=name)

    @property
    def blob(self) -> Blob:
        """A blob that goes by ADX's identity mapping."""
        return replace(BLOB, table=self.table)

    def count(self, blob: Blob, segment: str) -> int | None:
        """The segment's rows in the blob's table, asked about beside another one."""
        found = self.rows.counts(blob, [NONE, segment])
        return None if found is None else found.get(segment, 0)

    def do(self, text: str, db: str = "db") -> None:
        self.client.execute_mgmt(db, text)


@pytest.fixture
def engine(adx: Adx) -> Engine:
    return Engine(adx.engine)


def column(name: str, path: str) -> dict[str, object]:
    return {"column": name, "Properties": {"Path": path}}


def span(text: str) -> str:
    return json.dumps({"MaximumBatchingTimeSpan": text})


METADATA_ROWS = tuple(
    f'{n},"{{""segment"": ""{segment}"", ""offset"": {n}}}"'
    for n, segment in enumerate([SEGMENT, OTHER, SEGMENT, SEGMENT])
)


def test_the_identity_mapping_puts_metadata_into_a_column_of_its_name(engine: Engine) -> None:
    engine.make("n: long, _kafka: dynamic", *METADATA_ROWS)

    assert engine.count(engine.blob, SEGMENT) == 3
    assert engine.count(engine.blob, OTHER) == 1
    assert engine.count(engine.blob, NONE) == 0


@pytest.mark.parametrize("path", ["$._kafka", "$['_kafka']", '$["_kafka"]'])
def test_a_mapping_may_put_all_metadata_into_one_column(engine: Engine, path: str) -> None:
    engine.make("n: long, meta: dynamic", *METADATA_ROWS)
    blob = engine.map(column("n", "$.n"), column("meta", path))

    assert engine.count(blob, SEGMENT) == 3


def test_a_mapping_may_be_written_in_the_other_ways_that_adx_takes(engine: Engine) -> None:
    engine.make("n: long, meta: dynamic", *METADATA_ROWS)
    blob = engine.map({"Column": "meta", "Properties": {"Path": "$._kafka"}})
    old = engine.map({"column": "meta", "path": "$._kafka"}, name="old")

    assert engine.count(blob, SEGMENT) == engine.count(old, SEGMENT) == 3


@pytest.mark.parametrize("path", ["$._kafka.segment", "$['_kafka']['segment']", "$._kafka['segment']"])
def test_a_mapping_may_put_the_segment_into_a_column_of_its_own(engine: Engine, path: str) -> None:
    engine.make("n: long, part: string", f"1,{SEGMENT}", f"2,{OTHER}", f"3,{SEGMENT}")
    blob = engine.map(column("n", "$.n"), column("part", path))

    assert engine.count(blob, SEGMENT) == 2


def test_a_mapping_without_metadata_cannot_tell_segments_apart(engine: Engine) -> None:
    """Then it is queued again, and said: a count of nothing would read as "none of it has landed"."""
    engine.make("n: long, part: string", f"1,{SEGMENT}")
    blob = engine.map(column("n", "$.n"), column("part", "$._kafka.topic"))

    assert engine.count(blob, SEGMENT) is None


def test_a_table_without_the_column_cannot_tell_segments_apart(engine: Engine) -> None:
    """By the identity mapping a field without a column of its name is dropped."""
    engine.make("n: long", "1")

    assert engine.count(engine.blob, SEGMENT) is None


def test_a_mapping_that_is_not_there_yet_is_waited_for(engine: Engine) -> None:
    """Nothing can have landed by it; whether its rows will tell their segment is known when it is there."""
    engine.make("n: long, _kafka: dynamic")

    with pytest.raises(TransientError, match="has no JSON mapping later"):
        engine.count(replace(engine.blob, mapping="later"), SEGMENT)


def test_a_table_that_is_not_there_yet_is_waited_for(engine: Engine) -> None:
    with pytest.raises(TransientError, match="database db"):
        engine.count(engine.blob, SEGMENT)


def test_names_with_spaces_and_dots_are_asked_for_as_they_are(engine: Engine) -> None:
    """A mapping may name any column that ADX takes."""
    engine.make("n: long, ['meta data.of-kafka']: dynamic", *METADATA_ROWS)
    blob = engine.map(column("meta data.of-kafka", "$._kafka"))

    assert engine.count(blob, SEGMENT) == 3


def test_a_column_that_a_mapping_names_and_the_table_lacks_tells_nothing(engine: Engine) -> None:
    engine.make("n: long, meta: dynamic")
    blob = engine.map(column("meta", "$._kafka"))
    engine.do(f".alter table {engine.table} (n: long)")

    assert engine.count(blob, SEGMENT) is None


def test_many_segments_are_asked_about_in_one_question(engine: Engine) -> None:
    """A sweep asks about everything that was queued in the last minutes."""
    engine.make("n: long, _kafka: dynamic", *METADATA_ROWS)

    assert engine.rows.counts(engine.blob, [SEGMENT, OTHER, NONE]) == {SEGMENT: 3, OTHER: 1}
    assert engine.rows.counts(engine.blob, [new_segment_id(NOW_MS) for _ in range(ASKED_MAX)]) == {}


def test_rows_that_were_ingested_long_before_the_segment_are_not_looked_at(engine: Engine) -> None:
    """The question is asked every half minute, of tables of any size."""
    later = new_segment_id(NOW_MS + (CLOCK_SKEW_S + 3600) * 1000)
    engine.make("n: long, _kafka: dynamic", *METADATA_ROWS, f'9,"{{""segment"": ""{later}""}}"')

    assert engine.rows.counts(engine.blob, [later]) == {}
    assert engine.rows.counts(engine.blob, [later, SEGMENT]) == {later: 1, SEGMENT: 3}


def test_a_mapping_of_the_database_is_found_too(engine: Engine) -> None:
    engine.make("n: long, meta: dynamic", *METADATA_ROWS)
    text = json.dumps([column("meta", "$._kafka")])
    engine.do(f".create database db ingestion json mapping '{engine.table}M' '{text}'")
    blob = replace(engine.blob, mapping=f"{engine.table}M")

    assert engine.rows.takes(blob)
    assert engine.count(blob, SEGMENT) == 3


def test_adx_takes_a_blob_once_it_has_the_table_and_the_mapping(engine: Engine) -> None:
    blob = replace(engine.blob, mapping="m")

    assert not engine.rows.takes(engine.blob)
    assert not engine.rows.takes(blob)
    engine.make("n: long")
    assert engine.rows.takes(engine.blob)
    assert not engine.rows.takes(blob)
    engine.map(column("n", "$.n"))
    assert engine.rows.takes(blob)
    with pytest.raises(TransientError):
        engine.rows.takes(replace(blob, db="nowhere"))


def test_an_identity_that_may_not_ask_is_told_from_an_engine_that_does_not_answer(
    engine: Engine, adx: Adx
) -> None:
    """Without the role Viewer nothing can ever be confirmed; an outage passes."""
    with proxy_to(adx.engine) as proxy:
        asking = AdxRows(
            lambda: KustoClient(KustoConnectionStringBuilder.with_no_authentication(proxy.url)), ManualClock()
        )
        error = {"error": {"code": "Forbidden", "message": "x", "@type": "x", "@message": "x", "@permanent": True}}
        proxy.faults = [fault := Fault(status=403, reply=("application/json", json.dumps(error).encode()))]
        with pytest.raises(NotAllowedError):
            asking.counts(engine.blob, [SEGMENT])
        fault.status = 503
        with pytest.raises(TransientError) as raised:
            asking.counts(engine.blob, [SEGMENT])
    assert not isinstance(raised.value, NotAllowedError)


def test_an_engine_that_does_not_answer_is_asked_again_later() -> None:
    nobody = AdxRows(
        lambda: KustoClient(KustoConnectionStringBuilder.with_no_authentication("http://127.0.0.1:1")),
        ManualClock(),
    )

    with pytest.raises(TransientError, match="KUSTO_QUERY_URL"):
        nobody.counts(replace(BLOB, table="t"), [SEGMENT])
    assert nobody.batching_s(replace(BLOB, table="t")) == BATCHING_DEFAULT_S


def test_the_batching_time_is_the_tables_or_its_databases_or_the_default(engine: Engine) -> None:
    db = f"db{uuid.uuid4().hex[:8]}"
    engine.do(f".create database {db} volatile")
    engine.do(f".create table {engine.table} (n: long)", db)
    blob = replace(engine.blob, db=db)

    def batching_s() -> float:
        engine.clock.advance(LOOK_UP_EVERY_S + 1)
        return engine.rows.batching_s(blob)

    assert batching_s() == BATCHING_DEFAULT_S
    engine.do(
        f""".alter database {db} policy ingestionbatching @'{{"MaximumBatchingTimeSpan": "00:01:30"}}'""", db
    )
    assert batching_s() == 90
    engine.do(
        f""".alter table {engine.table} policy ingestionbatching @'{{"MaximumBatchingTimeSpan": "00:00:10"}}'""",
        db,
    )
    assert batching_s() == 10


def test_a_batching_time_that_could_not_be_read_is_read_again_before_the_hour_is_over(engine: Engine) -> None:
    """It may be far more than the default, and rows that are still held back would be sent again."""
    engine.make("n: long")
    engine.do(f".alter table {engine.table} policy ingestionbatching @'{span('00:30:00')}'")
    with proxy_to(engine.url) as proxy:
        proxy.faults = [Fault(".", b"policy", status=503, times=1)]
        client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(proxy.url))
        rows = AdxRows(lambda: client, engine.clock)

        assert rows.batching_s(engine.blob) == BATCHING_DEFAULT_S
        assert rows.batching_s(engine.blob) == 1800
        proxy.faults = [Fault(".", b"policy", status=503)]
        engine.clock.advance(LOOK_UP_EVERY_S + 1)
        assert rows.batching_s(engine.blob) == 1800


def test_the_batching_time_is_read_once_an_hour(engine: Engine) -> None:
    """It changes rarely, and a sweep asks for it with each doubtful segment."""
    engine.make("n: long")
    set_to = '.alter table {} policy ingestionbatching @\'{{"MaximumBatchingTimeSpan": "{}"}}\''
    engine.do(set_to.format(engine.table, "00:00:20"))
    assert engine.rows.batching_s(engine.blob) == 20
    engine.do(set_to.format(engine.table, "00:00:30"))

    engine.clock.advance(LOOK_UP_EVERY_S)
    assert engine.rows.batching_s(engine.blob) == 20
    engine.clock.advance(1)
    assert engine.rows.batching_s(engine.blob) == 30


def text_blob(engine: Engine, mapping: str | None = None) -> Blob:
    return replace(engine.blob, format="csv", mapping=mapping)


def test_without_a_mapping_text_has_the_segment_in_its_fifth_column(engine: Engine) -> None:
    """By the order of the metadata columns, whatever the table calls them."""
    engine.make("a: string, b: int, c: long, d: datetime, e: string, f: string", f"t,0,1,,{SEGMENT},", "t,0,2,,x,")

    assert COLUMNS[SEGMENT_ORDINAL] == "segment"
    assert engine.count(text_blob(engine), SEGMENT) == 1


def test_a_narrow_table_of_text_cannot_tell_segments_apart(engine: Engine) -> None:
    engine.make("a: string, b: int", "t,0")

    assert engine.count(text_blob(engine), SEGMENT) is None


def test_a_mapping_of_text_goes_by_ordinals(engine: Engine) -> None:
    """In both ways that ADX takes; without the segment's one nothing can be told."""
    engine.make("value: string, part: string", f"1,{SEGMENT}", f"2,{OTHER}")
    value = {"column": "value", "Properties": {"Ordinal": "7"}}
    for name, element in {
        "new": {"column": "part", "Properties": {"Ordinal": "4"}},
        "old": {"Name": "part", "Ordinal": 4},
    }.items():
        text = json.dumps([value, element])
        engine.do(f".create table {engine.table} ingestion csv mapping '{name}' '{text}'")
        assert engine.count(text_blob(engine, mapping=name), SEGMENT) == 1
    engine.do(f".create table {engine.table} ingestion csv mapping 'none' '{json.dumps([value])}'")
    assert engine.count(text_blob(engine, mapping="none"), SEGMENT) is None


@pytest.mark.parametrize(
    ("properties", "columns"),
    [
        ({"Field": "_kafka"}, METADATA_ROWS),
        ({"Path": "$._kafka"}, METADATA_ROWS),
        (
            {"Path": "$._kafka.segment"},
            tuple(f"{n},{s}" for n, s in enumerate([SEGMENT, OTHER, SEGMENT, SEGMENT])),
        ),
    ],
)
@pytest.mark.parametrize("format_", ["avro", "apacheavro"])
def test_a_mapping_of_avro_names_fields_or_paths(
    engine: Engine, properties: dict[str, str], columns: tuple[str, ...], format_: str
) -> None:
    engine.make(f"n: long, meta: {'string' if 'segment' in str(properties) else 'dynamic'}", *columns)
    text = json.dumps([{"column": "meta", "Properties": properties}])
    engine.do(f".create table {engine.table} ingestion avro mapping 'm' '{text}'")

    assert engine.count(replace(engine.blob, format=format_, mapping="m"), SEGMENT) == 3
