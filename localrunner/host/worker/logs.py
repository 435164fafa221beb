"""Sends what the app logs to the host, with the invocation that it belongs to."""

from __future__ import annotations

import contextvars
import logging
import threading

from localrunner.host.wire import ClosedError, Line, RpcLog
from localrunner.host.worker.context import InvocationIdStorage

current_invocation: contextvars.ContextVar[str | None] = contextvars.ContextVar("invocation", default=None)
storage = InvocationIdStorage()
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ToHost(logging.Handler):
    """A logging handler whose records the host prints; `extra` attributes go along as facts."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._sending = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """The host has the record, unless it is gone."""
        if getattr(self._sending, "now", False):
            return  # a log of our own sending would never end
        self._sending.now = True
        try:
            self._line.send(_log_of(record, self.format(record)))
        except ClosedError:
            return
        finally:
            self._sending.now = False


def _log_of(record: logging.LogRecord, text: str) -> RpcLog:
    facts = {name: str(value) for name, value in vars(record).items() if name not in _PLAIN}
    return RpcLog(
        level=_level(record.levelno),
        category=record.name,
        message=text,
        invocation_id=current_invocation.get() or storage.invocation_id,
        facts=facts,
    )


def _level(number: int) -> str:
    for at_least, level in (
        (logging.CRITICAL, "critical"),
        (logging.ERROR, "error"),
        (logging.WARNING, "warning"),
        (logging.INFO, "information"),
        (logging.DEBUG, "debug"),
    ):
        if number >= at_least:
            return level
    return "trace"
