"""`python -m localrunner host`: runs an app's functions until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

from localrunner.host import hostjson, keys, settings, workers
from localrunner.host.host import Host, Outcome
from localrunner.host.status import Status, write_status
from localrunner.host.web import WebServer

SETTINGS_EXIT: Final = 2
SECOND_SIGNAL_EXIT: Final = 130
RESTART_PAUSE_S: Final = 1.0
SETTINGS_FILE: Final = "local.settings.json"
# Consumed records hold no cycles, but Python would look for some again and again: half of the host's time.
GC_OBJECTS: Final = 1_000_000
CHECKOUT: Final = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`parser` knows the options of `run`."""
    parser.add_argument("--app", type=Path, default=None, metavar="DIR", help="the app (default: this checkout)")
    parser.add_argument(
        "--settings",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"default: {SETTINGS_FILE} of the app, if there",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="wins over the environment and the file"
    )
    parser.add_argument(
        "--worker", choices=workers.NAMES, default=workers.EMULATED, help="what runs the app (default: emulated)"
    )
    parser.add_argument(
        "--python", type=Path, default=None, metavar="PATH", help="the worker's interpreter, with what it needs"
    )
    parser.add_argument(
        "--keys", type=Path, default=None, metavar="FILE", help="of HTTP functions, as JSON (default: new ones)"
    )
    parser.add_argument(
        "--status-file", type=Path, default=None, metavar="FILE", help="JSON, written as it changes"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the app; 0 after a stop that was asked for, 2 where settings or host.json cannot be used."""
    app_dir: Path = (args.app or CHECKOUT).resolve()
    status_file: Path | None = args.status_file
    try:
        if not app_dir.is_dir():
            raise settings.SettingsError(f"--app {app_dir}: is no directory; give the app's")
        worker = workers.choose(args.worker, args.python)
        file: Path = args.settings or app_dir / SETTINGS_FILE
        app = settings.load(file, args.settings is not None, os.environ, args.set)
        options = hostjson.load(app_dir / "host.json", app)
        allowed = keys.generated() if args.keys is None else keys.load(args.keys)
        if app_dir == CHECKOUT:
            _check_sink(app)
    except settings.SettingsError as fault:
        for line in fault.faults:
            print(line, file=sys.stderr)
        if status_file is not None:
            write_status(status_file, Status("failed", os.getpid(), error=str(fault)))
        return SETTINGS_EXIT
    gc.set_threshold(GC_OBJECTS)
    stop = _stop_on_signals()
    web = WebServer(allowed)
    while Host(app_dir, worker, app, options, web, status_file).run(stop) is Outcome.RESTART:
        stop.wait(RESTART_PAUSE_S)
    web.close()
    return 0


def _check_sink(app: settings.AppSettings) -> None:
    """The sink's own settings can be used: in Azure it would log their faults and take no records.

    Raises:
        SettingsError: with every fault.
    """
    from sinkcore.errors import ConfigError
    from sinkcore.settings import read_settings

    try:
        read_settings(app.environment, json.loads((CHECKOUT / "host.json").read_text()))
    except ConfigError as fault:
        raise settings.SettingsError(*fault.faults) from fault


def _stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(SECOND_SIGNAL_EXIT)  # the worker dies with us
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
