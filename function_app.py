"""Registers the functions: one Kafka trigger for each topic, and the sweeper. No logic of its own."""

import functools
import gc
import json
import logging
import os
import threading
import typing
from pathlib import Path

import azure.functions as func

from sinkcore.errors import ConfigError
from sinkcore.records import COLLECT_EVERY
from sinkcore.settings import Settings, read_settings
from sinkcore.telemetry import event
from sinkcore.triggers import RETRY, function_name_of, kafka_trigger_of

if typing.TYPE_CHECKING:
    from sinkcore.clients import App

# The SDKs log each request at this level; a healthy invocation logs one line.
logging.getLogger("azure").setLevel(logging.WARNING)
# For the whole worker, since most of what a batch allocates is the worker's own decoding of it.
gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])

app = func.FunctionApp()
_building = threading.Lock()


@functools.cache
def _build(settings: Settings) -> "App":
    # The SDKs are imported with the first batch or sweep, so that indexing is not held up by them.
    from sinkcore.clients import build_app

    return build_app(settings)


def _app(settings: Settings) -> "App":
    with _building:
        return _build(settings)


def _register_topic(settings: Settings, topic: str) -> None:
    # Source: the worker refuses `list[...]` here, and fails an invocation that returns anything.
    def deliver(events: typing.List[func.KafkaEvent]) -> None:  # noqa: UP006
        _app(settings).sink.deliver(topic, events)

    trigger = app.generic_trigger(arg_name="events", type="kafkaTrigger", **kafka_trigger_of(settings, topic))
    app.function_name(function_name_of(topic))(trigger(app.retry(**RETRY)(deliver)))


def _register_sweeper(settings: Settings) -> None:
    def sweeper(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host passes it by this name
        _app(settings).sweep()

    app.function_name("sweeper")(app.timer_trigger("timer", settings.sweep_schedule)(sweeper))


def _register_faults(faults: tuple[str, ...]) -> None:
    """The app takes no records and says why, again and again: what is logged at start is easily missed."""

    def settings_invalid(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host passes it by this name
        event("settings_invalid", logging.ERROR, faults=faults)

    event("settings_invalid", logging.ERROR, faults=faults)
    app.function_name("settings_invalid")(app.timer_trigger("timer", "0 * * * * *")(settings_invalid))


def _register() -> None:
    host = json.loads((Path(__file__).parent / "host.json").read_text())
    try:
        settings = read_settings(os.environ, host)
    except ConfigError as error:
        _register_faults(error.faults)
        return
    for topic in settings.topics:
        _register_topic(settings, topic)
    _register_sweeper(settings)


_register()
