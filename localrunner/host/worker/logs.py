"""Sends what the app logs to the host, with the invocation that it belongs to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from localrunner.host.wire import ClosedError, Line, RpcLog


class ToHost(logging.Handler):
    """A logging handler whose records the host prints; `extra` attributes stay behind, as in Azure.

    Source: azure-functions-python-worker, dispatcher.py: an RpcLog has the formatted message and no attributes.
    `invocation_id` tells for which invocation the caller works.
    """

    def __init__(self, line: Line, invocation_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._line = line
        self._invocation_id = invocation_id
        self._sending = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """The host has the record, unless it is gone."""
        if getattr(self._sending, "now", False):
            return  # a log of our own sending would never end
        self._sending.now = True
        try:
            self._line.send(_log_of(record, self.format(record), self._invocation_id()))
        except ClosedError:
            return
        finally:
            self._sending.now = False


def _log_of(record: logging.LogRecord, text: str, invocation_id: str | None) -> RpcLog:
    return RpcLog(
        level=_level(record.levelno),
        category=record.name,
        message=text,
        invocation_id=invocation_id,
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
