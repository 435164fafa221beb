"""App settings as the host sees them: where they come from, who wins, and how names in triggers resolve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROCESS_COUNT = "FUNCTIONS_WORKER_PROCESS_COUNT"
HOST_OVERRIDE_PREFIX = "azurefunctionsjobhost:"


class SettingsError(Exception):
    """The host cannot start as it is set; `faults` holds one sentence for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class AppSettings:
    """The environment that the app gets; names are looked up in any case, `__` and `:` being the same.

    Source: .NET configuration keys are case-insensitive, and its provider of environment variables reads
    `__` as `:`.
    """

    environment: Mapping[str, str]
    _by_key: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> AppSettings:
        """Settings that are exactly `environment`."""
        return cls(dict(environment), {_key(name): value for name, value in environment.items()})

    def get(self, name: str) -> str | None:
        """The value of `name`; None where it is not set."""
        return self._by_key.get(_key(name))

    def is_on(self, name: str) -> bool:
        """Whether `name` is set to `1` or `true`, in any case.

        Source: azure-webjobs-sdk, IConfigurationExtensions.IsSettingEnabled.
        """
        return (self.get(name) or "").lower() in ("1", "true")

    def host_overrides(self) -> dict[str, str]:
        """Values for host.json by path, such as `extensions:kafka:maxbatchsize`.

        Source: `AzureFunctionsJobHost__a__b=value` overrides host.json's `a.b`.
        """
        return {
            key.removeprefix(HOST_OVERRIDE_PREFIX): value
            for key, value in self._by_key.items()
            if key.startswith(HOST_OVERRIDE_PREFIX)
        }


def load(file: Path, required: bool, environment: Mapping[str, str], sets: list[str]) -> AppSettings:
    """`sets` win over `environment`, and that over the `Values` of `file`.

    Raises:
        SettingsError: the file cannot be used, one of `sets` is not NAME=VALUE, or a setting is not emulated.
    """
    values: dict[str, str] = {}
    if required or file.exists():
        values = _values_of(file)
    faults = [f"--set {item}: no '='; write NAME=VALUE" for item in sets if "=" not in item.lstrip("=")]
    if faults:
        raise SettingsError(*faults)
    given = dict(item.split("=", 1) for item in sets)
    merged = dict(values)
    for layer in (environment, given):
        for name, value in layer.items():
            _put(merged, name, value)
    settings = AppSettings.of(merged)
    if settings.get(PROCESS_COUNT) not in (None, "", "1"):
        raise SettingsError(f"{PROCESS_COUNT}: more than one worker process is not emulated; remove it")
    return settings


def _put(merged: dict[str, str], name: str, value: str) -> None:
    # A name of another layer in another case is the same setting: the later layer replaces it.
    for known in [known for known in merged if known != name and _key(known) == _key(name)]:
        del merged[known]
    merged[name] = value


def _values_of(file: Path) -> dict[str, str]:
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        raise SettingsError(f"{file}: cannot be read: {fault.strerror}; give --settings a file") from fault
    except ValueError as fault:
        raise SettingsError(f"{file}: is not JSON: {fault}; correct it") from fault
    values = document.get("Values", {}) if isinstance(document, dict) else None
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: has no object 'Values'; write settings as local.settings.json has them")
    if document.get("IsEncrypted") in (True, "true"):
        raise SettingsError(f"{file}: is encrypted; decrypt it with `func settings decrypt`")
    faults = [
        f"{file}: {name}: is not text; quote it" for name, value in values.items() if not isinstance(value, str)
    ]
    if faults:
        raise SettingsError(*faults)
    return values


class ResolveError(Exception):
    """A `%NAME%` in a trigger has no value."""


def expand(text: str, settings: AppSettings) -> str:
    """`text` with each `%NAME%` replaced by the setting of that name.

    Raises:
        ResolveError: a name is not set, or a `%` has no partner.

    Source: azure-webjobs-sdk, NameResolverExtensions.ResolveWholeString.
    """
    parts = text.split("%")
    if len(parts) % 2 == 0:
        raise ResolveError(f"'{text}': the '%' at position {text.rindex('%')} has no closing '%'")
    for index in range(1, len(parts), 2):
        value = settings.get(parts[index])
        if value is None:
            raise ResolveError(f"'%{parts[index]}%' does not resolve to a value; set {parts[index]}")
        parts[index] = value
    return "".join(parts)


def resolve_secure(text: str | None, settings: AppSettings) -> str | None:
    """`text` expanded and then, if the result is itself the name of a setting, replaced by that setting.

    A topic called `home` becomes the value of HOME: this is what Azure does, and a reason to refuse such names.

    Source: Kafka extension 4.3.2, ConfigurationExtensions.ResolveSecureSetting; azure-webjobs-sdk,
    GetConnectionStringOrSetting (the section `ConnectionStrings` comes first).
    """
    if text is None or not text.strip():
        return text
    resolved = expand(text, settings)
    value = settings.get(f"ConnectionStrings:{resolved}")
    if value is None:
        value = settings.get(resolved)
    return value or resolved


def _key(name: str) -> str:
    return name.replace("__", ":").lower()
