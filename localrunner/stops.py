"""What Ctrl-C and SIGTERM do to a stack: the first one stops it in order, a second one at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from localrunner.components import HOST_STOP_S

# One Ctrl-C can arrive twice: from the terminal, and from a parent that passes it on.
SAME_SIGNAL_S = 1.0
DRAINING = f"Draining, for up to {HOST_STOP_S:.0f} s while a batch fails; a second Ctrl-C ends everything at once."


class Interrupt(BaseException):
    """Somebody wants an end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def on_stop_signals(first: Callable[[int], None], at_once: Callable[[], None]) -> None:
    """`first` is called with the first SIGINT or SIGTERM; after a later one, and `at_once`, this process is gone.

    That goes for a SIGINT too that was ignored so far, as in a script's background.
    """
    first_at: float | None = None

    def take(number: int, _: FrameType | None) -> None:
        nonlocal first_at
        now = time.monotonic()
        if first_at is None:
            first_at = now
            first(number)
        elif now - first_at > SAME_SIGNAL_S:
            at_once()
            os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, take)


def say_draining() -> None:
    """The screen says how long a drain may take; on standard error, since a result may be on standard output."""
    print(DRAINING, file=sys.stderr, flush=True)
