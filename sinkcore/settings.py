"""App settings become one frozen Settings, or one error that names every fault with its fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sinkcore.connections import Kafka, Kusto, SchemaRegistry, read_kafka, read_kusto, read_registry
from sinkcore.declared import (
    NAME_SHOWN_MAX,
    Faults,
    UnusableError,
    declared,
    distance,
    like,
    nearest,
    number,
    one_of,
    read_declared,
    shown,
    text,
)
from sinkcore.errors import ConfigError
from sinkcore.routes import TOPICS_MAX, Route, read_topics
from sinkcore.routeset import read_routes
from sinkcore.storage import Storage, read_storage

NEAR_LETTERS = 3  # an unknown KAFKA_* or KUSTO_* name this close to a known one is a slip of the pen
FUNCTION_TIMEOUT = "00:30:00"  # Functions' default, where host.json has none
MAX_POLL_INTERVAL_MS = 300_000  # librdkafka's default, where host.json has none

# Source: Azure's naming rules for containers and tables; the host keeps its own under azure-webjobs-.
_read_container = like(
    r"(?!.*--|azure-webjobs-)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]",
    "Azure or the host refuses it as a container's name",
    "use 3 to 63 lower-case letters, digits and single inner hyphens, not azure-webjobs-*",
)
_read_table = like(
    r"(?!(?i:tables)\Z)[A-Za-z][A-Za-z0-9]{2,62}",
    "Azure refuses it as a table's name",
    "use 3 to 63 letters and digits, the first a letter, and not 'tables'",
)
_read_access = like(
    r"sas|managed_identity=(system|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})",
    "it says neither sas nor managed_identity=...",
    "set sas, managed_identity=system or managed_identity=<object id>",
)
_TIME_SPAN = re.compile(r"(?:(\d{1,5})\.)?([01]?\d|2[0-3]):([0-5]?\d)(?::([0-5]?\d)(?:\.\d{1,7})?)?", re.ASCII)
_CRON_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d?))?", re.ASCII)
_CRON_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def _read_schedule(value: str) -> str:
    parts = value.lower().split()
    if len(parts) != len(_CRON_FIELDS):
        fix = "write six: second minute hour day month day-of-week"
        raise UnusableError(f"it has {len(parts)} fields", fix)
    for part, (subject, least, most, names) in zip(parts, _CRON_FIELDS, strict=True):
        if not all(_is_cron_item(item, least, most, names) for item in part.split(",")):
            raise UnusableError(f"its {subject} cannot be read", f"use *, {least}-{most}, lists, ranges or /steps")
    return " ".join(value.split())


def _is_cron_item(item: str, least: int, most: int, names: tuple[str, ...]) -> bool:
    match = _CRON_ITEM.fullmatch(item)
    if match is None:
        return False
    given = [end for end in match.group(1, 2) if end is not None]
    ends = [least + names.index(end) if end in names else int(end) if end.isdigit() else -1 for end in given]
    return all(least <= end <= most for end in ends) and ends == sorted(ends)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the app is told from outside, checked, with its defaults filled in."""

    kafka: Kafka
    kusto: Kusto
    registry: SchemaRegistry
    storage: Storage
    routes: tuple[Route, ...] = text(
        "SINK_TOPICS_MAPPING",
        "Where each topic's records go: [routes](routes.md)",
        "required",
        allowed="a JSON list",
    )
    topics: tuple[str, ...] = text(
        "SINK_TOPICS",
        "Topics that a `*` route takes: a trigger needs each by name",
        allowed="names, with commas between",
        read=read_topics,
    )
    staging_container: str = text(
        "SINK_STAGING_CONTAINER",
        "Where staged blobs lie",
        "sink-staging",
        allowed="container name",
        read=_read_container,
    )
    dead_letters_container: str = text(
        "SINK_DEAD_LETTERS_CONTAINER",
        "Where dead letters lie; not where staged blobs do",
        "sink-dead-letters",
        allowed="container name",
        read=_read_container,
    )
    ledger_table: str = text(
        "SINK_LEDGER_TABLE", "Where the ledger lies", "sinkledger", allowed="table name", read=_read_table
    )
    delivery: str = one_of(
        "SINK_DELIVERY",
        ("effectively_once", "exactly_once"),
        "`exactly_once` adds an `ingest-by` tag to each blob",
        "effectively_once",
    )
    doubt_margin_s: int = number(
        "SINK_DOUBT_MARGIN_S",
        300,
        0,
        86_400,
        "Seconds beyond the table's batching time, before the table is asked about a doubtful segment",
    )
    on_bad_record: str = one_of(
        "SINK_ON_BAD_RECORD",
        ("dead_letter", "fail"),
        "`fail` raises: nothing more of that topic is taken until somebody acts",
        "dead_letter",
    )
    record_max_bytes: int = number(
        "SINK_RECORD_MAX_BYTES", 33_554_432, 1, 268_435_456, "Bytes of a record; a larger one is a dead letter"
    )
    blob_max_bytes: int = number(
        "SINK_BLOB_MAX_BYTES", 268_435_456, 1_024, 1_073_741_824, "Uncompressed bytes in one blob"
    )
    invocation_max_s: int = number(
        "SINK_INVOCATION_MAX_S", 240, 1, 3_600, "Seconds that the sink has for one batch"
    )
    gap_max_records: int = number(
        "SINK_GAP_MAX_RECORDS", 10_000_000, 1, 10**12, "Records of a gap; a larger one is held for an operator"
    )
    staged_blob_ttl_days: int = number(
        "SINK_STAGED_BLOB_TTL_DAYS", 14, 7, 3_650, "Days that final segments, their blobs and litter are kept"
    )
    sweep_schedule: str = text(
        "SINK_SWEEP_SCHEDULE",
        "When the sweeper runs",
        "*/30 * * * * *",
        allowed="NCRONTAB of six fields",
        read=_read_schedule,
    )
    confirm: str = one_of(
        "SINK_CONFIRM",
        ("query", "none"),
        "How `landed` is known",
        "<`query` where a route has `metadata`, else `none`>",
    )
    pending_max: int = number(
        "SINK_PENDING_MAX", 1_000, 1, 100_000, "Segments waiting for ADX before Kafka holds the rest"
    )
    staged_blob_access: str = text(
        "SINK_STAGED_BLOB_ACCESS",
        "How ADX may read a staged blob",
        "sas",
        allowed="`sas`, `managed_identity=system`, `managed_identity=<object id>`",
        read=_read_access,
    )

    def routes_of(self, topic: str) -> tuple[Route, ...]:
        """The routes of `topic`, in the order in which they are tried."""
        return tuple(route for route in self.routes if route.topic == topic)


KNOWN = tuple(
    setting.name for cls in (Settings, Kafka, Kusto, SchemaRegistry) for setting in declared(cls).values()
)


def read_settings(values: Mapping[str, str], host: Mapping[str, Any] | None = None) -> Settings:
    """The Settings that `values` (the environment, or app settings) and host.json, parsed as `host`, make.

    Without `host` nobody hosts the app, as in a tool: then only times that `values` override are compared.

    Raises:
        ConfigError: with every fault; nothing must be started.
    """
    faults = Faults()
    found = read_declared(Settings, values, faults)
    found["routes"] = read_routes(found.get("routes"), found.get("topics", ()), faults)
    found["topics"] = tuple(dict.fromkeys(route.topic for route in found["routes"]))
    kafka, kusto = read_kafka(values, faults), read_kusto(values, faults)
    registry, storage = read_registry(values, faults), read_storage(values, faults)
    settings = Settings(kafka=kafka, kusto=kusto, registry=registry, storage=storage, **found)
    _check_names(values, faults)
    _check_lookups(settings, values, faults)
    _check_together(settings, faults)
    _check_times(settings, values, host, faults)
    if faults.sentences:
        raise ConfigError(tuple(faults.sentences))
    return settings


def _check_names(values: Mapping[str, str], faults: Faults) -> None:
    """No name that is ours by its first letters is unknown, and none is for a later version."""
    for name in values:
        if name in KNOWN or not name.upper().startswith(("SINK_", "KAFKA_", "KUSTO_", "SCHEMA_REGISTRY_")):
            continue
        closest = nearest(name, KNOWN)
        near = distance(name[:NAME_SHOWN_MAX].upper(), closest) <= NEAR_LETTERS
        if near or name.upper().startswith("SINK_"):
            faults.add(
                shown(name)[1:-1], "it is no setting of this app", f"{closest} is the nearest; remove or rename"
            )


def _check_lookups(settings: Settings, values: Mapping[str, str], faults: Faults) -> None:
    """Nothing that the trigger is told is also the name of a setting or environment variable.

    Source: the Kafka extension's ResolveSecureSetting then puts that one's value in its place, in any case.
    """
    taken = {name.upper() for name in (*values, *KNOWN)}
    what = "is also the name of a setting or environment variable, whose value Functions would put in its place"
    for topic in settings.topics:
        for kind, name in (("topic", topic), ("consumer group", settings.kafka.group_of(topic))):
            if name.upper() in taken:
                fact = f"the {kind} {shown(name)} {what}"
                faults.add("SINK_TOPICS_MAPPING", fact, "rename or remove that one")
    for field_name, setting in declared(Kafka).items():
        value = getattr(settings.kafka, field_name)
        looked_up = field_name not in ("consumer_group", "protocol", "authentication")
        if looked_up and value is not None and value.upper() in taken:
            faults.add(setting.name, f"what it says {what}", "rename or remove that one")
        raw = values.get(setting.name, "")
        if looked_up and not setting.secret and raw.strip() and raw != raw.strip():
            # The host takes it as it stands, spaces and all, and the app's own clients without them.
            faults.add(setting.name, "there is blank space around what it says", "remove it")


def _check_together(settings: Settings, faults: Faults) -> None:
    """No setting contradicts another one, or lacks it."""
    if len(settings.topics) > TOPICS_MAX:
        fix = f"keep it to {TOPICS_MAX}, and give the rest to another app"
        faults.add("SINK_TOPICS_MAPPING", f"it has {len(settings.topics)} topics", fix)
    needing = [route.topic for route in settings.routes if route.needs_registry]
    if needing and settings.registry.url is None and "SCHEMA_REGISTRY_URL" not in faults.names:
        fact = f"it is not set, and the route of {shown(needing[0])} needs a schema registry"
        faults.add("SCHEMA_REGISTRY_URL", fact, "set it to the registry's URL")
    record, blob = settings.record_max_bytes, settings.blob_max_bytes
    if record > blob and "SINK_RECORD_MAX_BYTES" not in faults.names:
        faults.add("SINK_RECORD_MAX_BYTES", f"{record} is more than SINK_BLOB_MAX_BYTES, {blob}", "lower it")
    if settings.staging_container == settings.dead_letters_container:
        fact = "it is SINK_STAGING_CONTAINER too, whose blobs are swept"
        faults.add("SINK_DEAD_LETTERS_CONTAINER", fact, "give dead letters a container of their own")


def _check_times(
    settings: Settings, values: Mapping[str, str], host: Mapping[str, Any] | None, faults: Faults
) -> None:
    """`SINK_INVOCATION_MAX_S` < `functionTimeout` < `maxPollIntervalMs`, or there are faults."""
    timeout = _host_value(("functionTimeout",), values, host, FUNCTION_TIMEOUT)
    poll = _host_value(("extensions", "kafka", "maxPollIntervalMs"), values, host, str(MAX_POLL_INTERVAL_MS))
    timeout_s = None if timeout is None else faults.read("functionTimeout", _read_time_span_s, timeout)
    poll_s = None if poll is None else faults.read("maxPollIntervalMs", _read_poll_interval_s, poll)
    given_s = settings.invocation_max_s
    if timeout_s is not None and given_s >= timeout_s and "SINK_INVOCATION_MAX_S" not in faults.names:
        fact = f"{given_s} s is not below functionTimeout, {timeout_s} s"
        faults.add("SINK_INVOCATION_MAX_S", fact, "lower it, or raise functionTimeout in host.json")
    if timeout_s is not None and poll_s is not None and timeout_s >= poll_s:
        fact = f"{timeout_s} s is not below maxPollIntervalMs, {poll_s:g} s"
        faults.add("functionTimeout", fact, "lower it, or raise extensions.kafka.maxPollIntervalMs, in host.json")


def _host_value(
    path: tuple[str, ...], values: Mapping[str, str], host: Mapping[str, Any] | None, default: str
) -> str | None:
    """What the host goes by: an `AzureFunctionsJobHost__` setting, else host.json, else its default.

    None where `host` is None and nothing overrides it. Source: Functions reads both in any case of letters.
    """
    wanted = "__".join(("AzureFunctionsJobHost", *path)).upper()
    for name, value in values.items():
        if name.replace(":", "__").upper() == wanted and value.strip():
            return value.strip()
    found: Any = host
    for key in path:
        entries = found.items() if isinstance(found, Mapping) else ()
        found = next((value for name, value in entries if name.lower() == key.lower()), None)
    if found is None:
        return None if host is None else default
    return str(found)


def _read_time_span_s(value: str) -> int:
    """Whole seconds of a .NET TimeSpan, `[d.]hh:mm[:ss]`. `-1` is an unbounded one, which is refused."""
    match = _TIME_SPAN.fullmatch(value)
    if match is None:
        raise UnusableError("it is unbounded or no time", "set hh:mm:ss, such as 00:10:00, in host.json")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _read_poll_interval_s(value: str) -> float:
    if not re.fullmatch("[0-9]{1,10}", value):
        raise UnusableError("it is no number of milliseconds", "set one, such as 900000, in host.json")
    return int(value) / 1000
