"""docs/adx-double.md against the code."""

from __future__ import annotations

import re
from pathlib import Path

from localrunner.adx import commands, errors, mapping, mgmt
from localrunner.adx.errors import INGESTION_CODES
from localrunner.adx.faults import DEEDS, POINTS
from localrunner.adx.plans import FORMATS
from tests.clients.cases import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "adx-double.md").read_text()
ADX = Path(mgmt.__file__).parent
assert commands  # imported for its effect: it registers the management commands


def test_the_commands_are_the_documented_ones() -> None:
    """In both directions, by the patterns they are registered under."""
    table = PAGE.partition("## Commands")[2].partition("## Queries")[0]
    named = {text for text in re.findall(r"`(\.[a-z][^`\n]+)`", table) if "|" not in text}

    assert named == set(mgmt.patterns())


def test_codes_and_formats_are_the_documented_ones() -> None:
    """In both directions."""
    codes = PAGE.partition("## Failure codes")[2].partition("## Faults on demand")[0]

    assert set(re.findall(r"`([A-Z]\w+_\w+)`", codes)) == set(INGESTION_CODES)
    assert all(f"`{name}`" in PAGE for name in FORMATS)


def test_the_codes_of_refused_requests_are_the_documented_ones() -> None:
    """In both directions: those that a KustoError is made with, and those that go with a status."""
    table = PAGE.partition("## Errors of requests")[2].partition("\n## ")[0]
    used = {name for name, _ in errors._BY_STATUS.values()} | {errors.KustoError("").code}
    for path in ADX.rglob("*.py"):
        used |= set(re.findall(r'code="(\w+)"', path.read_text()))

    assert set(re.findall(r"`([A-Z]\w+)`", table)) == used


def test_faults_and_counters_are_the_documented_ones() -> None:
    """A deed with what it takes, the points of a kill, and every counter's name, in both directions."""
    section = PAGE.partition("## Faults on demand")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", section, re.MULTILINE)
    at = next(line for line in section.splitlines() if line.startswith("- `at` is"))
    counted = set(re.findall(r"`([a-z_]+\.[a-z_.<>]+)`", section))
    used = set()
    for path in ADX.rglob("*.py"):
        used |= set(re.findall(r'\.add\(\s*f?"([a-z_]+\.[^"]+)"', path.read_text()))
    used = used - {"reports.{kind}_queue"} | {"reports.failed_queue", "reports.succeeded_queue"}

    assert {name: set(re.findall(r"`(\w+)`", takes)) for name, takes in rows[1:]} == dict(DEEDS)
    assert re.findall(r"`(\w+_\w+)`", at) == list(POINTS)
    assert {re.sub(r"<[^>]*>", "*", name) for name in counted} == {
        re.sub(r"\{[^}]*\}", "*", name) for name in used
    }


def test_transformations_are_the_documented_ones() -> None:
    """In both directions."""
    section = PAGE.partition("**Transformations**")[2].partition("\n\n")[0].replace("`...", "`DateTimeFromUnix")
    named = set(re.findall(r"`([A-Z]\w+)`", section))

    assert named - {"GetPathElement"} == set(mapping.TRANSFORMS)


def test_every_behaviour_of_the_client_matrix_is_tried_by_whom_it_is_expected_of() -> None:
    """A case that nobody tries would answer `-` for ever; `make clients` alone runs them."""
    folder = Path(__file__).parents[1] / "clients"
    python = set(
        re.findall(r"^def ([a-z]\w+)\(clients: Clients\) -> str:", _text(folder / "python_cases.py"), re.M)
    )
    javascript = set(
        re.findall(r"^  (?:async )?([a-z]\w+)(?:\(\) \{|: \(\) =>)", _text(folder / "javascript_cases.mjs"), re.M)
    )
    java = set(re.findall(r'cases\.put\("(\w+)", ', _text(folder / "JavaCases.java")))

    assert python == {case.name for case in CASES if case.python != "-"}
    assert javascript == {case.name for case in CASES if case.javascript != "-"}
    assert java == {case.name for case in CASES if case.java != "-"}
    assert f"{len(CASES)} behaviours" in PAGE


def _text(path: Path) -> str:
    return path.read_text()
