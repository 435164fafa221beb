"""Commands to try on a running stack, as `up` and `demo` print them: they fit its routes, one paste each."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from localrunner.host import hostjson
from localrunner.host.settings import AppSettings
from localrunner.plan import Plan
from localrunner.settingsfile import app_settings, in_the_way
from sinkcore.lanes import TEXT_METADATA
from sinkcore.routes import Route

ROUTES_MAX = 3
SAMPLE = {"origin": "EWR"}
# ADX's default for a table without a policy of its own.
BATCHING_S = 300
_PLAIN_NAME = re.compile(r"(?!partition\Z)[A-Za-z_]\w*", re.ASCII)


def commands(plan: Plan, settings_file: Path) -> list[str]:
    """For each of the first routes: make its table, produce a record, look for it; then what is asked of all."""
    shown = plan.settings.routes[:ROUTES_MAX]
    lines: list[str] = []
    for route in shown:
        lines += ["", f"  # topic {route.topic} to table {_table(route)}, database {route.db}"]
        lines += _of_route(plan, route)
    if more := len(plan.settings.routes) - len(shown):
        lines += ["", f"  # and {more} more route{'s' if more > 1 else ''}"]
    lines.append("")
    if plan.adx:
        lines += [f"  # a record is a row after about {_until_row_s(plan):.0f} s", batches(plan)]
    return [*lines, *sinkctl(plan, settings_file, os.environ)]


def curl(url: str, db: str, csl: str) -> str:
    """A query or a management command as one line of a shell, whatever quotes it has."""
    body = json.dumps({"db": db, "csl": csl}, ensure_ascii=False).replace("'", "\\u0027")
    return f"  curl -s {url} -H 'Content-Type: application/json' -d '{body}'"


def batches(plan: Plan) -> str:
    """What the ADX double has sealed."""
    return f"  curl -s {plan.dm}/local/batches"


def sinkctl(plan: Plan, settings_file: Path, environment: Mapping[str, str]) -> list[str]:
    """What an operator types first: each partition has a position, and every offset is accounted for.

    It is for this stack, whatever stands in the shell's `environment`.
    """
    unset = "".join(f"-u {shlex.quote(name)} " for name in in_the_way(environment, app_settings(plan.values)))
    python = f"env {unset}{_python()}" if unset else _python()
    command = f"  {python} -m sinkctl --settings {shlex.quote(_short(settings_file))}"
    return [f"{command} start", f"{command} audit"]


def _of_route(plan: Plan, route: Route) -> list[str]:
    lines, table = [], _name(_table(route))
    if plan.adx:
        columns = _columns(route)
        schema = ", ".join(f"{_name(name)}: {kind}" for name, kind in columns.items())
        management = f"{plan.engine}/v1/rest/mgmt"
        lines.append(curl(management, route.db, f".create-merge table {table} ({schema})"))
        if route.mapping is not None:
            lines.append(curl(management, route.db, _mapping(route, table, list(columns))))
    if producer := _producer(plan, route):
        lines.append(producer)
    if plan.adx:
        lines.append(curl(f"{plan.engine}/v1/rest/query", route.db, f"{table} | count"))
    return lines


def _table(route: Route) -> str:
    return route.leads_to[0]


def _columns(route: Route) -> dict[str, str]:
    """One column of the user's, as an example, and those of the metadata, in the order that text needs."""
    own = dict.fromkeys(SAMPLE, "string")
    if route.metadata is None:
        return own
    return {**TEXT_METADATA, **own} if _kind(route) == "csv" else own | {route.metadata: "dynamic"}


def _kind(route: Route) -> str:
    """The kind of mapping that goes with the route's blobs: all text goes by that of CSV.

    Source: dataexplorer-docs, kusto/management/mappings.md.
    """
    if route.stored_format == "json":
        return "json"
    return "avro" if route.stored_format in ("avro", "apacheavro") else "csv"


def _mapping(route: Route, table: str, columns: list[str]) -> str:
    where = {
        name: {"Ordinal": str(at)} if _kind(route) == "csv" else {"Path": f"$.{name}"}
        for at, name in enumerate(columns)
    }
    body = json.dumps([{"column": name, "Properties": found} for name, found in where.items()])
    kind, name = _kind(route), str(route.mapping)
    return f".create-or-alter table {table} ingestion {kind} mapping '{name}' '{body}'"


def _producer(plan: Plan, route: Route) -> str | None:
    """A record that the route takes goes into its topic; None where no line of JSON would be one."""
    if not route.lane.fields or route.asks or plan.settings.kafka.protocol != "PLAINTEXT":
        return None
    return (
        f"  echo '{json.dumps(SAMPLE)}' | {_python()} -m localrunner produce {route.topic}"
        f" --brokers {plan.brokers}"
    )


def _until_row_s(plan: Plan) -> float:
    """A window in which the host collects a batch, and the time for which the double collects blobs."""
    host = hostjson.load(plan.options.app / "host.json", AppSettings.of(plan.values))
    return host.kafka.subscriber_interval_in_seconds + BATCHING_S * plan.options.adx_time_scale + 1


def _name(name: str) -> str:
    """A table or column in KQL."""
    return name if _PLAIN_NAME.fullmatch(name) else f"['{name}']"


def _python() -> str:
    return shlex.quote(_short(Path(sys.executable)))


def _short(path: Path) -> str:
    """`path` from here, where that is the shorter way to say it."""
    return min(os.path.relpath(path), str(path), key=len)
