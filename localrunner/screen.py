"""What `up` prints once the stack answers: where everything is, and what one could type."""

from __future__ import annotations

import os

from localrunner import totry
from localrunner.azurite import SERVICES
from localrunner.plan import Plan
from localrunner.stack import Stack


def screen(stack: Stack, kafka_note: str = "") -> str:
    """Addresses and commands of `stack`; `kafka_note` stands behind Kafka's."""
    plan, addresses = stack.plan, stack.addresses
    lines = [
        f"  kafka    {addresses['kafka']}{kafka_note}",
        f"  ADX      {addresses['engine']} (queries, commands), {addresses['dm']} (ingestion)",
    ]
    if plan.schema_registry is not None:
        lines.append(f"  schemas  {plan.schema_registry}")
    if plan.azurite:
        services = ", ".join(f"http://127.0.0.1:{plan.ports[name]} ({name})" for name in SERVICES)
        lines.append(f"  storage  {services}")
    lines += [f"  logs     {stack.directory / 'logs'}", f"  settings {stack.settings_file}"]
    return "\n".join([*lines, "", "Some commands to try:", *totry.commands(plan, stack.settings_file)])


def settings_origin(plan: Plan) -> str:
    """From where the app settings are, as a sentence."""
    filled = "what it does not say is filled in" if plan.settings_file else "what they do not say is filled in"
    if plan.settings_file is None:
        return f"settings: --set and the environment, no file; {filled}"
    return f"settings: {os.path.relpath(plan.settings_file)}, under --set and the environment; {filled}"
