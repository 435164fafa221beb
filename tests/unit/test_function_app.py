"""The app as a host sees it: what importing it registers, in an interpreter of its own, since import is all."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from localrunner.host.settings import AppSettings
from localrunner.host.triggers import KafkaTrigger, TimerTrigger, accept
from localrunner.host.wire import FunctionMetadata, RetryOptions
from localrunner.kafka import create_topics

ROOT = Path(__file__).resolve().parent.parent.parent
IMPORT_TIMEOUT_S = 60
# The sample of the article that this grew from, as it stands.
ARTICLE = (
    "[{'topic': 'crimes','db': 'crimes_db', 'table': 'crimes_curated','format': 'json',"
    " 'mapping':'crimes_curated_mapping'}]"
)
VALUES = {
    "SINK_TOPICS_MAPPING": ARTICLE,
    "KAFKA_BROKERS": "127.0.0.1:9092",
    "KUSTO_INGESTION_URL": "https://ingest-cluster.region.kusto.windows.net",
    "AzureWebJobsStorage": "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0LWtleQ==;",
}
INDEX = """
import msgspec
from localrunner.host.worker.indexing import index
print(msgspec.json.encode([function.metadata for function in index()]).decode())
"""
MODULES = """
import json, sys
import function_app
print(json.dumps(sorted(sys.modules)))
"""


def run(script: str, values: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The script in a fresh interpreter that has these settings and no others."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **values},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def indexed(**values: str) -> list[FunctionMetadata]:
    """What the worker tells the host about the app's functions."""
    import msgspec

    done = run(INDEX, {name: value for name, value in (VALUES | values).items() if value})
    return msgspec.json.decode(done.stdout, type=list[FunctionMetadata])


def bindings_of(function: FunctionMetadata) -> list[dict[str, Any]]:
    return [json.loads(binding) for binding in function.raw_bindings]


def test_the_articles_sample_makes_a_kafka_function_and_the_sweeper() -> None:
    functions = indexed()

    assert [function.name.rpartition("_")[0] or function.name for function in functions] == [
        "kafka_crimes",
        "sweeper",
    ]
    (binding,) = bindings_of(functions[0])
    assert (
        binding.items()
        >= {
            "type": "kafkaTrigger",
            "direction": "IN",
            "name": "events",
            "topic": "crimes",
            "brokerList": "%KAFKA_BROKERS%",
            "consumerGroup": "adx-sink-crimes",
            "cardinality": "MANY",
            "dataType": "binary",
            "keyDataType": "Binary",
        }.items()
    )


def test_the_host_runs_all_of_it() -> None:
    """A function whose name or trigger the host refuses is skipped there without stopping the others."""
    topics = ["a.b", "a-b", "Orders", "orders", "Orders.EU-" * 24 + "Orders.EU"]
    mapping = json.dumps([{"topic": topic, "db": "db", "table": "T"} for topic in topics])

    accepted = accept(indexed(SINK_TOPICS_MAPPING=mapping), AppSettings.of(VALUES))

    assert accepted.faults == ()
    triggers = [function.trigger for function in accepted.functions]
    assert [trigger.topic for trigger in triggers if isinstance(trigger, KafkaTrigger)] == topics
    (timer,) = [trigger for trigger in triggers if isinstance(trigger, TimerTrigger)]
    assert timer.schedule.more_often_than_a_minute()


def test_a_failed_batch_is_tried_again_for_ever_and_ever_more_slowly() -> None:
    """A policy that ends hands over to the extension, which retries without a pause, or skips the batch."""
    kafka, _ = indexed()

    assert kafka.retry_options == RetryOptions(
        "exponential_backoff", -1, minimum_interval_s=2, maximum_interval_s=60
    )


def test_the_sweeper_keeps_its_own_time() -> None:
    _, sweeper = indexed(SINK_SWEEP_SCHEDULE="0 */5 * * * *")

    (binding,) = bindings_of(sweeper)
    assert (binding["type"], binding["schedule"]) == ("timerTrigger", "0 */5 * * * *")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"KAFKA_BROKERS": ""}, "KAFKA_BROKERS: it is not set"),
        ({"SINK_TOPICS_MAPPING": "[{'topic': "}, "SINK_TOPICS_MAPPING: it is not JSON"),
        ({"SINK_INVOCATION_MAX_S": "600"}, "SINK_INVOCATION_MAX_S: 600 s is not below functionTimeout, 600 s"),
        ({"SINK_TOPIC_MAPPING": "x"}, "SINK_TOPICS_MAPPING is the nearest"),
    ],
)
def test_with_faults_the_app_takes_no_records_and_says_why(values: dict[str, str], said: str) -> None:
    """An exception would leave a host without any function, and somebody with a stack trace."""
    (function,) = indexed(**values)
    assert function.name == "settings_invalid"
    assert [binding["type"] for binding in bindings_of(function)] == ["timerTrigger"]

    logged = run(INDEX, {name: value for name, value in (VALUES | values).items() if value}).stderr
    assert logged.startswith("settings_invalid ")
    assert said in logged


def test_what_is_said_of_faults_holds_no_secret() -> None:
    secrets = {
        "KAFKA_PASSWORD": "hunter2",
        "KUSTO_CLIENT_SECRET": "hunter3",
        "KAFKA_SSL_KEY": "-----BEGIN hunter4",
    }

    logged = run(INDEX, VALUES | secrets | {"KAFKA_BROKERS": "nobody:here:at:all"}).stderr

    for name in secrets:
        assert name in logged
    assert "hunter" not in logged
    assert "c2VjcmV0" not in logged


def test_indexing_does_not_wait_for_the_sdks() -> None:
    """Every start and every crash would pay for them before the host knows of a single function."""
    modules: list[str] = json.loads(run(MODULES, VALUES).stdout)

    heavy: tuple[str, ...] = (
        "azure.storage",
        "azure.data",
        "azure.kusto",
        "azure.identity",
        "azure.core",
        "confluent_kafka",
    )
    heavy += ("google.protobuf", "jsonschema_rs", "sinkcore.registry", "sinkcore.schemas.")
    assert "sinkcore.settings" in modules
    assert [name for name in modules if name.startswith(heavy)] == []
    assert [name for name in modules if name.startswith(("localrunner", "tests"))] == []


def test_production_installs_these_packages_in_these_versions_and_no_others() -> None:
    """What is not pinned changes under an app that nobody has touched."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {
        one.name: str(one.specifier).removeprefix("==")
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    }

    assert pins.keys() == {
        "azure-functions",
        "azure-kusto-ingest",
        "azure-identity",
        "azure-storage-blob",
        "azure-data-tables",
        "confluent-kafka",
        "msgspec",
        "isal",
        "protobuf",
        "jsonschema-rs",
    }
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in pins.values())
    assert pins == {name: importlib.metadata.version(name) for name in pins}


def test_a_batch_is_delivered_and_nothing_is_returned(azurite: str, kafka: str, topic_name: str) -> None:
    """The worker fails an invocation that returns anything, and the host would hand the batch over for ever."""
    script = """
import json
import function_app
from tests.support.events import Sent, events_of
from sinkcore.errors import TransientError
from time import sleep

def again(call, argument):
    # As the host does: a broker that has just started loads its groups for a moment.
    for _ in range(20):
        try:
            return call(argument)
        except TransientError:
            sleep(0.5)

kafka, sweeper = function_app.app.get_functions()
events = events_of([Sent(b'{"n": 1}', 7)], function_app.os.environ["TOPIC"])
print(json.dumps([again(kafka.get_user_function(), events), sweeper.get_user_function()(None)]), flush=True)
# At the interpreter's own end the Kafka client's threads are still at work, and now and then crash it.
function_app.os._exit(0)
"""
    create_topics(kafka, [topic_name])
    done = run(
        script,
        VALUES
        | {
            "TOPIC": topic_name,
            "SINK_TOPICS_MAPPING": ARTICLE.replace("'crimes'", f"'{topic_name}'"),
            "KAFKA_BROKERS": kafka,
            "AzureWebJobsStorage": azurite,
            "KUSTO_INGESTION_URL": "http://127.0.0.1:1",
            "KUSTO_QUERY_URL": "http://127.0.0.1:2",
            "KUSTO_AUTHENTICATION": "none",
            "SINK_LEDGER_TABLE": "functionapp",
            "SINK_STAGING_CONTAINER": "functionapp",
        },
    )

    assert json.loads(done.stdout) == [None, None]
    assert "blob_left_staged" in done.stderr, "committed; ADX is not there"
