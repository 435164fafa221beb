"""Apache Kafka on the JVM as one process, broker and controller, without Docker."""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from threading import Event

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from localrunner.processes import Child, NotReadyError, accepts, spawn, wait_until

ROOT = Path(__file__).resolve().parent.parent
LIBS = ROOT / ".local" / "kafka" / "libs"

START_S = 60.0  # on a busy machine; 4 s is usual
STOP_S = 15.0
FORMAT_S = 60.0
METADATA_S = 2.0
CREATE_S = 20.0
JAVA_ANSWER_S = 10.0
JAVA_MIN = 17
TOPIC_PARTITIONS = 4
DOCKER_IMAGE = "apache/kafka:4.1.0"
DOCKER_START_S = 300.0  # the image may have to be fetched first
DOCKER_COST = (
    "this way is untried, the image is fetched first, and where `up` is killed by SIGKILL the container"
    " stays: end it with `docker rm -f`"
)

JVM_FLAGS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# Kafka logs through slf4j; its simplest binding writes to the standard error stream.
LOG_FLAGS = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

PROPERTIES_FILE = "server.properties"
# Paths are relative, since Kafka reads a comma in them as the end and knows Latin-1 alone.
# One node: nothing can be replicated. Internal topics get one partition each, since every partition costs
# files and start-up time. A rebalance begins at once instead of waiting for more members.
# A killed broker is let in again only when its former session has run out: after 4 s instead of 9 s.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=data
num.partitions={partitions}
default.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
"""


def installed() -> bool:
    """Whether Java and Kafka's jars are here."""
    return shutil.which("java") is not None and any(LIBS.glob("kafka_*.jar"))


def java_version() -> int:
    """The feature release of the Java on the PATH, such as 17; 0 where there is none that runs."""
    # macOS has a `java` that only says that there is none.
    try:
        done = subprocess.run(
            ["java", "-version"], capture_output=True, text=True, timeout=JAVA_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if done.returncode == 0 and found else 0


def start(directory: Path, log: Path, port: int, controller_port: int, more: str = "") -> Child:
    """Kafka is starting on `127.0.0.1:port`, with its records below `directory`; wait with `wait_ready`.

    `more` are lines of server.properties, such as other listeners; a property that comes twice has its last value.

    Raises:
        NotReadyError: Java or the jars are missing, or the directory cannot be formatted.
    """
    if not installed():
        raise NotReadyError("kafka: Java or the jars are missing; run `make setup`, or give an address")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PROPERTIES_FILE).write_text(
        PROPERTIES.format(port=port, controller_port=controller_port, partitions=TOPIC_PARTITIONS) + more
    )
    if not (directory / "data" / "meta.properties").exists():
        _format(directory)
    return spawn("kafka", [*_java(), "kafka.Kafka", PROPERTIES_FILE], log, cwd=directory)


def start_in_docker(log: Path, port: int) -> Child:
    """Docker's client is starting Kafka on `127.0.0.1:port`; its data goes with the container."""
    options = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "NUM_PARTITIONS": str(TOPIC_PARTITIONS),
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    command = ["docker", "run", "--rm", "--publish", f"127.0.0.1:{port}:9092"]
    for name, value in options.items():
        command += ["--env", f"KAFKA_{name}={value}"]
    return spawn("kafka", [*command, DOCKER_IMAGE], log)


def create_topics(bootstrap: str, topics: Iterable[str], partitions: int = TOPIC_PARTITIONS) -> None:
    """Each of `topics` exists; one that did not has `partitions` partitions.

    Raises:
        NotReadyError: the broker refused one, or did not answer.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    new = [NewTopic(topic, partitions) for topic in topics]
    created = admin.create_topics(new, operation_timeout=CREATE_S) if new else {}
    for topic, outcome in created.items():
        try:
            outcome.result(timeout=CREATE_S + METADATA_S)
        except KafkaException as fault:
            if fault.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise NotReadyError(f"kafka: topic {topic} cannot be created: {fault.args[0].str()}") from fault


def wait_ready(child: Child, port: int, timeout_s: float = START_S, *, cancelled: Event | None = None) -> None:
    """Kafka on `port` has answered a metadata request and counts itself as a living broker."""
    bootstrap = f"127.0.0.1:{port}"
    wait_until(
        "kafka answers a metadata request", lambda: answers(bootstrap), timeout_s, child=child, cancelled=cancelled
    )


def answers(bootstrap: str) -> bool:
    """Whether a broker at `bootstrap` answers a metadata request and names at least one living broker."""
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    return accepts(int(port), host) and brokers(bootstrap, METADATA_S) > 0


def brokers(bootstrap: str, timeout_s: float) -> int:
    """How many brokers a metadata request to `bootstrap` names; 0 where nobody answers in time."""
    # The client's own log lines would name every refused connection on our screen.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return len(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return 0


def _java() -> list[str]:
    return ["java", *JVM_FLAGS, *LOG_FLAGS, "-cp", f"{LIBS}/*"]


def _format(directory: Path) -> None:
    """The data directory carries a cluster id, without which Kafka does not start.

    Source: KRaft wants `kafka-storage format` once; ids are 16 bytes in url-safe base64 without padding.
    """
    cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    command = [*_java(), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", PROPERTIES_FILE]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=FORMAT_S, check=False)
    if done.returncode != 0:
        raise NotReadyError(f"kafka: cannot format {directory}: {(done.stdout + done.stderr).strip()[-500:]}")
