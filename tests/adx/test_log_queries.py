"""The five queries of docs/operations.md, over lines that the sink wrote: each fires, and each keeps quiet."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder

from sinkcore.errors import TransientError
from tests.adx.support import Double
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
SECTION = PAGE.partition("### Five queries\n")[2].partition("\n### ")[0]
QUERIES = dict(re.findall(r"```kusto\n// ([^\n:]+)[^\n]*\n(.*?)```", SECTION, re.DOTALL))
MINUTE_S = 60


@dataclass
class Lines(logging.Handler):
    """What the sink has logged, with the world's time."""

    world: World
    lines: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((self.world.clock.ms, record.getMessage()))


@pytest.fixture
def world() -> World:
    return World(settings_of({"tombstones": "dead_letter"}))


@pytest.fixture
def lines(world: World) -> Iterator[Lines]:
    handler = Lines(world)
    logger = logging.getLogger("sinkcore")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


Ask = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def ask(double: Double, world: World, lines: Lines) -> Ask:
    """A query of the page, asked at the world's time of a table `traces` with what was logged."""
    db = f"traces{uuid.uuid4().hex[:12]}"
    client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(double.engine))

    def asked(name: str) -> list[dict[str, Any]]:
        client.execute_mgmt("db", f".create database {db}")
        client.execute_mgmt(db, ".create-merge table traces (timestamp: datetime, message: string)")
        client.execute_mgmt(db, ".clear table traces data")
        rows = "\n".join(f'{iso(ms)},"{text.replace(chr(34), chr(34) * 2)}"' for ms, text in lines.lines)
        if rows:
            client.execute_mgmt(db, f".ingest inline into table traces <| {rows}")
        properties = ClientRequestProperties()  # type: ignore[no-untyped-call]
        properties.set_option("query_now", iso(world.clock.ms))
        return [row.to_dict() for row in client.execute_query(db, QUERIES[name], properties).primary_results[0]]

    return asked


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def deliver(world: World, *records: Sent) -> None:
    world.sink().deliver(TOPIC, world.batch(records))


def sound(*offsets: int) -> list[Sent]:
    return [Sent(b'{"n":1}', offset) for offset in offsets]


def grow(world: World, minutes: int, records: int) -> None:
    """Producers go on for so long, and the sweeper with them."""
    sweeper_sink = world.sink()
    for _ in range(minutes):
        for _ in range(records):
            world.kafka.topics[TOPIC][0].append(b'{"n":1}', 0)
        world.sweep(sweeper_sink)
        world.clock.advance(MINUTE_S)


def test_the_page_has_five() -> None:
    assert list(QUERIES) == [
        "No segment for 10 minutes while lag grows",
        "Too many staged segments",
        "Failed segments",
        "Dead letters by reason",
        "Losses to retention",
    ]


def test_lag_that_grows_without_a_segment_is_told(world: World, ask: Ask) -> None:
    deliver(world, *sound(0, 1))
    world.kafka.silent = {TOPIC}  # nobody can read, and the trigger is silent
    grow(world, 14, records=10)

    (row,) = ask("No segment for 10 minutes while lag grows")

    assert row["topic"] == TOPIC
    assert 0 < row["lag_before"] < row["lag_now"] == 140


def test_lag_that_grows_while_segments_come_and_lag_that_stands_are_not_told(world: World, ask: Ask) -> None:
    """The first topic needs more instances, the second has a quiet producer and an open transaction."""
    deliver(world, *sound(0, 1))
    world.kafka.silent = {TOPIC}
    grow(world, 14, records=10)
    deliver(world, *sound(2, 3))
    assert ask("No segment for 10 minutes while lag grows") == []

    grow(world, 20, records=0)
    assert ask("No segment for 10 minutes while lag grows") == []


def test_segments_that_wait_for_adx_are_told_from_a_hundred_on(world: World, ask: Ask) -> None:
    world.queue.fails_with = TransientError("ADX is down")
    for n in range(99):
        deliver(world, Sent(b'{"n":1}', n))
    world.clock.advance(5 * MINUTE_S)
    world.sweep()
    assert ask("Too many staged segments") == []

    deliver(world, Sent(b'{"n":1}', 99))
    world.clock.advance(5 * MINUTE_S)
    world.sweep()
    assert ask("Too many staged segments") == [{"topic": TOPIC, "pending": 100}]

    world.queue.fails_with = None
    for _ in range(4):
        world.sweep_late()
    assert ask("Too many staged segments") == []


def test_segments_that_failed_for_good_are_told_and_those_that_are_tried_again_are_not(
    world: World, ask: Ask
) -> None:
    deliver(world, *sound(0))
    world.landed.refusal = lambda _: "Download_Forbidden"
    world.sweep_late()
    world.sweep_late()
    assert ask("Failed segments") == []

    world.landed.refusal = lambda _: "BadRequest_SomethingNew"
    for _ in range(4):
        world.sweep_late()

    (row,) = ask("Failed segments")
    (segment,) = world.ledger.segments()
    assert (row["topic"], row["segment"], row["in_table"]) == (TOPIC, segment.id, "Flights")
    assert row["code"] == "BadRequest_SomethingNew"


def test_dead_letters_are_counted_by_reason(world: World, ask: Ask) -> None:
    deliver(world, *sound(0))
    assert ask("Dead letters by reason") == []

    deliver(world, Sent(b"[", 1), Sent(b"]", 2), Sent(None, 3), *sound(4))
    deliver(world, Sent(b"{", 5))

    found = {(row["topic"], row["reason"]): row["dead_letters"] for row in ask("Dead letters by reason")}
    assert found == {(TOPIC, "invalid_json"): 3, (TOPIC, "tombstone"): 1}


def test_what_retention_took_is_counted_once(world: World, lines: Lines, ask: Ask) -> None:
    for n in range(30):
        world.kafka.topics[TOPIC][0].append(b'{"n":%d}' % n, 0)
    deliver(world, *sound(0))
    assert ask("Losses to retention") == []

    deliver(world, *sound(20))
    world.kafka.topics[TOPIC][0].retain_from(11)
    world.sweep()
    lost = [line for line in lines.lines if line[1].startswith("records_lost_to_retention ")]
    lines.lines += lost  # the commit behind it failed, and the next sweep says it again

    assert ask("Losses to retention") == [{"topic": TOPIC, "partition": 0, "records": 10}]
