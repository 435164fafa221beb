"""docs/adx-double.md against the code."""

from __future__ import annotations

import re
from pathlib import Path

from localrunner.adx import commands, mgmt
from localrunner.adx.errors import INGESTION_CODES
from localrunner.adx.plans import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "adx-double.md").read_text()
assert commands  # imported for its effect: it registers the management commands


def test_the_commands_are_the_documented_ones() -> None:
    """In both directions, by the patterns they are registered under."""
    table = PAGE.partition("## Commands")[2].partition("## Queries")[0]
    named = {text for text in re.findall(r"`(\.[a-z][^`\n]+)`", table) if "|" not in text}

    assert named == set(mgmt.patterns())


def test_codes_and_formats_are_the_documented_ones() -> None:
    """In both directions."""
    codes = PAGE.partition("## Failure codes")[2].partition("## Not yet")[0]

    assert set(re.findall(r"`([A-Z]\w+_\w+)`", codes)) == set(INGESTION_CODES)
    assert all(f"`{name}`" in PAGE for name in FORMATS)
