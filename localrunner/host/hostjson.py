"""host.json, with its overrides, as the options that the host obeys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from localrunner.host.settings import AppSettings, SettingsError

DAY_S: Final = 86_400.0
DEFAULT_FUNCTION_TIMEOUT_S: Final = 1_800.0
MIN_FUNCTION_TIMEOUT_S: Final = 1.0
DEFAULT_ROUTE_PREFIX: Final = "api"
LEASE_MIN_S: Final = 15
LEASE_MAX_S: Final = 60
LOG_LEVELS: Final = ("trace", "debug", "information", "warning", "error", "critical", "none")
_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(\.\d{1,7})?)?")


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """`extensions.kafka` with the extension's defaults; None leaves librdkafka's default.

    Source: Kafka extension 4.3.2, KafkaOptions.cs.
    """

    max_batch_size: int = 64
    subscriber_interval_in_seconds: int = 1
    executor_channel_capacity: int = 1
    channel_full_retry_interval_in_ms: int = 50
    subscriber_idle_backoff_ms: int = 50
    commit_on_failure: bool = True
    max_retries: int = 5
    auto_commit_interval_ms: int = 200
    auto_offset_reset: str = "earliest"
    session_timeout_ms: int | None = 10_000
    metadata_max_age_ms: int | None = 180_000
    socket_keepalive_enable: bool | None = True
    libkafka_debug: str | None = None
    max_poll_interval_ms: int | None = None
    queued_min_messages: int | None = None
    queued_max_messages_kbytes: int | None = None
    max_partition_fetch_bytes: int | None = None
    fetch_max_bytes: int | None = None
    reconnect_backoff_ms: int | None = None
    reconnect_backoff_max_ms: int | None = None
    statistics_interval_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SingletonOptions:
    """`singleton`: how long a host that is gone keeps a timer from the others, and how often those look.

    Source: azure-webjobs-sdk, SingletonOptions.cs; WebJobsServiceCollectionExtensions.cs: 15 s in Development.
    """

    listener_lock_period_s: int = LEASE_MAX_S
    listener_lock_recovery_polling_interval_s: float = 60.0


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What host.json and its overrides say; `function_timeout_s` None is unbounded.

    `log_levels` maps a category's prefix in lower case (`default` for all) to one of LOG_LEVELS. `unknown`
    names what the host takes no notice of.
    """

    kafka: KafkaOptions
    singleton: SingletonOptions
    route_prefix: str
    function_timeout_s: float | None
    log_levels: Mapping[str, str]
    unknown: tuple[str, ...]


def load(file: Path, settings: AppSettings) -> HostOptions:
    """The options of `file`, or the defaults where there is none, under the overrides in `settings`.

    Raises:
        SettingsError: the file or a value in it cannot be used.
    """
    flat = _flat_file(file)
    flat.update(settings.host_overrides())
    faults: list[str] = []

    def read(path: str, parse: Callable[[str], Any], default: Any) -> Any:
        text = flat.pop(path.lower(), None)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as fault:
            faults.append(f"host.json {path.replace(':', '.')}: '{text}' {fault}")
            return default

    version = flat.pop("version", "2.0")
    if version != "2.0":
        faults.append(f"host.json version: '{version}' is not '2.0'; the host knows no other")
    kafka = {
        option.name: read(f"extensions:kafka:{_camel(option.name)}", _kafka_parsers[option.name], option.default)
        for option in fields(KafkaOptions)
    }
    timeout_s = read("functionTimeout", _function_timeout, DEFAULT_FUNCTION_TIMEOUT_S)
    development = (settings.get("AZURE_FUNCTIONS_ENVIRONMENT") or "").lower() == "development"
    singleton = SingletonOptions(
        read("singleton:listenerLockPeriod", _lease, LEASE_MIN_S if development else LEASE_MAX_S),
        read("singleton:listenerLockRecoveryPollingInterval", _lease_poll, float(LEASE_MAX_S)),
    )
    levels = {
        path.removeprefix("logging:loglevel:"): read(path, _log_level, "information")
        for path in [path for path in flat if path.startswith("logging:loglevel:")]
    }
    if faults:
        raise SettingsError(*faults)
    unknown = tuple(path.replace(":", ".") for path in flat if path.startswith("extensions:kafka:"))
    prefix = read("extensions:http:routePrefix", str, DEFAULT_ROUTE_PREFIX).strip("/")
    return HostOptions(KafkaOptions(**kafka), singleton, prefix, timeout_s, levels, unknown)


def time_span_s(text: str) -> float:
    """Seconds of a .NET TimeSpan: `[d.]hh:mm[:ss[.fffffff]]`, or a whole number of days.

    Raises: ValueError: `text` is neither.
    """
    if re.fullmatch(r"-?\d+", text):
        return int(text) * DAY_S
    match = _TIME_SPAN.fullmatch(text)
    if match is None:
        raise ValueError("is not a time span; write hh:mm:ss")
    days, hours, minutes, seconds, fraction = match.groups()
    if int(hours) > 23 or int(minutes) > 59 or int(seconds or 0) > 59:
        raise ValueError("is not a time span: more than 23 hours, 59 minutes or 59 seconds")
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0)
    return int(days or 0) * DAY_S + whole + float(fraction or 0)


def _flat_file(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as fault:
        raise SettingsError(f"{file}: cannot be read as JSON: {fault}; correct it") from fault
    if not isinstance(document, dict):
        raise SettingsError(f"{file}: is not a JSON object; correct it")
    if document and "version" not in document:
        raise SettingsError(f'{file}: has no \'version\'; add "version": "2.0"')
    flat: dict[str, str] = {}
    _flatten(document, "", flat)
    return flat


def _flatten(node: Any, path: str, flat: dict[str, str]) -> None:
    if isinstance(node, dict):
        for name, value in node.items():
            _flatten(value, f"{path}:{name}" if path else name, flat)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _flatten(value, f"{path}:{index}", flat)
    elif node is not None:
        flat[path.lower()] = str(node)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _integer(at_least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if number < at_least:
            raise ValueError(f"is below {at_least}")
        return number

    return parse


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text.lower() == "true"


def _offset_reset(text: str) -> str:
    if text.lower() not in ("latest", "earliest", "error"):
        raise ValueError("is none of Earliest, Latest")
    return "latest" if text.lower() == "latest" else "earliest"


def _log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"is none of {', '.join(LOG_LEVELS)}")
    return text.lower()


def _function_timeout(text: str) -> float | None:
    timeout_s = time_span_s(text)
    if timeout_s == -DAY_S:
        return None
    if timeout_s < MIN_FUNCTION_TIMEOUT_S:
        raise ValueError("is below 00:00:01")
    return timeout_s


def _lease(text: str) -> int:
    period_s = time_span_s(text)
    if not LEASE_MIN_S <= period_s <= LEASE_MAX_S:
        raise ValueError("is not from 00:00:15 to 00:01:00")
    return int(period_s)


def _lease_poll(text: str) -> float:
    interval_s = time_span_s(text)
    if interval_s < LEASE_MIN_S:
        raise ValueError("is below 00:00:15")
    return interval_s


_INT_MIN: Final = -(2**31)
_kafka_parsers: Final[Mapping[str, Callable[[str], Any]]] = {
    option.name: _integer(_INT_MIN) for option in fields(KafkaOptions)
} | {
    "max_batch_size": _integer(1),
    "subscriber_interval_in_seconds": _integer(1),
    "executor_channel_capacity": _integer(1),
    "channel_full_retry_interval_in_ms": _integer(1),
    "subscriber_idle_backoff_ms": _integer(0),
    "max_retries": _integer(-1),
    "commit_on_failure": _boolean,
    "socket_keepalive_enable": _boolean,
    "auto_offset_reset": _offset_reset,
    "libkafka_debug": str,
}
