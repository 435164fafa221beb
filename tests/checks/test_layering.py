"""Imports point one way, and what must be pure or quick to start imports nothing that is not."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sinkcore.lanes import LANES

ROOT = Path(__file__).parents[2]

# A module imports only what stands before it, so that there is no way round in a circle either.
ORDER = (
    *("errors",),
    *("declared", "clock", "telemetry", "lanes"),
    *("conditions", "mapping"),
    *("schemas", "records", "routes", "routeset", "connections", "storage", "settings", "segment"),
    *("encode",),
    *("fields", "routing", "drift"),
    *("registry",),
    *("kafka", "gaps", "reading", "kafkalog"),
    *("transaction", "table", "staging", "ingest", "failures", "landed", "deadletters"),
    *("ledger_rows", "ledger", "cursors", "queueing", "refusals"),
    *("stage", "start", "holes", "sink"),
    *("drain", "partitions", "mend", "reopen", "unfinished", "retention", "sweep"),
    *("audit", "operate", "resend", "triggers", "clients"),
)
# Who may import whom at the top. The operator's command line imports sinkcore, and is imported by tests alone.
PARTS = {
    "sinkcore": {"sinkcore"},
    "function_app": {"sinkcore"},
    "sinkctl": {"sinkcore", "sinkctl"},
    "localrunner": {"sinkcore", "localrunner"},
    "bench": {"sinkcore", "localrunner", "function_app", "bench"},
    "tests": {"sinkcore", "sinkctl", "localrunner", "function_app", "bench", "tests"},
}
# `localrunner` takes the settings, routes and their lanes among them, and the words in which they are refused.
RUNNER_TAKES = {"sinkcore.settings", "sinkcore.routes", "sinkcore.lanes", "sinkcore.errors"}
SDKS = {"azure.core", "azure.data", "azure.identity", "azure.kusto", "azure.storage", "confluent_kafka"}
IO = SDKS | {"asyncio", "concurrent", "http", "requests", "socket", "subprocess", "threading", "time", "urllib"}
# What a start pays for: each SDK costs a tenth of a second and more, and indexing waits for it.
IMPORTED_AT_START = {"azure.functions", "msgspec"}
# How the modules of encode are called that a record without a schema does not need.
OF_SCHEMAS = ("avro", "decoded", "jsonschema", "keys", "protobuf", "protojson")
CODEC_LINES_MAX = 150


@dataclass(frozen=True, slots=True)
class Import:
    """A dotted name that a module imports; `at_start` is False where a call or a type checker asks for it, and
    `for_types` is True where only a type checker does."""

    name: str
    at_start: bool
    for_types: bool = False


def imports_of(source: str) -> Iterator[Import]:
    """Every import, wherever in the module it stands."""
    pending: list[tuple[ast.AST, bool, bool]] = [(ast.parse(source), True, False)]
    while pending:
        node, at_start, for_types = pending.pop()
        if isinstance(node, ast.expr):
            continue  # no import stands in one
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_start, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import from `.` names no module"
            yield from (Import(f"{node.module}.{alias.name}", at_start, for_types) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += [(child, False, True) for child in node.body]
            pending += [(child, at_start, for_types) for child in node.orelse]
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            pending += [(child, at_start and not inside, for_types) for child in ast.iter_child_nodes(node)]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_of(path): path
    for part in PARTS
    for path in (ROOT / f"{part}.py", *(ROOT / part).rglob("*.py"))
    if path.exists()
}
IMPORTS = {module: list(imports_of(path.read_text())) for module, path in FILES.items()}


def resolved(name: str) -> str:
    """The module of ours that an imported name is, or is in; the name itself where it is somebody else's."""
    parts = name.split(".")
    ours = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((module for module in ours if module in FILES), name)


def is_in(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def closure(module: str, *, at_start: bool = False) -> set[str]:
    """What is imported with `module`, by way of modules of ours; at its start only, or by anything in them."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        known = pending.pop()
        if known in seen:
            continue
        seen.add(known)
        # Importing a module runs its packages first.
        pending += [resolved(known.rpartition(".")[0])] if "." in known and known in FILES else []
        pending += [resolved(i.name) for i in IMPORTS.get(known, ()) if i.at_start or not at_start]
    return seen


def place(module: str) -> int:
    name = module.split(".")[1]
    assert name in ORDER, f"{module} has no place in ORDER; give it one"
    return ORDER.index(name)


def modules_in(part: str) -> list[str]:
    return sorted(module for module in FILES if is_in(module, {part}))


@pytest.mark.parametrize("module", [module for module in modules_in("sinkcore") if module != "sinkcore"])
def test_a_module_of_sinkcore_imports_only_what_stands_below_it(module: str) -> None:
    """Design, section 3: one may read the tree from the bottom, and never meets what has not been read."""
    here, package = place(module), module.split(".")[1]
    others = {other for each in IMPORTS[module] if (other := resolved(each.name)) != "sinkcore"}

    wrong = {
        other
        for other in others
        if is_in(other, {"sinkcore"}) and other.split(".")[1] != package and place(other) >= here
    }

    assert wrong == set()


@pytest.mark.parametrize("part", PARTS)
def test_no_part_imports_one_that_it_must_do_without(part: str) -> None:
    """What is published is `function_app` and `sinkcore`, so they cannot need anything else of this checkout."""
    tops = {top for top in PARTS if top not in PARTS[part]}

    wrong = {m: each.name for m in modules_in(part) for each in IMPORTS[m] if is_in(resolved(each.name), tops)}

    assert wrong == {}


def test_localrunner_takes_settings_and_words_from_sinkcore_and_nothing_else() -> None:
    """A stand-in that shared code with the sink would share its mistakes."""
    taken = {resolved(each.name) for module in modules_in("localrunner") for each in IMPORTS[module]}

    assert {module for module in taken if is_in(module, {"sinkcore"})} <= RUNNER_TAKES
    assert closure("sinkcore.settings", at_start=True) >= RUNNER_TAKES, "these are parts of the settings"


@pytest.mark.parametrize("module", ["encode", "routes", "records", "settings", "segment"])
def test_what_is_pure_reaches_no_io_by_any_way(module: str) -> None:
    """Routing and encoding are tested, and timed, without anything that could wait."""
    reached = set().union(*(closure(each) for each in modules_in(f"sinkcore.{module}")))

    assert {name for name in reached if is_in(name, IO)} == set()


def test_cursors_does_no_io_of_its_own() -> None:
    """What a batch moves is arithmetic; it borrows its words from the ledger, which is why this is no closure."""
    assert {each.name for each in IMPORTS["sinkcore.cursors"] if is_in(each.name, IO)} == set()


def test_a_start_imports_no_sdk() -> None:
    """Every new instance, and every worker that takes a dead one's place, pays before its first record."""
    names = closure("function_app", at_start=True)
    foreign = {name for name in names if name not in FILES and name.split(".")[0] not in sys.stdlib_module_names}

    assert {name for name in foreign if not is_in(name, IMPORTED_AT_START)} == set()
    assert is_in("sinkcore.triggers", names), "the walk has followed function_app"


def test_a_worker_imports_no_kafka_client_before_it_has_a_question() -> None:
    """A batch without holes, of a topic that was started, asks nothing; the client costs time and memory."""
    names = closure("sinkcore.clients", at_start=True)

    assert {name for name in names if is_in(name, {"confluent_kafka"})} == set()
    assert "sinkcore.kafkalog" in names, "the walk has followed clients"
    assert any(is_in(name, {"confluent_kafka"}) for name in closure("sinkcore.clients")), "a call imports it"


ONLY_JSON = """
import sys
import function_app, sinkcore.clients
from azure.functions import KafkaEvent
from sinkcore.encode import encode
from sinkcore.records import slices_of
from sinkcore.routes import Route
event = KafkaEvent(body=b'{}', partition=0, offset=0, topic='t', timestamp='2013-01-01T10:00:00Z', key='aw==')
route = Route('t', 'd', 'T', metadata='_kafka')
found = encode(slices_of([event]), route, segment_id='s', record_max_bytes=9, blob_max_bytes=9)
assert found.bodies[0].rows == 1
print(*sys.modules)
"""


def test_an_app_of_json_alone_imports_no_codec_of_schemas_and_no_registry() -> None:
    """Not at its start, and not with its first batch; in a process of its own, since others here have them all."""
    ran = subprocess.run([sys.executable, "-c", ONLY_JSON], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(ran.stdout.split())
    others = {"google.protobuf", "jsonschema_rs", "fastavro", "sinkcore.registry"}
    codecs = {name for name in modules_in("sinkcore.encode") if any(part in name for part in OF_SCHEMAS)}
    kinds = {
        f"sinkcore.schemas.{name}"
        for name in ("avro", "avrological", "avrotext", "files", "jsonparts", "jsonschema", "protobuf")
    }

    assert imported & (others | codecs | kinds) == set()
    assert {"sinkcore.clients", "sinkcore.encode.jsonlines"} <= imported
    assert len(codecs) > 10
    assert codecs | kinds <= FILES.keys()


def test_a_codec_is_a_file_that_is_read_in_one_sitting() -> None:
    """The lane table names each codec's module; what it needs beside it is as short."""
    lines = {module: len(FILES[module].read_text().splitlines()) for module in modules_in("sinkcore.encode")}
    codecs = {f"sinkcore.encode.{lane.codec}" for lane in LANES.values()}

    assert codecs <= lines.keys()
    too_long = {module for module, count in lines.items() if count > CODEC_LINES_MAX}
    assert too_long <= {"sinkcore.encode.rows"}, "which is no codec, but what each is handed"


def test_the_walk_sees_an_import_wherever_it_stands() -> None:
    """Lest an arrow hide in a function, or a type checker's import count as one at start."""
    source = """
from typing import TYPE_CHECKING
import one
if TYPE_CHECKING:
    from two import a
def f():
    if f:
        import three.b
class C:
    try:
        from four import c
    except ImportError:
        pass
"""

    assert {(each.name, each.at_start, each.for_types) for each in imports_of(source)} == {
        ("typing.TYPE_CHECKING", True, False),
        ("one", True, False),
        ("two.a", False, True),
        ("three.b", False, False),
        ("four.c", True, False),
    }
