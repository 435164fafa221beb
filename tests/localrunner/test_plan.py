"""What `up` starts and with which settings, before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localrunner.plan import ROOT, Options, Plan, make_plan
from localrunner.processes import is_free
from sinkcore.errors import ConfigError

MAPPING = json.dumps([{"topic": "flights", "db": "flightsdb", "table": "Flights"}])
EXIT_S = 20  # the contract's, for settings that cannot be used
CLOUD = {
    "KAFKA_BROKERS": "broker.example:9092",
    "SinkStorage__accountName": "someaccount",
    "KUSTO_INGESTION_URL": "https://ingest-cluster.example",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with a host.json, as an app has it, and no settings file."""
    (tmp_path / "host.json").write_bytes((ROOT / "host.json").read_bytes())
    return tmp_path


def plan(app: Path, environment: Mapping[str, str] | None = None, **options: Any) -> Plan:
    found = replace(Options(app=app), **options)
    return make_plan(found, {"SINK_TOPICS_MAPPING": MAPPING} | dict(environment or {}))


def local_settings(app: Path, **values: str) -> None:
    (app / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))


def test_what_the_settings_do_not_point_to_is_started_and_filled_in(app: Path) -> None:
    found = plan(app)
    assert (found.kafka, found.azurite, found.adx) == ("embedded", True, True)
    assert found.settings.kafka.brokers == f"127.0.0.1:{found.ports['kafka']}"
    assert f"127.0.0.1:{found.ports['table']}" in found.values["AzureWebJobsStorage"]
    assert found.settings.kusto.ingestion_url == f"http://127.0.0.1:{found.ports['dm']}"
    assert found.settings.kusto.query_url == f"http://127.0.0.1:{found.ports['engine']}"
    assert found.values["KUSTO_AUTHENTICATION"] == "none"
    assert int(found.values["AzureFunctionsJobHost__extensions__kafka__metadataMaxAgeMs"]) < 10_000
    assert (found.topics, found.databases) == (("flights",), ("flightsdb",))


def test_what_the_settings_point_to_is_not_started(app: Path) -> None:
    found = plan(app, CLOUD)
    assert (found.kafka, found.azurite, found.adx) == (None, False, False)
    assert found.brokers == "broker.example:9092"
    assert "KUSTO_AUTHENTICATION" not in found.values
    assert "AzureWebJobsStorage" not in found.values


def test_an_empty_setting_points_to_nothing(app: Path) -> None:
    """An empty value is how a template leaves a setting out."""
    assert plan(app, {"KAFKA_BROKERS": "", "KUSTO_INGESTION_URL": ""}).kafka == "embedded"


def test_an_identity_for_storage_gives_the_double_a_storage_of_its_own(app: Path) -> None:
    """The double reads blobs with a key; an identity it cannot have."""
    found = plan(app, {"SinkStorage__accountName": "someaccount"})
    assert found.azurite
    assert found.settings.storage.connection_string is None
    assert f"127.0.0.1:{found.ports['blob']}" in found.storage


def test_set_wins_over_the_environment_over_the_file_over_what_is_filled_in(app: Path) -> None:
    """This is the order that Functions has, with `--set` on top."""
    local_settings(app, SINK_PENDING_MAX="1", SINK_DOUBT_MARGIN_S="1", KUSTO_AUTHENTICATION="azure_cli")
    assert plan(app).settings.pending_max == 1
    assert plan(app).settings.kusto.authentication == "azure_cli"
    environment = {"SINK_PENDING_MAX": "2", "SINK_DOUBT_MARGIN_S": "2"}
    assert plan(app, environment).settings.pending_max == 2
    found = plan(app, environment, sets=("SINK_PENDING_MAX=3",))
    assert (found.settings.pending_max, found.settings.doubt_margin_s) == (3, 2)


def test_the_settings_file_can_be_named(app: Path, tmp_path: Path) -> None:
    named = tmp_path / "other.json"
    named.write_text(json.dumps({"Values": {"SINK_PENDING_MAX": "7"}}))
    local_settings(app, SINK_PENDING_MAX="1")
    assert plan(app, settings_file=named).settings.pending_max == 7


def test_an_explicit_kafka_wins_over_the_file(app: Path) -> None:
    """Somebody whose settings point to a real cluster can still try the app on a local one."""
    local_settings(app, KAFKA_BROKERS="broker.example:9092")
    assert plan(app).kafka is None
    assert plan(app, kafka="mock").kafka == "mock"
    assert plan(app, kafka="other.example:1").brokers == "other.example:1"


def test_the_mock_says_what_it_costs(app: Path) -> None:
    assert "5 MB a partition" in " ".join(plan(app, kafka="mock").notes)


def test_without_java_and_docker_kafka_falls_back_to_the_mock(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh machine without Java still shows the way of a record, and is told what it gets."""
    monkeypatch.setenv("PATH", str(app))
    found = plan(app)
    assert found.kafka == "mock"
    assert "no Java 17" in found.notes[0]
    assert "--kafka HOST:PORT" in found.notes[0]


def test_ports_are_kept_in_the_data_directory_and_change_only_when_taken(app: Path, tmp_path: Path) -> None:
    """Queue messages of the last run name the blobs by Azurite's address."""
    data = tmp_path / "data"
    data.mkdir()
    first = plan(app, data=data).ports
    (data / "ports.json").write_text(json.dumps(first))
    assert plan(app, data=data).ports == first
    assert all(is_free(port) for port in first.values())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"kafka": "no address"}, "--kafka"),
        ({"hosts": 0}, "--hosts"),
        ({"adx_time_scale": 0.0}, "--adx-time-scale"),
        ({"adx_time_scale": float("nan")}, "--adx-time-scale"),
        ({"sets": ("NOVALUE",)}, "--set"),
        ({"sets": ("KAFKA_BROKERS=h:1",), "kafka": "mock"}, "--kafka"),
        ({"sets": ("KAFKA_PROTOCOL=SSL",)}, "KAFKA_PROTOCOL"),
        ({"settings_file": Path("missing.json")}, "missing.json"),
        ({"data": ROOT / "host.json"}, "--data"),
        ({"sets": ("SINK_PENDING_MAXX=1",)}, "SINK_PENDING_MAXX"),
    ],
)
def test_each_fault_of_an_option_is_named(app: Path, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(app, **options)
    assert any(fault in sentence for sentence in raised.value.faults)


def test_a_directory_without_host_json_is_no_app(app: Path) -> None:
    (app / "host.json").unlink()
    with pytest.raises(ConfigError, match=r"host\.json: cannot be read"):
        plan(app)


def test_faults_end_up_with_code_2_one_line_each_before_anything_is_started(app: Path) -> None:
    """Somebody must be able to correct all of them at once."""
    up = [sys.executable, "-m", "localrunner", "up", "--app", str(app)]
    done = subprocess.run(
        [*up, "--hosts", "0", "--set", "SINK_DELIVERY=perhaps", "--set", "SINK_TOPICS_MAPPING=[]"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=EXIT_S,
        check=False,
    )
    assert done.returncode == 2
    faults = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert sorted(faults) == ["--hosts", "SINK_DELIVERY", "SINK_TOPICS_MAPPING"]
    assert done.stdout == ""
