"""Routes of HTTP triggers: templates as ASP.NET has them, and which function a path leads to.

Source: azure-webjobs-sdk-extensions, WebJobsRouteBuilder.cs; azure-functions-host,
WebScriptHostHttpRoutesManager.cs and FunctionMetadataManager.cs: the first route that matches counts, in the order
of the functions' names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

# Constraints of ASP.NET that are emulated; another one is an error of its function.
CONSTRAINTS: Final[Mapping[str, str]] = {
    "int": r"[+-]?\d{1,10}",
    "long": r"[+-]?\d{1,19}",
    "bool": r"(?i:true|false)",
    "guid": r"\{?[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?",
    "alpha": r"[a-zA-Z]*",
}
_PARAMETER: Final = re.compile(r"\{(?P<rest>\*{0,2})(?P<name>\w+)(?::(?P<constraint>[^}?]+))?(?P<optional>\??)\}")


class RouteError(ValueError):
    """A template that this host cannot follow."""


@dataclass(frozen=True, slots=True)
class Route:
    """One function's paths and methods; `methods` None is all of them."""

    function: str
    pattern: re.Pattern[str]
    methods: frozenset[str] | None


def route_of(function: str, prefix: str, template: str, methods: Iterable[str] | None) -> Route:
    """The route of a function.

    Raises:
        RouteError: the template, or a constraint in it, is not emulated.
    """
    whole = f"{prefix}/{template}" if prefix else template
    pattern = "".join(_segment(part) for part in whole.strip("/").split("/"))
    named = None if methods is None else frozenset(method.upper() for method in methods)
    return Route(function, re.compile(pattern, re.IGNORECASE), named)


def find(routes: Iterable[Route], method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The first route that takes the method and the path, with its parameters; None where there is none.

    A method that a route does not take is no match, so the answer is 404 and not 405, as in Azure.
    """
    for route in routes:
        if route.methods is not None and method not in route.methods:
            continue
        found = route.pattern.fullmatch(path.rstrip("/"))
        if found is not None:
            parameters = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
            return route, parameters
    return None


def _segment(text: str) -> str:
    """The pattern of one part of a template, with the slash before it."""
    parameter = _PARAMETER.fullmatch(text)
    if parameter is None:
        if "{" in text or "}" in text:
            raise RouteError(f"route part '{text}': is not emulated; use one parameter for a whole part")
        return "/" + re.escape(text)
    name, constraint = parameter["name"], parameter["constraint"]
    if constraint is not None and constraint.lower() not in CONSTRAINTS:
        raise RouteError(f"route constraint '{constraint}': is not emulated; use {', '.join(CONSTRAINTS)} or none")
    if parameter["rest"]:
        return f"(?:/(?P<{name}>.*))?"
    value = CONSTRAINTS[constraint.lower()] if constraint is not None else "[^/]+"
    return f"(?:/(?P<{name}>{value}))?" if parameter["optional"] else f"/(?P<{name}>{value})"
