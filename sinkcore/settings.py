"""App settings become one frozen Settings, or one error that names every fault with its fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sinkcore.connections import Kafka, Kusto, Storage, read_kafka, read_kusto, read_storage
from sinkcore.declared import (
    Faults,
    UnusableError,
    declared,
    distance,
    nearest,
    number,
    one_of,
    read_declared,
    required,
    shown,
    text,
)
from sinkcore.errors import ConfigError
from sinkcore.routes import TOPIC, TOPICS_MAX, Route, read_routes

NEAR_LETTERS = 3  # an unknown KAFKA_* or KUSTO_* name this close to a known one is a slip of the pen
FUNCTION_TIMEOUT_S = 1_800  # Functions' default, where host.json has none
MAX_POLL_INTERVAL_MS = 300_000  # librdkafka's default, where host.json has none
LATER = ("SCHEMA_REGISTRY_URL", "SCHEMA_REGISTRY_USERNAME", "SCHEMA_REGISTRY_PASSWORD")

_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_TABLE = re.compile(r"(?!(?i:tables)\Z)[A-Za-z][A-Za-z0-9]{2,62}")
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME_SPAN = re.compile(r"(?:(\d{1,5})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.\d{1,7})?)?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_CRON_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,2}))?", re.ASCII)


def _read_container(value: str) -> str:
    # Source: Azure's naming rules for containers; the host keeps its own under azure-webjobs-.
    if not _CONTAINER.fullmatch(value) or value.startswith("azure-webjobs-"):
        raise UnusableError(
            "Azure refuses it as a container's name, or the host uses it",
            "use 3 to 63 lower-case letters, digits and single inner hyphens, not azure-webjobs-*",
        )
    return value


def _read_table(value: str) -> str:
    if not _TABLE.fullmatch(value):
        raise UnusableError(
            "Azure refuses it as a table's name",
            "use 3 to 63 letters and digits, the first a letter, and not 'tables'",
        )
    return value


def _read_confirm(value: str) -> str:
    if value == "query":
        raise UnusableError("query is not yet supported", "remove it or set none")
    if value != "none":
        raise UnusableError("what it says is not one of query, none", "remove it or set none")
    return value


def _read_blob_access(value: str) -> str:
    how, _, who = value.partition("=")
    if value != "sas" and not (how == "managed_identity" and (who == "system" or _OBJECT_ID.fullmatch(who))):
        raise UnusableError(
            "it says neither sas nor managed_identity=...",
            "set sas, managed_identity=system or managed_identity=<object id>",
        )
    return value


def _read_topics(value: str) -> str:
    if not all(TOPIC.pattern.fullmatch(topic.strip()) for topic in value.split(",")):
        raise UnusableError(
            "not every part is a topic's name", f"write names with commas between, each {TOPIC.words}"
        )
    return value


def _read_schedule(value: str) -> str:
    parts = value.split()
    if len(parts) != len(_CRON_FIELDS):
        raise UnusableError(f"it has {len(parts)} fields", "write six: second minute hour day month day-of-week")
    for part, (subject, least, most, names) in zip(parts, _CRON_FIELDS, strict=True):
        if not all(_is_cron(item, least, most, names) for item in part.lower().split(",")):
            raise UnusableError(
                f"its {subject} cannot be read", f"use *, {least} to {most}, lists, ranges and /steps"
            )
    return " ".join(parts)


def _is_cron(item: str, least: int, most: int, names: tuple[str, ...]) -> bool:
    match = _CRON_PART.fullmatch(item)
    if match is None or (match[3] is not None and int(match[3]) == 0):
        return False
    ends = [
        least + names.index(end) if end in names else int(end) if end.isdigit() else -1
        for end in (match[1], match[2])
        if end is not None
    ]
    return all(least <= end <= most for end in ends) and ends == sorted(ends)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the app is told from outside, checked, with its defaults filled in."""

    kafka: Kafka
    kusto: Kusto
    storage: Storage
    routes: tuple[Route, ...] = required(
        "SINK_TOPICS_MAPPING", "Routes, as [routes.md](routes.md) has them", allowed="JSON list"
    )
    topics: tuple[str, ...] = text(
        "SINK_TOPICS",
        "Topics that a `*` route takes: a trigger needs each by name",
        allowed="names, with commas between",
        read=_read_topics,
    )
    staging_container: str = text(
        "SINK_STAGING_CONTAINER",
        "Where staged blobs lie",
        default="sink-staging",
        allowed="container name",
        read=_read_container,
    )
    dead_letters_container: str = text(
        "SINK_DEAD_LETTERS_CONTAINER",
        "Where dead letters lie; another one than the staged blobs'",
        default="sink-dead-letters",
        allowed="container name",
        read=_read_container,
    )
    ledger_table: str = text(
        "SINK_LEDGER_TABLE", "Where the ledger lies", default="sinkledger", allowed="table name", read=_read_table
    )
    delivery: str = one_of(
        "SINK_DELIVERY",
        ("effectively_once", "exactly_once"),
        "`exactly_once` adds an `ingest-by` tag to each blob",
        default="effectively_once",
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
        default="dead_letter",
    )
    record_max_bytes: int = number(
        "SINK_RECORD_MAX_BYTES", 33_554_432, 1, 268_435_456, "Bytes of a record; a larger one is a dead letter"
    )
    blob_max_bytes: int = number(
        "SINK_BLOB_MAX_BYTES", 268_435_456, 1_024, 1_073_741_824, "Uncompressed bytes in one blob"
    )
    invocation_max_s: int = number(
        "SINK_INVOCATION_MAX_S", 240, 1, 3_600, "Seconds that the sink gives itself for one batch"
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
        default="*/30 * * * * *",
        allowed="NCRONTAB, six fields",
        read=_read_schedule,
    )
    confirm: str = text(
        "SINK_CONFIRM", "How `landed` is known", default="none", allowed="`none`", read=_read_confirm
    )
    pending_max: int = number(
        "SINK_PENDING_MAX", 1_000, 1, 100_000, "Segments waiting for ADX before Kafka holds the rest"
    )
    staged_blob_access: str = text(
        "SINK_STAGED_BLOB_ACCESS",
        "How ADX may read a staged blob",
        default="sas",
        allowed="`sas`, `managed_identity=system`, `managed_identity=<object id>`",
        read=_read_blob_access,
    )

    def routes_of(self, topic: str) -> tuple[Route, ...]:
        """The routes of `topic`, in the order in which they are tried."""
        return tuple(route for route in self.routes if route.topic == topic)


KNOWN = tuple(setting.name for cls in (Settings, Kafka, Kusto) for setting in declared(cls).values())


def read_settings(values: Mapping[str, str], host: Mapping[str, Any] | None = None) -> Settings:
    """The Settings that `values` (the environment, or app settings) and host.json, parsed as `host`, make.

    Without `host` nobody hosts the app, as in a tool: then host.json's own times are not compared.

    Raises:
        ConfigError: with every fault; nothing must be started.
    """
    faults = Faults()
    found = read_declared(Settings, values, faults)
    starred = tuple(dict.fromkeys(topic.strip() for topic in found.get("topics", "").split(",") if topic))
    found["routes"] = read_routes(found["routes"], starred, faults) if "routes" in found else ()
    found["topics"] = tuple(dict.fromkeys(route.topic for route in found["routes"]))
    settings = Settings(
        kafka=read_kafka(values, faults),
        kusto=read_kusto(values, faults),
        storage=read_storage(values, faults),
        **found,
    )
    _check_names(values, faults)
    _check_lookups(settings, values, faults)
    _check_sizes(settings, faults)
    _check_times(settings, values, host, faults)
    if faults.sentences:
        raise ConfigError(tuple(faults.sentences))
    return settings


def _check_names(values: Mapping[str, str], faults: Faults) -> None:
    """No name that is ours by its first letters is unknown, and none is for a later version."""
    for name in values:
        if name in LATER and values[name]:
            faults.add(name, "a schema registry is not yet supported", "remove it")
        family = name.upper().partition("_")[0]
        if name in KNOWN or family not in ("SINK", "KAFKA", "KUSTO") or "_" not in name:
            continue
        like = nearest(name, KNOWN)
        if family == "SINK" or distance(name.upper(), like) <= NEAR_LETTERS:
            faults.add(
                shown(name)[1:-1], "it is no setting of this app", f"rename or remove it ({like} is the nearest)"
            )


def _check_lookups(settings: Settings, values: Mapping[str, str], faults: Faults) -> None:
    """Nothing that the trigger is told is also the name of a setting or environment variable.

    Source: the Kafka extension's ResolveSecureSetting puts that one's value in its place, in any case of letters.
    """
    names = {name.upper() for name in (*values, *KNOWN)}
    if len(settings.topics) > TOPICS_MAX:
        faults.add(
            "SINK_TOPICS_MAPPING",
            f"it has {len(settings.topics)} topics",
            f"keep it to {TOPICS_MAX}, and give the rest to another app",
        )
    for topic in settings.topics:
        for what, name in (("topic", topic), ("consumer group", settings.kafka.group_of(topic))):
            if name.upper() in names:
                faults.add(
                    "SINK_TOPICS_MAPPING",
                    f"the {what} {shown(name)} is also the name of a setting or environment variable, whose value"
                    " Functions would put in its place",
                    "rename or remove that one",
                )
    for field_name, setting in declared(Kafka).items():
        value = getattr(settings.kafka, field_name)
        if field_name != "consumer_group" and isinstance(value, str) and value.upper() in names:
            faults.add(
                setting.name,
                "what it says is also the name of a setting or environment variable, whose value Functions would"
                " put in its place",
                "rename or remove that one",
            )


def _check_sizes(settings: Settings, faults: Faults) -> None:
    if settings.record_max_bytes > settings.blob_max_bytes:
        faults.add(
            "SINK_RECORD_MAX_BYTES",
            f"{settings.record_max_bytes} is more than SINK_BLOB_MAX_BYTES, {settings.blob_max_bytes}",
            "lower it",
        )
    if settings.staging_container == settings.dead_letters_container:
        faults.add(
            "SINK_DEAD_LETTERS_CONTAINER",
            "it is SINK_STAGING_CONTAINER too, whose blobs are swept",
            "give dead letters a container of their own",
        )


def _check_times(
    settings: Settings, values: Mapping[str, str], host: Mapping[str, Any] | None, faults: Faults
) -> None:
    """`SINK_INVOCATION_MAX_S` < `functionTimeout` < `maxPollIntervalMs`, or there are faults."""
    timeout = _host_value(("functionTimeout",), values, host, "00:30:00")
    poll = _host_value(("extensions", "kafka", "maxPollIntervalMs"), values, host, MAX_POLL_INTERVAL_MS)
    timeout_s = None if timeout is None else _time_span_s(timeout)
    poll_s = int(str(poll)) / 1000 if re.fullmatch(r"[0-9]{1,10}", str(poll), re.ASCII) else None
    if timeout is not None and timeout_s is None:
        faults.add("functionTimeout", "it is unbounded or no time", "set hh:mm:ss in host.json, such as 00:10:00")
    if poll is not None and poll_s is None:
        faults.add("maxPollIntervalMs", "it is no number of milliseconds", "set one in host.json, such as 900000")
    if timeout_s is not None and settings.invocation_max_s >= timeout_s:
        faults.add(
            "SINK_INVOCATION_MAX_S",
            f"{settings.invocation_max_s} s is not below functionTimeout, {timeout_s} s",
            "lower it, or raise that in host.json",
        )
    if timeout_s is not None and poll_s is not None and timeout_s >= poll_s:
        faults.add(
            "functionTimeout",
            f"{timeout_s} s is not below maxPollIntervalMs, {poll_s:g} s",
            "lower it, or raise extensions.kafka.maxPollIntervalMs, in host.json",
        )


def _host_value(
    path: tuple[str, ...], values: Mapping[str, str], host: Mapping[str, Any] | None, default: object
) -> object:
    """What the host goes by: an `AzureFunctionsJobHost__` setting, else host.json, else its default.

    None where `host` is None and nothing overrides it. Source: Functions reads both in any case of letters.
    """
    wanted = "__".join(("AzureFunctionsJobHost", *path)).upper()
    for name, value in values.items():
        if name.replace(":", "__").upper() == wanted:
            return value.strip()
    if host is None:
        return None
    found: Any = host
    for key in path:
        if not isinstance(found, Mapping):
            return default
        found = next((value for name, value in found.items() if name.lower() == key.lower()), None)
    return default if found is None else found


def _time_span_s(value: object) -> int | None:
    """Seconds of a .NET TimeSpan `[d.]hh:mm[:ss]`; None for `-1`, unbounded, and for what is none."""
    match = _TIME_SPAN.fullmatch(str(value))
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
