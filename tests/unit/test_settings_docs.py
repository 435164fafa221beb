"""The pages about settings and routes say what the code does: one table each, compared field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sinkcore.connections import Kafka, Kusto, SchemaRegistry
from sinkcore.routes import FIELDS, Route
from sinkcore.settings import KNOWN, Settings
from sinkcore.storage import STORAGE_PARTS

ROOT = Path(__file__).parents[2]
SETTINGS_PAGE = (ROOT / "docs" / "settings.md").read_text()
ROUTES_PAGE = (ROOT / "docs" / "routes.md").read_text()


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after `heading`, without its first two lines."""
    table = page.partition(f"\n{heading}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]


@pytest.mark.parametrize(
    ("heading", "cls"),
    [("## The sink", Settings), ("## Kafka", Kafka), ("## ADX", Kusto), ("## Schema registry", SchemaRegistry)],
)
def test_the_settings_page_has_every_setting_with_its_default_bounds_and_meaning(heading: str, cls: type) -> None:
    """A page that drifts is worse than none."""
    expected = []
    for each in fields(cls):
        if "setting" in each.metadata:
            setting = each.metadata["setting"]
            default = setting.default if each.default in (None, "") else f"`{setting.default}`"
            expected.append([f"`{setting.name}`", default, setting.allowed, setting.meaning])

    assert rows(SETTINGS_PAGE, heading) == expected


def test_the_settings_page_names_no_setting_that_does_not_exist() -> None:
    """In prose, too."""
    named = set(re.findall(r"\b(?:SINK|KAFKA|KUSTO|SCHEMA_REGISTRY)_[A-Z_]+\b", SETTINGS_PAGE + ROUTES_PAGE))

    assert named - set(KNOWN) == {"KAFKA_PORT"}


def test_the_settings_page_has_every_part_of_a_storage_connection() -> None:
    """Functions' own names, each with what it means here."""
    documented = {
        name for row in rows(SETTINGS_PAGE, "## Storage") for name in re.findall(r"`(SinkStorage\w*)`", row[0])
    }

    assert documented == {"SinkStorage", *(f"SinkStorage__{part}" for part in STORAGE_PARTS)}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, key))
        else:
            prefix = "" if path == ("extensions", "kafka") else "".join(f"{part}." for part in path)
            yield f"`{prefix}{key}`", f"`{inner if isinstance(inner, str) else json.dumps(inner)}`"


def test_each_value_of_host_json_has_its_reason_on_the_page() -> None:
    """JSON has no comments, and each of these values was chosen against a default that loses or repeats data."""
    documented = rows(SETTINGS_PAGE, "## host.json")

    assert [(row[0], row[1]) for row in documented] == list(leaves(json.loads((ROOT / "host.json").read_text())))
    assert all(len(row[2]) > 20 for row in documented)


def test_host_json_keeps_a_batch_that_failed() -> None:
    """Source: KafkaOptions of the extension, whose defaults skip it; bundles know both from 4.37.0 on."""
    host = json.loads((ROOT / "host.json").read_text())

    assert host["extensions"]["kafka"]["commitOnFailure"] is False
    assert host["extensions"]["kafka"]["maxRetries"] == -1
    assert host["extensionBundle"]["version"] == "[4.37.0, 5.0.0)"


def test_the_routes_page_has_every_field_with_its_default_and_values() -> None:
    """What is not yet supported is listed as such, word by word."""
    expected = [
        [f"`{name}`", each.default, each.values, each.later, each.meaning] for name, each in FIELDS.items()
    ]

    assert rows(ROUTES_PAGE, "## Fields") == expected


def test_a_routes_defaults_are_those_of_its_fields() -> None:
    """The dataclass and the table of fields state each default; they must agree."""
    for each in fields(Route)[3:]:
        documented = FIELDS[each.name].default.strip("`")
        meant = {"none": None, "identity": None, "all": None, "true": True, "false": False}
        assert (each.default or None) == (meant.get(documented, documented) or None)
