"""Functions with HTTP triggers: their routes, and a request as an invocation."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import Final

from localrunner.host import routing, wire
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.triggers import HostedFunction, HttpTrigger
from localrunner.host.web import Target, empty_reply

# A retry policy does not count for HTTP triggers, so nothing waits between attempts that could be ended.
NEVER: Final = threading.Event()


class HttpFunctions:
    """The HTTP functions of an app under `prefix`; they are looked through in the order of their names."""

    def __init__(self, prefix: str, dispatcher: Dispatcher) -> None:
        self._prefix = prefix
        self._dispatcher = dispatcher
        self._routes: list[routing.Route] = []
        self._targets: dict[str, Target] = {}

    def add(self, function: HostedFunction, trigger: HttpTrigger) -> None:
        """Requests on the function's route lead to it.

        Raises:
            RouteError: its route is not emulated.
        """
        route = routing.route_of(function.name, self._prefix, trigger.template, trigger.methods)
        self._routes = sorted([*self._routes, route], key=lambda one: one.function.lower())
        self._targets[function.name] = Target(
            trigger.level, function.name, lambda request: self._invoke(function, trigger, request)
        )

    def find(self, method: str, path: str) -> tuple[Target, dict[str, str]] | None:
        """The function that a request leads to, and its route's parameters; None where there is none."""
        found = routing.find(self._routes, method, path)
        return None if found is None else (self._targets[found[0].function], found[1])

    def _invoke(self, function: HostedFunction, trigger: HttpTrigger, request: wire.Http) -> wire.HttpReply:
        """Source: a function that fails is a 500 without a body."""
        input_data = wire.encode_payload({trigger.parameter: request})
        outcome = self._dispatcher.execute(function, input_data, wire.encode_payload({}), NEVER)
        if outcome.fault is not None:
            return empty_reply(HTTPStatus.INTERNAL_SERVER_ERROR)
        return outcome.reply or empty_reply(HTTPStatus.NO_CONTENT)
