"""`python -m localrunner up`: the local stack in the foreground, until somebody stops it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from pathlib import Path

from localrunner import brokers
from localrunner.host import workers
from localrunner.plan import ROOT, Options, Plan, make_plan
from localrunner.processes import NotReadyError
from localrunner.screen import screen, settings_origin
from localrunner.stack import Stack, write_ready_file
from localrunner.stops import on_stop_signals, say_draining
from sinkcore.errors import ConfigError

LOGGER = logging.getLogger("localrunner")
EXIT_FAILED = 1
EXIT_FAULTS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`parser` knows the options of `up`."""
    parser.add_argument("--settings", type=Path, metavar="FILE", help="a Functions local.settings.json")
    parser.add_argument("--kafka", metavar="embedded|mock|HOST:PORT", help="which Kafka (default: embedded)")
    parser.add_argument("--hosts", type=int, default=1, metavar="N", help="Functions hosts in the same groups")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep what must survive a restart there")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="addresses and process ids, as JSON")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an app setting")
    parser.add_argument(
        "--adx-time-scale", type=float, default=0.01, metavar="X", help="factor on the double's time spans"
    )
    parser.add_argument(
        "--worker", choices=workers.NAMES, default=workers.EMULATED, help="what runs the app (default: emulated)"
    )
    parser.add_argument("--app", type=Path, default=ROOT, help=argparse.SUPPRESS)


def run(parsed: argparse.Namespace) -> int:
    """The exit code of `up`: 0 after a drain, 2 where the settings have faults, 1 where something failed."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    options = Options(
        settings_file=parsed.settings,
        sets=tuple(parsed.set),
        kafka=parsed.kafka,
        hosts=parsed.hosts,
        data=None if parsed.data is None else parsed.data.resolve(),
        adx_time_scale=parsed.adx_time_scale,
        app=parsed.app.resolve(),
        worker=parsed.worker,
    )
    try:
        plan = make_plan(options, os.environ)
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_FAULTS
    return _foreground(plan, parsed.ready_file)


def _foreground(plan: Plan, ready_file: Path | None) -> int:
    """The stack ran until SIGINT or SIGTERM; a second one ends it without a drain."""

    def changed(stack: Stack) -> None:
        if ready_file is None:
            return
        try:
            write_ready_file(ready_file, stack)
        except OSError as fault:
            # Whoever removed its directory does not want it; the stack goes on.
            LOGGER.error("%s: cannot be written: %s", ready_file, fault.strerror)

    stack = Stack(plan, changed)
    asked = _stop_on_signals(stack)
    if ready_file is not None:
        ready_file.parent.mkdir(parents=True, exist_ok=True)
        ready_file.unlink(missing_ok=True)
    for note in (settings_origin(plan), *plan.notes):
        print(note, flush=True)
    began = time.monotonic()
    try:
        stack.start()
    except (NotReadyError, OSError) as fault:
        if asked.is_set():
            return 0
        print(fault, file=sys.stderr)
        return EXIT_FAILED
    seconds = time.monotonic() - began
    answers = plan.kafka is not None or _asked(plan)
    but = "" if answers else " (Kafka, which is not of its own, does not)"
    print(f"The local stack answers after {seconds:.1f} s{but}; Ctrl-C drains and stops it.\n", flush=True)
    print(screen(stack, kafka_note="" if answers else " (does not answer)"), flush=True)
    while not asked.wait(1.0):
        continue  # Signals are handled between two waits.
    say_draining()
    drained = stack.stop()
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    if not drained:
        print("up: a host did not drain in time and was killed", file=sys.stderr)
    return 0 if drained else EXIT_FAILED


def _asked(plan: Plan) -> bool:
    """Whether somebody's own Kafka answers; what is wrong with it is a warning, since it may come later."""
    answers, faults = brokers.ask(plan)
    for fault in faults:
        print(fault, file=sys.stderr, flush=True)
    return answers


def _stop_on_signals(stack: Stack) -> threading.Event:
    """The event is set by the first SIGINT or SIGTERM, and `stack` stops."""
    asked = threading.Event()

    def first(_: int) -> None:
        asked.set()
        stack.stopping.set()

    on_stop_signals(first, stack.end_at_once)
    return asked
