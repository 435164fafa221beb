"""Indexed functions as the host takes them: name rules, the trigger's attributes, what is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from localrunner.host import keys, ncrontab
from localrunner.host.hostjson import time_span_s
from localrunner.host.settings import AppSettings, ResolveError, expand, resolve_secure
from localrunner.host.wire import FunctionMetadata, RetryOptions

FUNCTION_NAME: Final = re.compile(r"[a-z][a-z0-9_\-]{0,127}", re.IGNORECASE | re.ASCII)
KEY_TYPES: Final = ("string", "binary", "int", "long")
SASL_MECHANISMS: Final = {
    "gssapi": "GSSAPI",
    "plain": "PLAIN",
    "scramsha256": "SCRAM-SHA-256",
    "scramsha512": "SCRAM-SHA-512",
    "oauthbearer": "OAUTHBEARER",
}
PROTOCOLS: Final = {
    "plaintext": "plaintext",
    "ssl": "ssl",
    "saslplaintext": "sasl_plaintext",
    "saslssl": "sasl_ssl",
}
NOT_EMULATED: Final = ("eventHubConnectionString", "avroSchema", "keyAvroSchema", "schemaRegistryUrl")


class TriggerError(Exception):
    """This function cannot run; the others can."""


@dataclass(frozen=True, slots=True)
class KafkaTrigger:
    """One consumer's configuration; `client` holds librdkafka properties, secrets among them.

    `many` is cardinality: a function gets a list of records, or one record an invocation.
    """

    parameter: str
    topic: str
    data_type: str
    key_type: str
    client: Mapping[str, str]
    many: bool = True

    def __repr__(self) -> str:
        return f"KafkaTrigger(topic={self.topic!r}, group={self.client.get('group.id')!r})"


@dataclass(frozen=True, slots=True)
class TimerTrigger:
    """A schedule, and whether its status is kept across restarts."""

    parameter: str
    schedule: ncrontab.Schedule
    run_on_startup: bool
    use_monitor: bool


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    """Which requests lead to the function; `methods` None is all of them, `level` one of `keys.LEVELS`."""

    parameter: str
    template: str
    methods: tuple[str, ...] | None
    level: str


@dataclass(frozen=True, slots=True)
class HostedFunction:
    """A function that the host will run."""

    name: str
    function_id: str
    trigger: KafkaTrigger | TimerTrigger | HttpTrigger
    retry: RetryOptions | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of the indexed functions: `functions` run, `faults` say why others do not."""

    functions: tuple[HostedFunction, ...]
    faults: tuple[str, ...]
    disabled: tuple[str, ...]


def accept(indexed: Iterable[FunctionMetadata], settings: AppSettings) -> Accepted:
    """Each function that the host can run, resolved; one that it cannot never stops the others.

    Source: azure-functions-host, Utility.cs (names); function names match in any case.
    """
    functions: list[HostedFunction] = []
    faults: list[str] = []
    disabled: list[str] = []
    seen: dict[str, str] = {}
    for function in indexed:
        name = function.name
        if FUNCTION_NAME.fullmatch(name) is None or name.lower() == "host":
            faults.append(f"{name}: is not a function name; use a letter, then up to 127 of a-z 0-9 _ -")
            continue
        if name.lower() in seen:
            faults.append(f"{name}: collides with {seen[name.lower()]}; names match in any case, rename one")
            continue
        seen[name.lower()] = name
        if _is_disabled(name, settings):
            disabled.append(name)
            continue
        try:
            trigger = _trigger_of(function, settings)
            # Source: retry policies count for triggers that support them, of which HTTP is none.
            retry = None if isinstance(trigger, HttpTrigger) else _retry_of(function)
            functions.append(HostedFunction(name, function.function_id, trigger, retry))
        except (TriggerError, ResolveError) as fault:
            faults.append(f"{name}: {fault}")
    return Accepted(tuple(functions), tuple(faults), tuple(disabled))


def _is_disabled(name: str, settings: AppSettings) -> bool:
    # Linux has no dots in the names of environment variables; the host knows both spellings.
    return settings.is_on(f"AzureWebJobs.{name}.Disabled") or settings.is_on(f"AzureWebJobs_{name}_Disabled")


def _retry_of(function: FunctionMetadata) -> RetryOptions | None:
    retry = function.retry_options
    if retry is not None and retry.minimum_interval_s > retry.maximum_interval_s:
        raise TriggerError("retry: the minimum interval is greater than the maximum; swap them")
    return retry


def _trigger_of(function: FunctionMetadata, settings: AppSettings) -> KafkaTrigger | TimerTrigger | HttpTrigger:
    triggers: list[tuple[str, dict[str, Any]]] = []
    others: list[tuple[str, dict[str, Any]]] = []
    for raw in function.raw_bindings:
        binding = {name.lower(): value for name, value in json.loads(raw).items()}
        kind = str(binding.get("type", "")).lower()
        (triggers if kind.endswith("trigger") else others).append((kind, binding))
    kind, trigger = triggers[0]
    for other, binding in others:
        if not (kind == "httptrigger" and other == "http" and binding.get("name") == "$return"):
            raise TriggerError(f"binding '{binding.get('type')}': is not emulated; use the trigger alone")
    match kind:
        case "kafkatrigger":
            return _kafka(trigger, settings)
        case "timertrigger":
            return _timer(trigger, settings)
        case "httptrigger":
            return _http(trigger, function.name)
        case _:
            raise TriggerError(
                f"'{trigger['type']}': is not emulated; this host runs Kafka, timer and HTTP triggers"
            )


def _http(binding: Mapping[str, Any], name: str) -> HttpTrigger:
    level = str(binding.get("authlevel") or keys.FUNCTION).lower()
    if level not in keys.LEVELS:
        raise TriggerError(f"authLevel '{level}': is none of {', '.join(keys.LEVELS)}")
    methods = binding.get("methods")
    return HttpTrigger(
        parameter=str(binding["name"]),
        template=str(binding.get("route") or name),
        methods=None if methods is None else tuple(str(method).upper() for method in methods),
        level=level,
    )


def _timer(binding: Mapping[str, Any], settings: AppSettings) -> TimerTrigger:
    text = expand(str(binding.get("schedule", "")), settings)
    try:
        schedule: ncrontab.Schedule = ncrontab.parse(text)
    except ValueError as fault:
        try:
            schedule = ncrontab.Constant(time_span_s(text))
        except ValueError:
            raise TriggerError(f"schedule '{text}': {fault}; write six NCRONTAB fields") from fault
    return TimerTrigger(
        parameter=str(binding["name"]),
        schedule=schedule,
        run_on_startup=_flag(binding, "runOnStartup", default=False),
        use_monitor=_flag(binding, "useMonitor", default=True) and not schedule.more_often_than_a_minute(),
    )


def _flag(binding: Mapping[str, Any], name: str, default: bool) -> bool:
    value = binding.get(name.lower(), default)
    return value if isinstance(value, bool) else str(value).lower() == "true"


def _kafka(binding: Mapping[str, Any], settings: AppSettings) -> KafkaTrigger:
    for name in NOT_EMULATED:
        if binding.get(name.lower()):
            raise TriggerError(f"{name}: is not emulated; decode in the function")
    cardinality = str(binding.get("cardinality", "one")).lower()
    if cardinality not in ("one", "many"):
        raise TriggerError(f"cardinality '{cardinality}': is neither 'one' nor 'many'")
    data_type = str(binding.get("datatype", "")).lower()
    if data_type not in ("binary", "string"):
        raise TriggerError(f"dataType '{data_type}': is not emulated; use 'binary' or 'string'")
    key_type = str(binding.get("keydatatype", "string")).lower()
    if key_type not in KEY_TYPES:
        raise TriggerError(f"keyDataType '{key_type}': is none of {', '.join(KEY_TYPES)}")
    return KafkaTrigger(
        parameter=str(binding["name"]),
        topic=_required(binding, "topic", settings),
        data_type=data_type,
        key_type=key_type,
        client=_client(binding, settings),
        many=cardinality == "many",
    )


def _required(binding: Mapping[str, Any], name: str, settings: AppSettings) -> str:
    value = resolve_secure(binding.get(name.lower()), settings)
    if not value:
        raise TriggerError(f"{name}: is empty; the trigger needs it")
    return value


def _client(binding: Mapping[str, Any], settings: AppSettings) -> dict[str, str]:
    """The properties that come from the trigger's attributes.

    Source: Kafka extension 4.3.2, KafkaTriggerAttributeBindingProvider.cs: credentials count only where
    authenticationMode or protocol is set.
    """
    client = {
        "bootstrap.servers": _required(binding, "brokerList", settings),
        "group.id": _required(binding, "consumerGroup", settings),
    }
    mode = _choice(binding, "authenticationMode", SASL_MECHANISMS)
    protocol = _choice(binding, "protocol", PROTOCOLS)
    if mode is None and protocol is None:
        return client

    def put(prop: str, attribute: str) -> None:
        value = resolve_secure(binding.get(attribute.lower()), settings)
        if value:
            client[prop] = value

    put("sasl.username", "username")
    put("sasl.password", "password")
    put("ssl.key.password", "sslKeyPassword")
    put("ssl.key.location", "sslKeyLocation")
    put("ssl.certificate.location", "sslCertificateLocation")
    put("ssl.ca.location", "sslCaLocation")
    _put_pem(client, binding, settings)
    if mode is not None:
        client["sasl.mechanism"] = mode
    if protocol is not None:
        client["security.protocol"] = protocol
    if mode == "OAUTHBEARER":
        client["sasl.oauthbearer.method"] = str(binding.get("oauthbearermethod", "default")).lower()
        put("sasl.oauthbearer.client.id", "oAuthBearerClientId")
        put("sasl.oauthbearer.client.secret", "oAuthBearerClientSecret")
        put("sasl.oauthbearer.scope", "oAuthBearerScope")
        put("sasl.oauthbearer.token.endpoint.url", "oAuthBearerTokenEndpointUrl")
        put("sasl.oauthbearer.extensions", "oAuthBearerExtensions")
    return client


def _put_pem(client: dict[str, str], binding: Mapping[str, Any], settings: AppSettings) -> None:
    both = resolve_secure(binding.get("sslcertificateandkeypem"), settings)
    for prop, attribute, section in (
        ("ssl.ca.pem", "sslCaPem", "CERTIFICATE"),
        ("ssl.certificate.pem", "sslCertificatePem", "CERTIFICATE"),
        ("ssl.key.pem", "sslKeyPem", "PRIVATE KEY"),
    ):
        text = resolve_secure(binding.get(attribute.lower()), settings)
        if both and prop != "ssl.ca.pem":
            text = both
        match = re.search(f"-----BEGIN {section}-----.*?-----END {section}-----", text or "", re.DOTALL)
        if match is not None:
            client[prop] = match.group().replace("\\n", "\n")


def _choice(binding: Mapping[str, Any], name: str, choices: Mapping[str, str]) -> str | None:
    value = str(binding.get(name.lower(), "notset")).lower()
    if value in ("notset", "-1"):
        return None
    if value not in choices:
        raise TriggerError(f"{name} '{value}': is none of {', '.join(choices)}")
    return choices[value]
