"""The app settings that a stack runs with, as a file that `sinkctl` and `func` read; and private files at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

# How names begin that the app or its host reads; everything else in an environment is nobody's business.
APP_NAMES = ("SINK", "KAFKA_", "KUSTO_", "SCHEMA_REGISTRY_", "AZUREWEBJOBS", "AZUREFUNCTIONSJOBHOST", "FUNCTIONS_")
SETTINGS_FILE = "settings.json"


def app_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Those of `values` that are the app's or its host's."""
    return {name: value for name, value in values.items() if name.upper().startswith(APP_NAMES)}


def write_settings(file: Path, values: Mapping[str, str]) -> None:
    """`file` is a Functions `local.settings.json` with the app settings among `values`."""
    document = {"IsEncrypted": False, "Values": dict(sorted(app_settings(values).items()))}
    write_private(file, json.dumps(document, indent=2) + "\n")


def write_private(file: Path, text: str) -> None:
    """`file` holds `text` for nobody but its owner, since that may be a key; nobody ever reads half of it."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(text)
    unfinished.replace(file)


def in_the_way(environment: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """Names of app settings in `environment` that say something else than `values`, and would win over a file."""
    return sorted(name for name, value in app_settings(environment).items() if values.get(name) != value)
