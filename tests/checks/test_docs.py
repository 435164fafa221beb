"""What the docs say exists: files, headings, events, commands, options and settings."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

import sinkctl.__main__
from localrunner.__main__ import COMMANDS
from sinkcore.ledger_rows import (
    Gap,
    Position,
    TopicRow,
    cursor_operation,
    properties_of,
)
from sinkcore.segment import Segment
from sinkcore.settings import KNOWN

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))

FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A page, and a heading of it in quotes: after a comma, or in brackets after a few words; over line ends too.
REFERENCE = re.compile(r'docs/([\w-]+\.md)(?:, "([^"]+)"|[^"().;]{0,60} \("([^"]+)"\))?')
OUR_FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*(?:\.(?:py|json|md|toml|yml|txt|zip|jsonl)|/))`")
LINE_END_IN_COMMENT = re.compile(r"\s*\n\s*(?:#|//)?\s*")
# Made by somebody's own hands, or by the tools that the pages tell of.
NOT_IN_THE_TREE = {"local.settings.json", "dist/app.zip", "bench/results/latest.jsonl"}
FOREIGN_NAMES = {"KAFKA_PORT"}  # what Kubernetes injects
# Split, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:root|work|farm|tmp|Users)" + "/")
REGISTRIES = re.compile(
    "|".join(
        (
            r"py" + r"pi\.org",
            r"python" + r"hosted\.org",
            r"registry\." + r"(?:npmjs|yarnpkg)",
            r"repo1?\." + r"maven",
            r"maven\." + r"apache\.org/maven2",
            r"crates" + r"\.io",
            r"proxy\." + r"golang",
            r"deb\." + r"debian",
        )
    )
)


@cache
def tracked() -> list[str]:
    """Every file under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


@cache
def headings(page: str) -> dict[str, str]:
    """The page's headings by their anchors.

    Source: GitHub writes an anchor in lower case, without punctuation, and with dashes for blanks.
    """
    found = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"): title.replace("`", "") for title in found}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name if name else ROOT / page).resolve()
        if not path.exists() or (anchor and anchor not in headings(path.relative_to(ROOT).as_posix())):
            broken.append(target)

    assert broken == []


def test_every_page_and_heading_that_code_refers_to_is_there() -> None:
    """Comments are short because the long reason is on a page, under the heading they name."""
    broken = []
    for name in tracked():
        if Path(name).suffix not in {".py", ".js", ".sh", ".yml", ".toml", ".xml", ""}:
            continue
        for page, *titles in REFERENCE.findall(LINE_END_IN_COMMENT.sub(" ", text_of(name))):
            title = "".join(titles)
            if not (ROOT / "docs" / page).exists():
                broken.append(f"{name}: docs/{page} is missing")
            elif title and title not in headings(f"docs/{page}").values():
                broken.append(f'{name}: docs/{page} has no heading "{title}"')

    assert broken == []


def logged_events() -> dict[str, set[str]]:
    """Every event that the app logs, with the names of its facts."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "function_app.py", *(ROOT / "sinkcore").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "event":
                facts = found.setdefault(ast.literal_eval(node.args[0]), set())
                for keyword in node.keywords:
                    facts |= {keyword.arg} if keyword.arg else keys_of(tree, keyword.value)
    return found


def keys_of(tree: ast.Module, value: ast.expr) -> set[str]:
    """The keys of `**value`, a call of a function here or in `telemetry` that returns a literal."""
    assert isinstance(value, ast.Call), ast.unparse(value)
    body = [*tree.body, *ast.parse((ROOT / "sinkcore" / "telemetry.py").read_text()).body]
    (made,) = [f for f in body if isinstance(f, ast.FunctionDef) and f.name == ast.unparse(value.func)]
    (returned,) = [node.value for node in ast.walk(made) if isinstance(node, ast.Return)]
    assert isinstance(returned, ast.Dict), ast.unparse(made)
    return {ast.literal_eval(key) for key in returned.keys if key is not None}


def test_the_page_on_operations_has_every_event_with_its_facts_and_no_other() -> None:
    """An alert on a name that nothing logs would be silent for ever."""
    table = OPERATIONS.partition("\n## Events\n")[2].partition("\n|")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:] for line in table.splitlines()[2:]]

    assert {row[0].strip().strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows} == logged_events()


def test_every_event_that_a_query_looks_for_is_logged() -> None:
    wanted = {
        name
        for page in PAGES
        for _, _, block in FENCE.findall(text_of(page))
        for name in re.findall(r'message (?:startswith|has_any|matches regex)[^"]*"([a-z_]+)', block)
    }

    assert wanted, "there are such queries"
    assert wanted <= set(logged_events())


def test_the_page_on_the_ledger_has_every_row_with_its_properties() -> None:
    """Somebody reads the table with a client of their own, when things are at their worst."""
    table = text_of("docs/ledger.md").partition("\n## Rows\n")[2].partition("\n|")[2].partition("\n\n")[0]
    cells = [line.split("|")[1:] for line in table.splitlines()[2:]]
    documented = {re.sub(r"\W.*", "", c[0].strip(" `")): set(re.findall(r"`(\w+)`", c[2])) for c in cells}

    assert documented == {
        "p": set(cursor_operation(Position(0, 0, 0), "").values),
        "s": {*properties_of(Segment("", "", (), (), 0, 0)), "claimed_by"},
        "o": set(),
        "g": set(properties_of(Gap(0, 0, 0, ""))),
        "t": set(properties_of(TopicRow("", "", 0, ""))),
        "in": {"topic", "consumer_group"},
    }


def test_the_page_on_the_code_has_every_module_once() -> None:
    """Whoever reads sinkcore for the first time goes by this page."""
    way, _, rest = text_of("docs/code.md").partition("\n## All of it\n")
    rows = [line.split("|")[2] for line in rest.splitlines() if line.startswith("| ")]
    listed = [name for row in rows for name in re.findall(r"`(\w+)/?`", row) if name != "sinkctl"]
    modules = {path.stem for path in (ROOT / "sinkcore").iterdir() if not path.name.startswith("__")}

    assert sorted(listed) == sorted(modules)
    assert set(re.findall(r"`(\w+)/?`", way)) - {"sinkcore"} <= modules


def targets() -> set[str]:
    """The targets of the Makefile that somebody might type."""
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    return {name for name in phony[1].split() if name != "help" and not name.startswith("tools")}


def test_make_prints_every_target() -> None:
    assert set(re.findall(r"make (\w+)  ", MAKEFILE)) == targets()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_and_options_that_a_page_shows_exist(page: str) -> None:
    """A command in a README is typed before anything else is read."""
    code = [block for _, _, block in FENCE.findall(text_of(page))]
    code += re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(page)))
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        made = re.match(r"(?:\$ )?make (\w+)(?: ARGS=(['\"])(.*?)\2)?", line.strip())
        if made is not None:
            assert made[1] in targets() | {"help"}, line
            check_options(made[1], made[3] or "", line)
        run = re.search(r"python -m localrunner (\w+)(.*)", line)
        if run is not None:
            assert run[1] in COMMANDS, line
            check_options(run[1], run[2].partition("#")[0], line)
        typed = re.search(r"python -m sinkctl (?:\.\.\.|(.+))", line)
        words = shlex.split((typed[1] or "").partition("#")[0]) if typed is not None else []
        if len(words) == 1:  # a verb that is only named
            assert words[0] in sinkctl.__main__.VERBS, line
        elif words:
            sinkctl.__main__.parser().parse_args(words)


def test_the_page_on_operations_shows_every_verb_of_sinkctl() -> None:
    """It is looked up when something is wrong, by somebody who has never typed it."""
    shown = {verb for _, _, block in FENCE.findall(OPERATIONS) for verb in re.findall(r"sinkctl (\w+)", block)}

    assert shown == set(sinkctl.__main__.VERBS)


def check_options(command: str, arguments: str, line: str) -> None:
    options = {word.partition("=")[0] for word in shlex.split(arguments.strip(" .,;")) if word.startswith("--")}
    if command in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
        assert options <= set(parser._option_string_actions), line


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"\b(?:SINK|KAFKA|KUSTO|SCHEMA_REGISTRY)_[A-Z_]*[A-Z]\b", text_of(page)))

    assert named - set(KNOWN) <= FOREIGN_NAMES


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_ours_that_a_page_names_exists(page: str) -> None:
    """By its path from the top, or by its name alone within sinkcore."""
    named = set(OUR_FILE.findall(text_of(page))) - NOT_IN_THE_TREE

    missing = {name for name in named if not (ROOT / name).exists()}
    assert {name for name in missing if not list((ROOT / "sinkcore").rglob(name))} == set()


def test_nothing_names_a_place_of_one_machine() -> None:
    """A path that exists here alone is a command that fails everywhere else."""
    assert [name for name in tracked() if MACHINE_PATHS.search(text_of(name))] == []


def test_nothing_names_a_package_registry() -> None:
    """Where packages come from is for each machine's own configuration, lock files included."""
    found = [name for name in tracked() if REGISTRIES.search(text_of(name))]
    locks = [name for name in tracked() if "lock" in name and re.search(r'"resolved": *"https?:', text_of(name))]

    assert found + locks == []
