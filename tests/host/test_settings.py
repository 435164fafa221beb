"""Where settings come from, and how names in triggers resolve: docs/functions-host.md, "Settings"."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from localrunner.host import hostjson
from localrunner.host.settings import AppSettings, ResolveError, SettingsError, expand, load, resolve_secure
from tests.host.hosting import ROOT, WAIT_S, Broker, Hosts


def settings_file(tmp_path: Path, **values: object) -> Path:
    file = tmp_path / "local.settings.json"
    file.write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    return file


def test_set_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """The contract's section 1, as in Functions: local.settings.json never replaces the environment."""
    file = settings_file(tmp_path, A="file", B="file", C="file")

    settings = load(file, True, {"B": "environment", "C": "environment"}, ["C=set=with=signs"])

    assert settings.environment == {"A": "file", "B": "environment", "C": "set=with=signs"}


def test_a_later_layer_replaces_a_name_in_another_case(tmp_path: Path) -> None:
    """Names of .NET settings match in any case: two spellings would leave it to chance which one counts."""
    settings = load(settings_file(tmp_path, kafka_brokers="file"), True, {"KAFKA_BROKERS": "environment"}, [])

    assert settings.environment == {"KAFKA_BROKERS": "environment"}
    assert settings.get("Kafka_Brokers") == "environment"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("%PREFIX%-orders", "adx-orders"),
        ("%prefix%%PREFIX%", "adxadx"),
        ("", ""),
    ],
)
def test_every_name_between_percent_signs_is_replaced(text: str, expected: str) -> None:
    """docs/functions-host.md, "Settings": partial expansion works, in any case."""
    assert expand(text, AppSettings.of({"PREFIX": "adx"})) == expected


@pytest.mark.parametrize("text", ["%MISSING%", "50%", "%PREFIX%-%"])
def test_a_name_without_a_value_is_an_error(text: str) -> None:
    """docs/functions-host.md, "Settings": unset means an error, not an empty string."""
    with pytest.raises(ResolveError):
        expand(text, AppSettings.of({"PREFIX": "adx"}))


def test_a_result_that_is_itself_the_name_of_a_setting_is_replaced_once_more() -> None:
    """docs/functions-host.md, "Settings": a topic called `home` becomes `/root`."""
    settings = AppSettings.of({"HOME": "/root", "TOPIC": "home", "EMPTY": "", "ConnectionStrings__orders": "x"})

    assert resolve_secure("home", settings) == "/root"
    assert resolve_secure("%TOPIC%", settings) == "/root"
    assert resolve_secure("orders", settings) == "x"
    assert resolve_secure("empty", settings) == "empty"
    assert resolve_secure("flights", settings) == "flights"


def test_host_json_is_overridden_by_settings(tmp_path: Path) -> None:
    """`AzureFunctionsJobHost__a__b` sets host.json's `a.b`, in any case of letters, always as text."""
    (tmp_path / "host.json").write_text(
        json.dumps(
            {
                "version": "2.0",
                "functionTimeout": "00:10:00",
                "extensions": {"kafka": {"maxBatchSize": 5000, "commitOnFailure": False}},
                "logging": {"logLevel": {"default": "Warning"}},
            }
        )
    )
    settings = AppSettings.of(
        {
            "AzureFunctionsJobHost__extensions__kafka__maxBatchSize": "7",
            "AZUREFUNCTIONSJOBHOST__FUNCTIONTIMEOUT": "-1",
            "AzureFunctionsJobHost__logging__logLevel__Host.Triggers": "Error",
        }
    )

    options = hostjson.load(tmp_path / "host.json", settings)

    assert (options.kafka.max_batch_size, options.kafka.commit_on_failure) == (7, False)
    assert options.function_timeout_s is None
    assert options.log_levels == {"default": "warning", "host.triggers": "error"}


def test_the_defaults_are_those_of_the_extension(tmp_path: Path) -> None:
    """docs/functions-host.md, "Settings": commitOnFailure is true, maxRetries 5."""
    options = hostjson.load(tmp_path / "none.json", AppSettings.of({}))

    assert options.kafka == hostjson.KafkaOptions(
        max_batch_size=64,
        subscriber_interval_in_seconds=1,
        executor_channel_capacity=1,
        channel_full_retry_interval_in_ms=50,
        subscriber_idle_backoff_ms=50,
        commit_on_failure=True,
        max_retries=5,
        auto_commit_interval_ms=200,
        auto_offset_reset="earliest",
        session_timeout_ms=10_000,
        metadata_max_age_ms=180_000,
        socket_keepalive_enable=True,
    )
    assert options.function_timeout_s == 1800


def test_every_value_of_host_json_that_cannot_be_used_is_named_at_once(tmp_path: Path) -> None:
    """A host that starts with a guess would prove nothing about the one in Azure."""
    kafka = {"maxBatchSize": 0, "maxRetries": -2, "commitOnFailure": "perhaps", "subscriberIntervalInSeconds": 0.5}
    document = {"version": "2.0", "functionTimeout": "ten minutes", "extensions": {"kafka": kafka}}
    (tmp_path / "host.json").write_text(json.dumps(document))

    with pytest.raises(SettingsError) as caught:
        hostjson.load(tmp_path / "host.json", AppSettings.of({}))

    assert len(caught.value.faults) == 5


def test_faults_of_settings_end_the_host_with_code_2_and_in_the_status_file(tmp_path: Path) -> None:
    """`up` shows the text and does not start such a host again."""
    (tmp_path / "host.json").write_text('{"version": "1.0"}')
    status = tmp_path / "status.json"
    command = [sys.executable, "-m", "localrunner.host", f"--app={tmp_path}", f"--status-file={status}", "--set=X"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)

    assert done.returncode == 2
    assert "--set X: no '='; write NAME=VALUE" in done.stderr
    assert json.loads(status.read_text())["state"] == "failed"


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--set=FUNCTIONS_WORKER_PROCESS_COUNT=2", "FUNCTIONS_WORKER_PROCESS_COUNT: more than one worker process"),
        ("--python=none/python", "--worker microsoft: there is no none/python; install Python 3.13"),
        ("--keys=none.json", "--keys none.json: cannot be read as JSON: FileNotFoundError"),
    ],
)
def test_what_is_not_emulated_or_not_there_is_refused_in_one_line(tmp_path: Path, option: str, line: str) -> None:
    """A host that started without it would not be the one that was asked for."""
    command = [sys.executable, "-m", "localrunner.host", f"--app={tmp_path}", option]
    command += ["--worker=microsoft"] if option.startswith("--python") else []

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)

    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_the_sinks_own_settings_are_checked_before_it_is_started() -> None:
    """The contract's section 2: with faults, localrunner exits 2, where Azure would run an app that idles."""
    command = [
        sys.executable,
        "-m",
        "localrunner",
        "host",
        "--set=SINK_TOPICS_MAPPING=[",
        "--set=KAFKA_BROKERS=b:1",
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)

    assert done.returncode == 2
    assert "SINK_TOPICS_MAPPING" in done.stderr
    assert "KUSTO_INGESTION_URL" in done.stderr


def test_a_topic_and_a_group_come_from_settings(hosts: Hosts, broker: Broker, topic_name: str, group: str) -> None:
    """docs/functions-host.md, "Settings": a topic that is also a setting's name is consumed under its value."""
    code = """
@trigger(topic="decoy", consumer_group="%GROUP%-suffix")
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("batch", topic=records[0].topic, value=os.environ["DECOY"])
"""
    broker.create(topic_name)
    broker.produce(topic_name, 1)
    host = hosts.start(hosts.app(code, {"maxBatchSize": 1}), DECOY=topic_name)

    (batch,) = host.wait_notes("batch", 1)
    assert (batch["topic"], batch["value"]) == (topic_name, topic_name)
    host.wait_log("Stored commit offset")
    assert host.stop() == 0
    assert broker.committed(f"{group}-suffix") == {0: 1}
