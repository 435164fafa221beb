"""What `up` is going to start, decided and checked before anything runs."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localrunner import azurite, kafka, mockkafka
from localrunner.host import hostjson, workers
from localrunner.host.settings import AppSettings, SettingsError, load
from localrunner.processes import free_ports, is_free
from sinkcore.errors import ConfigError
from sinkcore.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parent.parent
HOSTS_MAX = 32
TIME_SCALE_MAX = 1000.0
DOCKER_ANSWER_S = 10.0
PORTS_FILE = "ports.json"
STARTED = ("embedded", "mock")
PORT_NAMES = ("kafka", "kafka-controller", *azurite.SERVICES, "dm", "engine", "registry")
# Topics and partitions that appear later are promised to be seen within 10 s.
METADATA_MAX_AGE = "AzureFunctionsJobHost__extensions__kafka__metadataMaxAgeMs"
METADATA_MAX_AGE_MS = "5000"
# As short as the host allows, so that a killed host keeps the sweeper from the others for half a minute at most.
SINGLETON = "AzureFunctionsJobHost__singleton__"
FILLED_IN = {
    METADATA_MAX_AGE: METADATA_MAX_AGE_MS,
    f"{SINGLETON}listenerLockPeriod": "00:00:15",
    f"{SINGLETON}listenerLockRecoveryPollingInterval": "00:00:15",
}

_ADDRESSES = re.compile(r"[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*")


@dataclass(frozen=True, slots=True)
class Options:
    """What somebody asked `up` for; `kafka` is None, `embedded`, `mock` or an address.

    `settings_file` None is `local.settings.json` beside the app, if there is one; `data` None is a temporary
    directory.
    """

    settings_file: Path | None = None
    sets: tuple[str, ...] = ()
    kafka: str | None = None
    hosts: int = 1
    data: Path | None = None
    adx_time_scale: float = 0.01
    app: Path = ROOT
    worker: str = workers.EMULATED


@dataclass(frozen=True, slots=True)
class Plan:
    """Which components run, where they listen, and the app settings that lead to them.

    `kafka` is `embedded`, `docker`, `mock`, or None where the settings point to one. `ports` has a number for
    every name of PORT_NAMES. `storage` is the connection string that the double works with. `notes` are
    sentences for the screen.
    """

    options: Options
    settings: Settings
    values: Mapping[str, str] = field(repr=False)
    settings_file: Path | None
    kafka: str | None
    azurite: bool
    adx: bool
    registry: bool
    ports: Mapping[str, int]
    storage: str = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def brokers(self) -> str:
        """The bootstrap list, ours or the settings' own."""
        return self.settings.kafka.brokers

    @property
    def dm(self) -> str:
        """The data-management endpoint, ours or the settings' own."""
        return self.settings.kusto.ingestion_url

    @property
    def engine(self) -> str:
        """The engine endpoint, ours or the settings' own."""
        return self.settings.kusto.query_url

    @property
    def schema_registry(self) -> str | None:
        """The schema registry, ours or the settings' own; None where no route needs one."""
        needed = any(route.needs_registry for route in self.settings.routes)
        return self.settings.registry.url if needed else None

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics that routes name, in their order."""
        return self.settings.topics

    @property
    def databases(self) -> tuple[str, ...]:
        """Databases that routes name, in their order."""
        return tuple(dict.fromkeys(route.db for route in self.settings.routes))


def make_plan(options: Options, environment: Mapping[str, str]) -> Plan:
    """The plan for `options`: `--set` over `environment` over the settings file over what is filled in.

    Raises:
        ConfigError: with every fault of the options, the file and the settings; nothing has been started.
    """
    faults = _option_faults(options)
    host = _host_json(options.app, faults)
    file = options.settings_file or options.app / "local.settings.json"
    try:
        given = load(file, options.settings_file is not None, environment, list(options.sets))
    except SettingsError as fault:
        # What the settings lack may stand in the file that cannot be read: no word about them.
        raise ConfigError((*faults, *fault.faults)) from fault

    ports, notes = _ports(options.data, faults)
    values = dict(given.environment)
    kind, kafka_notes = _choose_kafka(given, options.kafka, faults)
    if kind is not None:
        _put(values, "KAFKA_BROKERS", f"127.0.0.1:{ports['kafka']}")
    elif options.kafka is not None:
        _put(values, "KAFKA_BROKERS", options.kafka)
    if not _has_storage(given):
        _put(values, "AzureWebJobsStorage", azurite.connection_string(azurite_ports(ports)))
    uses_adx = not given.get("KUSTO_INGESTION_URL")
    uses_registry = not given.get("SCHEMA_REGISTRY_URL")
    registry_values = {"SCHEMA_REGISTRY_URL": f"http://127.0.0.1:{ports['registry']}"} if uses_registry else {}
    for name, value in ((_adx_values(ports) if uses_adx else {}) | registry_values | FILLED_IN).items():
        if not given.get(name):
            _put(values, name, value)
    try:
        settings = read_settings(values, host)
        hostjson.load(options.app / "host.json", AppSettings.of(values))
    except (ConfigError, SettingsError) as fault:
        raise ConfigError((*faults, *fault.faults)) from fault
    if faults:
        raise ConfigError(tuple(faults))
    # A double cannot use an identity, so it gets a storage of its own where the settings give it no key.
    own = azurite.connection_string(azurite_ports(ports))
    storage = settings.storage.connection_string or own
    return Plan(
        options=options,
        settings=settings,
        values=values,
        settings_file=file if file.exists() else None,
        kafka=kind,
        azurite=not _has_storage(given) or (uses_adx and storage == own),
        adx=uses_adx,
        registry=uses_registry and any(route.needs_registry for route in settings.routes),
        ports=ports,
        storage=storage,
        notes=(*notes, *kafka_notes),
    )


def _option_faults(options: Options) -> list[str]:
    faults = []
    if options.kafka not in (None, *STARTED) and not _ADDRESSES.fullmatch(options.kafka or ""):
        faults.append("--kafka: it is neither embedded, mock nor HOST:PORT; write one of them")
    if not 1 <= options.hosts <= HOSTS_MAX:
        faults.append(f"--hosts: {options.hosts} is not from 1 to {HOSTS_MAX}; write such a number")
    scale = options.adx_time_scale
    if not (math.isfinite(scale) and 0 < scale <= TIME_SCALE_MAX):
        faults.append(f"--adx-time-scale: {scale:g} is not above 0 and at most {TIME_SCALE_MAX:g}; write 0.01")
    if options.data is not None and options.data.exists() and not options.data.is_dir():
        faults.append(f"--data: {options.data} is no directory; name another")
    try:
        workers.choose(options.worker)
    except SettingsError as fault:
        faults += fault.faults
    if options.kafka is not None and any(item.upper().startswith("KAFKA_BROKERS=") for item in options.sets):
        faults.append("--kafka: --set gives KAFKA_BROKERS too; leave one of them out")
    return faults


def _host_json(app: Path, faults: list[str]) -> dict[str, Any]:
    """host.json of `app`, parsed; empty beside a fault."""
    path = app / "host.json"
    try:
        host = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        faults.append(f"{path}: cannot be read: {fault.strerror}; name the app's directory")
        return {}
    except ValueError as fault:
        faults.append(f"{path}: is not JSON: {fault}; correct it")
        return {}
    if not isinstance(host, dict):
        faults.append(f"{path}: is no JSON object; correct it")
        return {}
    return host


def _put(values: dict[str, str], name: str, value: str) -> None:
    """`name` is `value`, and stands there in no other case of letters, which Functions would take for the same."""
    for known in [known for known in values if known.upper() == name.upper()]:
        del values[known]
    values[name] = value


def _adx_values(ports: Mapping[str, int]) -> dict[str, str]:
    """The settings that lead to the ADX double."""
    return {
        "KUSTO_INGESTION_URL": f"http://127.0.0.1:{ports['dm']}",
        "KUSTO_QUERY_URL": f"http://127.0.0.1:{ports['engine']}",
        "KUSTO_AUTHENTICATION": "none",
    }


def _has_storage(given: AppSettings) -> bool:
    """Whether any form of a storage connection is among the settings."""
    names = ("AZUREWEBJOBSSTORAGE", "SINKSTORAGE")
    return any(
        value and name.upper().replace(":", "__").partition("__")[0] in names
        for name, value in given.environment.items()
    )


def _choose_kafka(given: AppSettings, asked: str | None, faults: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """Which Kafka `up` starts, None where an address is given; and what is to be said about it.

    An explicit `--kafka` is as good as a `--set`: it wins over the environment and the file.
    """
    if asked not in (None, *STARTED) or (asked is None and given.get("KAFKA_BROKERS")):
        return None, ()
    protocol = given.get("KAFKA_PROTOCOL") or "PLAINTEXT"
    if protocol != "PLAINTEXT":
        faults.append(
            "KAFKA_PROTOCOL: the Kafka that `up` starts speaks PLAINTEXT alone; remove it, or give an address"
        )
    return ("mock", (mockkafka.COST,)) if asked == "mock" else kafka_here()


def kafka_here() -> tuple[str, tuple[str, ...]]:
    """Which Kafka `up` starts on this machine where nobody says which; and what is to be said about it."""
    if kafka.java_version() >= kafka.JAVA_MIN:
        return "embedded", ()
    missing = f"kafka: there is no Java {kafka.JAVA_MIN} or later on the PATH"
    if _docker_answers():
        return "docker", (f"{missing}, so it runs in Docker; {kafka.DOCKER_COST}",)
    return "mock", (f"{missing}, and no Docker; --kafka HOST:PORT takes a running broker", mockkafka.COST)


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=DOCKER_ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def azurite_ports(ports: Mapping[str, int]) -> tuple[int, ...]:
    """Azurite's three ports in the order of its services."""
    return tuple(ports[service] for service in azurite.SERVICES)


def _ports(data: Path | None, faults: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """A port for each name: the one kept in `data`, since what lies there names addresses; else a free one."""
    kept: dict[str, int] = {}
    file = None if data is None else data / PORTS_FILE
    if file is not None and file.exists():
        try:
            kept = {name: int(port) for name, port in json.loads(file.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            faults.append(f"--data: {file} cannot be read; remove it")
    ports = dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES), taken=kept.values()), strict=True))
    notes = []
    for name in PORT_NAMES:
        if name in kept and is_free(kept[name]):
            ports[name] = kept[name]
        elif name in kept:
            notes.append(
                f"{name}: port {kept[name]} of the last run is taken, so it is {ports[name]} now; what still lies"
                " in queues under the old address is not found"
            )
    return ports, tuple(notes)
