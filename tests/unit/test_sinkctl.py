"""What an operator types, against real Kafka and Azurite."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient
from confluent_kafka import Producer

from localrunner.kafka import create_topics
from sinkcore.clients import build_app
from sinkcore.errors import TransientError
from sinkcore.settings import read_settings
from sinkctl.__main__ import VERBS, main, parser

PATIENCE_S = 20.0


@pytest.fixture
def environment(azurite: str, kafka: str, topic_name: str) -> dict[str, str]:
    create_topics(kafka, [topic_name])
    producer = Producer({"bootstrap.servers": kafka})
    for n in range(10):
        producer.produce(topic_name, b'{"n":%d}' % n, partition=1)
    assert producer.flush(PATIENCE_S) == 0
    return {
        "SINK_TOPICS_MAPPING": json.dumps([{"topic": topic_name, "db": "db", "table": "T"}]),
        "KAFKA_BROKERS": kafka,
        "AzureWebJobsStorage": azurite,
        "KUSTO_INGESTION_URL": "http://127.0.0.1:1",
        "KUSTO_QUERY_URL": "http://127.0.0.1:2",
        "KUSTO_AUTHENTICATION": "none",
        "SINK_LEDGER_TABLE": "sinkctl" + topic_name.replace("-", ""),
        "SINK_STAGING_CONTAINER": topic_name,
    }


def until_kafka_answers(arguments: list[str], environment: dict[str, str]) -> int:
    """A broker that has just started loads its groups for a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while (code := main(arguments, environment)) == 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    return code


def test_start_places_every_partition_and_the_other_verbs_see_it(
    environment: dict[str, str], topic_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert until_kafka_answers(["start"], environment) == 0
    assert f"{topic_name} 3 begins at 0" in capsys.readouterr().out

    assert main(["gaps"], environment) == 0
    assert main(["audit"], environment) == 0
    assert f"{topic_name} 1: 0 to 0, 0 in gaps" in capsys.readouterr().out

    assert main(["skip", topic_name, "--partition", "1", "--to", "4"], environment) == 0
    assert main(["audit", topic_name], environment) == 1, "what was given up is missing"
    assert f"{topic_name} 1: MISSING 0 to 4" in capsys.readouterr().out

    assert main(["replay", topic_name, "--partition", "1", "--first", "0", "--to", "4"], environment) == 0
    assert main(["gaps"], environment) == 0
    (line,) = capsys.readouterr().out.splitlines()[-1:]
    assert line.startswith(f"{topic_name} 1 0 to 4 (4) replay g-")
    assert main(["skip", topic_name, "--gap", line.split()[-1]], environment) == 0
    assert main(["release", topic_name, "g-none"], environment) == 1
    assert "there is no gap g-none" in capsys.readouterr().err


def test_where_the_app_has_run_a_missing_ledger_is_made_by_start_alone(
    environment: dict[str, str], topic_name: str, azurite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new instance would otherwise begin anew beside others that still know what was dropped."""
    assert until_kafka_answers(["start"], environment) == 0
    TableServiceClient.from_connection_string(azurite).delete_table(environment["SINK_LEDGER_TABLE"])

    with pytest.raises(TransientError, match="the ledger table is missing"):
        build_app(read_settings(environment))
    assert main(["gaps"], environment) == 1
    assert "for a new one run sinkctl start" in capsys.readouterr().err

    assert until_kafka_answers(["start"], environment) == 0
    assert f"{topic_name} 3 begins at 0" in capsys.readouterr().out


def test_an_audit_asks_kafka_about_what_the_ledger_leaves_out(
    environment: dict[str, str], kafka: str, topic_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three records that were aborted, and their marker, are nothing that could be missing."""
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic_name, "log_level": 0})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(topic_name, b"{}", partition=2)
    assert producer.flush(PATIENCE_S) == 0
    producer.abort_transaction(PATIENCE_S)
    assert until_kafka_answers(["start"], environment) == 0
    assert main(["skip", topic_name, "--partition", "2", "--to", "4"], environment) == 0
    capsys.readouterr()

    assert main(["audit"], environment) == 0

    said = capsys.readouterr()
    assert f"{topic_name} 2: 0 to 4, 0 in gaps" in said.out
    assert "MISSING" not in said.out
    assert "asked Kafka about 4 of 4 offsets" in said.err


def test_a_retry_says_what_it_found(
    environment: dict[str, str], topic_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert until_kafka_answers(["start"], environment) == 0
    assert main(["retry", topic_name], environment) == 0
    assert "no failed segment" in capsys.readouterr().out

    assert main(["retry", topic_name, "0" * 32], environment) == 1
    assert "not in the ledger" in capsys.readouterr().err


def test_settings_can_come_from_a_file_and_their_faults_are_said(
    tmp_path: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "local.settings.json"
    file.write_text(json.dumps({"Values": environment}))
    assert until_kafka_answers(["--settings", str(file), "start"], {}) == 0

    assert main(["--settings", str(file), "gaps"], {"SINK_BLOB_MAX_BYTES": "a lot"}) == 2
    assert "SINK_BLOB_MAX_BYTES" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["skip", "t"],
        ["skip", "t", "--to", "5"],
        ["replay"],
        ["retry"],
        ["replay", "t", "--partition", "1", "--first", "2"],
    ],
)
def test_what_is_not_complete_is_said_before_anything_is_touched(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments, {})


def test_every_verb_says_what_it_does() -> None:
    text = parser().format_help()

    for name, verb in VERBS.items():
        assert name in text
        assert verb.__doc__
