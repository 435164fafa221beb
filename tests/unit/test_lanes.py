"""The lane table: what it says is on its page, is what settings take, and is what encoding can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sinkcore.declared import Faults
from sinkcore.encode import encode
from sinkcore.lanes import LANES, SUFFIXES, Framing
from sinkcore.records import slices_of
from sinkcore.routeset import read_routes
from sinkcore.schemas import Schema
from tests.support.events import Sent, events_of
from tests.support.schemas import KnownSchemas
from tests.unit.test_settings_docs import rows

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
FRAMED_BY = {"none": "nothing", "registry": "registry", "schema": "schema"}


FLIGHT = '{"type": "record", "name": "Flight", "fields": [{"name": "number", "type": "int"}]}'
KNOWN = KnownSchemas({1: Schema("AVRO", FLIGHT)})


@pytest.fixture
def own(tmp_path: Path) -> str:
    """Schemas that ship with the app, but for the end of their names."""
    (tmp_path / "flight.avsc").write_text(FLIGHT)
    (tmp_path / "flight.json").write_text('{"type": "object"}')
    return str(tmp_path / "flight")


def entry_of(format_: str, framing: Framing, own: str) -> dict[str, str]:
    """A route by which values of this framing come."""
    extra: dict[Framing, dict[str, str]] = {
        "none": {},
        "registry": {"decode": "registry"},
        "schema": {"schema": own + (".json" if format_ == "json" else ".avsc")},
    }
    return {"topic": "flights", "db": "db", "table": "Flights", "format": format_, **extra[framing]}


def test_the_page_has_every_lane() -> None:
    expected = [
        [
            f"`{format_}`",
            FRAMED_BY[framing],
            lane.kind,
            f"`{lane.stored}`",
            f"`{lane.stored_with_metadata}`",
            "yes" if lane.fields else "no",
            "yes" if lane.validates else "no",
        ]
        for (format_, framing), lane in LANES.items()
    ]

    assert rows(PAGE, "## Lanes") == expected


@pytest.mark.parametrize(("format_", "framing"), LANES)
def test_settings_take_every_lane(format_: str, framing: Framing, own: str) -> None:
    """A lane that no route can be set to would be dead code."""
    faults = Faults()

    (route,) = read_routes(json.dumps([entry_of(format_, framing, own)]), (), faults)

    assert faults.sentences == []
    assert route.lane is LANES[format_, framing]
    assert route.stored_format in SUFFIXES


@pytest.mark.parametrize(("format_", "framing"), LANES)
@pytest.mark.parametrize("metadata", [None, "_kafka"])
def test_every_lane_has_an_encoder_that_takes_anything(
    format_: str, framing: Framing, metadata: str | None, own: str
) -> None:
    """What settings accept must not stop a batch: each record ends as a row or as a dead letter."""
    (route,) = read_routes(json.dumps([{**entry_of(format_, framing, own), "metadata": metadata}]), (), Faults())
    values = [b"{}", b"\x00\x00\x00\x00\x01", b"a,b", b'"', b"\xff\xfe", b""]
    events = events_of(Sent(value, offset) for offset, value in enumerate(values))

    result = encode(
        slices_of(events),
        route,
        segment_id="0" * 32,
        record_max_bytes=100,
        blob_max_bytes=1 << 20,
        schemas=KNOWN,
    )

    assert sum(body.rows for body in result.bodies) + len(result.refused) + result.tombstones >= len(values)
