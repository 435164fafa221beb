"""The examples on the page about routes do what the page says: each record goes where its row has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sinkcore.declared import Faults
from sinkcore.records import slices_of
from sinkcore.routeset import read_routes
from sinkcore.routing import router_of
from tests.support.events import Sent, events_of

PAGE = (Path(__file__).parents[2] / "docs" / "routes.md").read_text()
EXAMPLE = re.compile(r"```json\n([^`]+)```(?:\n\n\| Record \| Goes to \|\n\|---\|---\|\n((?:\|.*\n)+))?")
EXAMPLES = EXAMPLE.findall(PAGE)
ROWS = [(routes, row) for routes, rows in EXAMPLES for row in rows.splitlines()]


@pytest.mark.parametrize("routes", [routes for routes, _ in EXAMPLES])
def test_an_example_is_taken_as_it_stands(routes: str) -> None:
    faults = Faults()

    assert read_routes(routes, ("one", "two"), faults)
    assert [sentence for sentence in faults.sentences if "SINK_TOPICS:" not in sentence] == []


@pytest.mark.parametrize(("routes", "row"), ROWS)
def test_a_record_goes_where_its_row_says(routes: str, row: str) -> None:
    described, end = row.strip("| ").split(" | ")
    headers = tuple((name, text.encode()) for name, text in re.findall(r"header `(\w+)` = `(\w+)`", described))
    value = re.search(r"`(\{.*)`", described)
    record = Sent(value[1].encode() if value else b"{}", 0, headers=headers)

    found = router_of(read_routes(routes, (), Faults())).split(slices_of(events_of([record])), 1 << 20)

    ends = [f"`{part.route.db}`, `{part.route.table}`" for part in found.parts]
    ends += [f"dead letter, `{refused.reason}`" for _, refused in found.refused]
    assert ends == [end]


def test_the_page_has_an_example_of_each_kind() -> None:
    """Lest the pattern find nothing, and so nothing wrong."""
    assert len(ROWS) == 16
    assert {word for routes, _ in EXAMPLES for word in re.findall(r"\{?(header|field|topic)[:}\"]", routes)} == {
        "header",
        "field",
        "topic",
    }
