"""The keys that open HTTP functions and the admin API, and what each of them opens."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localrunner.host.settings import SettingsError

ANONYMOUS: Final = "anonymous"
FUNCTION: Final = "function"
ADMIN: Final = "admin"
LEVELS: Final = (ANONYMOUS, FUNCTION, ADMIN)
KEY_BYTES: Final = 40


@dataclass(frozen=True, slots=True)
class Keys:
    """`master` opens everything, `host` every function, `functions` one function each; the latter two by name."""

    master: str
    host: Mapping[str, str]
    functions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Keys(...)"

    def as_document(self) -> dict[str, Any]:
        """The keys as a file of them has them."""
        functions = {name: dict(named) for name, named in self.functions.items()}
        return {"master": self.master, "host": dict(self.host), "functions": functions}

    def opens(self, key: str | None, level: str, function: str | None = None) -> bool:
        """Whether a request with this key may pass where `level` is asked for.

        Source: azure-functions-host, SecretManager.cs, GetAuthorizationLevelAsync.
        """
        if level == ANONYMOUS:
            return True
        if not key:
            return False
        accepted = [self.master]
        if level == FUNCTION:
            accepted += self.host.values()
            accepted += self.functions.get((function or "").lower(), {}).values()
        return any(hmac.compare_digest(known.encode(), key.encode()) for known in accepted)


def generated() -> Keys:
    """New keys; a function has none of its own."""
    return Keys(_key(), {"default": _key()})


def load(file: Path) -> Keys:
    """The keys of a file that holds what `as_document` returns.

    Raises:
        SettingsError: it cannot be read, or is no such file; no key is in the text.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise SettingsError(f"--keys {file}: cannot be read as JSON: {type(fault).__name__}; correct it") from None
    shape = SettingsError(f"--keys {file}: is not master, host and functions; write them as the docs show")
    if not isinstance(content, dict) or not content.keys() <= {"master", "host", "functions"}:
        raise shape
    master, host, functions = content.get("master"), content.get("host", {}), content.get("functions", {})
    if not isinstance(master, str) or not master or not _named(host) or not isinstance(functions, dict):
        raise shape
    if not all(_named(named) for named in functions.values()):
        raise shape
    return Keys(master, host, {name.lower(): named for name, named in functions.items()})


def _named(keys: Any) -> bool:
    return isinstance(keys, dict) and all(isinstance(key, str) and key for key in keys.values())


def _key() -> str:
    return secrets.token_urlsafe(KEY_BYTES)
