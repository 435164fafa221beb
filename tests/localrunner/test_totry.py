"""The commands that `up` prints are typed before anything else: each of them works as it stands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from localrunner.plan import ROOT, Options, make_plan
from localrunner.screen import settings_origin
from localrunner.totry import commands, sinkctl
from tests.localrunner.conftest import END_S, Starter, Up
from tests.localrunner.processes import eventually

COMMAND_S = 60
LANDS_S = 60
ROUTES = [
    {"topic": "bare", "db": "db", "table": "Bare"},
    {"topic": "named", "db": "other", "table": "With-Hyphen", "mapping": "ItsMapping", "metadata": "_kafka"},
    {"topic": "text", "db": "db", "table": "Texts", "format": "csv", "metadata": "m", "mapping": "TextMapping"},
    {"topic": "fourth", "db": "db", "table": "Fourth"},
]


@pytest.fixture(scope="module")
def up(starter: Starter) -> Up:
    """The real app on these routes. Its screen is what the tests go by."""
    found = starter.start(
        *("--app", str(ROOT), "--kafka", "mock", "--adx-time-scale", "0.001"),
        *("--set", f"SINK_TOPICS_MAPPING={json.dumps(ROUTES)}"),
        *("--set", "AzureFunctionsJobHost__extensions__kafka__subscriberIntervalInSeconds=1"),
    )
    found.wait_ready()
    eventually("the commands are on the screen", lambda: "sinkctl" in found.screen.read_text(), END_S)
    return found


def printed(screen: str) -> list[str]:
    """The lines that somebody would paste."""
    lines = screen.partition("Some commands to try:")[2].splitlines()
    return [line.strip() for line in lines if line.startswith("  ") and not line.startswith("  #")]


def type_in(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S602 -- as a person does
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )


def settings_file_of(up: Up) -> Path:
    audit = shlex.split(next(line for line in printed(up.screen.read_text()) if "sinkctl" in line))
    return ROOT / audit[audit.index("--settings") + 1]


def count(command: str) -> int:
    rows: int = json.loads(type_in(command).stdout)["Tables"][0]["Rows"][0][0]
    return rows


def test_what_is_printed_makes_tables_brings_rows_into_them_and_shows_them(up: Up) -> None:
    """Tables with metadata and mappings among them; a line of JSON is no CSV, so that route gets none."""
    lines = printed(up.screen.read_text())
    queries = [line for line in lines if "| count" in line]
    for line in lines:
        if line not in queries:
            done = type_in(line)
            assert done.returncode == 0, line + done.stdout + done.stderr
            assert '"error"' not in done.stdout, line + done.stdout

    assert len([line for line in lines if "localrunner produce" in line]) == 2
    eventually("the rows are there", lambda: [count(query) for query in queries] == [1, 1, 0], LANDS_S)


def test_only_the_first_routes_have_commands_and_the_others_are_counted(up: Up) -> None:
    screen = up.screen.read_text()
    assert "and 1 more route" in screen
    assert "Fourth" not in screen


def test_the_settings_file_has_what_the_stack_filled_in_and_nobody_else_may_read_it(up: Up) -> None:
    """`sinkctl` reads it as it reads any other `local.settings.json`; whatever else the shell has stays out."""
    document = json.loads(settings_file_of(up).read_text())

    assert document["IsEncrypted"] is False
    assert document["Values"]["KAFKA_BROKERS"] == up.ready()["kafka"]
    assert document["Values"]["KUSTO_INGESTION_URL"] == up.ready()["dm"]
    assert json.loads(document["Values"]["SINK_TOPICS_MAPPING"]) == ROUTES
    assert "PATH" not in document["Values"]
    assert stat.S_IMODE(settings_file_of(up).stat().st_mode) == 0o600


def test_after_a_drain_the_directory_with_the_settings_is_gone(up: Up) -> None:
    file = settings_file_of(up)
    assert up.end(signal.SIGTERM) == (0, set())
    assert not file.parent.exists()


def test_settings_in_a_data_directory_stay_while_a_second_stack_is_refused_and_go_with_the_stack(
    starter: Starter, tmp_path: Path
) -> None:
    """They may hold a secret of the environment, and lead to addresses where nobody answers any more."""
    first = starter.start("--kafka", "mock", "--data", str(tmp_path / "data"))
    first.wait_ready()
    assert starter.start("--data", str(tmp_path / "data")).process.wait(timeout=END_S) == 1

    assert (tmp_path / "data" / "settings.json").exists()
    assert first.end(signal.SIGTERM)[0] == 0
    assert not (tmp_path / "data" / "settings.json").exists()


def printed_for(*routes: Mapping[str, object], sets: Sequence[str] = ()) -> str:
    options = Options(sets=(f"SINK_TOPICS_MAPPING={json.dumps(routes)}", *sets), kafka="127.0.0.1:9")
    return "\n".join(commands(make_plan(options, {}), Path("settings.json")))


def test_a_record_is_offered_only_where_a_line_of_json_is_one_that_the_route_takes() -> None:
    place = {"topic": "some", "db": "db", "table": "Some"}
    assert "produce some --brokers 127.0.0.1:9" in printed_for(place)
    assert "produce" not in printed_for(place | {"format": "avro", "decode": "registry"})
    assert "produce" not in printed_for(place | {"format": "txt"})
    assert "produce" not in printed_for(place | {"when": {"header": "type", "equals": "order"}})
    assert "produce" not in printed_for(place, sets=["KAFKA_PROTOCOL=SSL"])


def test_a_shell_with_other_settings_is_told_to_leave_them_out() -> None:
    """The environment wins over a file, so that `sinkctl` would ask another Kafka than the stack's."""
    place = {"topic": "some", "db": "db", "table": "Some"}
    options = Options(sets=(f"SINK_TOPICS_MAPPING={json.dumps([place])}",), kafka="127.0.0.1:9")
    shell = {"KAFKA_BROKERS": "127.0.0.1:10", "KAFKA_CONSUMER_GROUP": "theirs", "HOME": "there"}

    lines = sinkctl(make_plan(options, {}), Path("settings.json"), shell)

    for line, verb in zip(lines, ("start", "audit"), strict=True):
        assert line.strip().startswith("env -u KAFKA_BROKERS -u KAFKA_CONSUMER_GROUP ")
        assert line.endswith(f"-m sinkctl --settings settings.json {verb}")


def test_the_screen_names_the_settings_file_that_lies_beside_the_app_or_says_that_there_is_none(
    tmp_path: Path,
) -> None:
    """It is read without being named, so that somebody must be told whose brokers these are."""
    (tmp_path / "host.json").write_text((ROOT / "host.json").read_text())
    route = {"SINK_TOPICS_MAPPING": json.dumps(ROUTES)}
    without = settings_origin(make_plan(Options(app=tmp_path, kafka="mock"), route))
    (tmp_path / "local.settings.json").write_text(json.dumps({"Values": route}))
    beside = settings_origin(make_plan(Options(app=tmp_path, kafka="mock"), {}))

    assert without.startswith("settings: --set and the environment, no file;")
    assert beside.startswith(f"settings: {os.path.relpath(tmp_path / 'local.settings.json')}, under --set")
