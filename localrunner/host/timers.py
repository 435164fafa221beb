"""One function's timer: waits for the next occurrence, runs the function, never twice at once.

Source: azure-webjobs-sdk-extensions, TimerListener.cs and ScheduleMonitor.cs.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any, Final

from localrunner.host import wire
from localrunner.host.dispatcher import Dispatcher
from localrunner.host.logs import TIMER, HostLog
from localrunner.host.schedulestatus import ScheduleStatus, StatusStore
from localrunner.host.triggers import HostedFunction, TimerTrigger

STOP_LIMIT_S: Final = 300.0
LOOK_S: Final = 60.0  # the clock is read at least so often, since it can be set


class TimerListener:
    """Invokes the function on its schedule, from `start` until `stop`.

    `statuses` is None where no status is kept: then there is no past due, as in Azure for schedules that
    occur more often than once a minute.
    """

    def __init__(
        self,
        function: HostedFunction,
        trigger: TimerTrigger,
        dispatcher: Dispatcher,
        statuses: StatusStore | None,
        log: HostLog,
    ) -> None:
        self._function = function
        self._trigger = trigger
        self._dispatcher = dispatcher
        self._statuses = statuses if trigger.use_monitor else None
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"timer-{function.name}", daemon=True)

    def start(self) -> None:
        """The schedule runs."""
        self._thread.start()

    def begin_stop(self) -> None:
        """No further invocation begins."""
        self._stopping.set()

    def stop(self, drain: bool) -> None:  # noqa: ARG002 -- a timer has nothing queued, so both stops are one
        """No invocation runs any more, unless it outlives the limit."""
        self.begin_stop()
        if self._thread.ident is not None:  # it was started
            self._thread.join(STOP_LIMIT_S)

    def _run(self) -> None:
        now = datetime.now(UTC)
        kept, past_due = self._first_status(now)
        status = kept or ScheduleStatus(None, self._trigger.schedule.next_after(now), None)
        if past_due:
            self._log.info(TIMER, f"Function '{self._function.name}' is past due on startup. Executing now")
            status = self._invoke(status, is_past_due=True, on_schedule=False)
        elif self._trigger.run_on_startup:
            self._log.info(TIMER, f"Function '{self._function.name}' is configured to run on startup")
            status = self._invoke(status, is_past_due=False, on_schedule=False)
        while not self._stopping.is_set():
            left_s = (status.next - datetime.now(UTC)).total_seconds()
            if left_s > 0:
                self._stopping.wait(min(left_s, LOOK_S))
                continue
            status = self._invoke(status, is_past_due=False, on_schedule=True)

    def _first_status(self, now: datetime) -> tuple[ScheduleStatus | None, bool]:
        """The status that counts from now on, and whether an occurrence was missed while nobody ran."""
        if self._statuses is None:
            return None, False
        name, schedule = self._function.name, self._trigger.schedule
        kept = self._statuses.read(name)
        if kept is None:
            status = ScheduleStatus(None, schedule.next_after(now), now)
            self._statuses.write(name, status)
            return status, False
        counted_from = kept.last or kept.last_updated or now
        expected = schedule.next_after(counted_from)
        if kept.next != expected:
            # Another schedule than the one that wrote the status: not past due at once because of that.
            if now > expected:
                expected, counted_from = schedule.next_after(now), now
            kept = ScheduleStatus(None, expected, counted_from)
            self._statuses.write(name, kept)
        return kept, now > kept.next

    def _invoke(self, status: ScheduleStatus, is_past_due: bool, on_schedule: bool) -> ScheduleStatus:
        """The status after one invocation, whatever became of it."""
        at = datetime.now(UTC)
        info: dict[str, Any] = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": None if self._statuses is None else status.as_json(),
            "IsPastDue": is_past_due,
        }
        input_data = wire.encode_payload({self._trigger.parameter: wire.Json(json.dumps(info))})
        metadata = wire.encode_payload({"TimerTrigger": wire.String(f"{at:%m/%d/%Y %H:%M:%S}")})
        if not self._stopping.is_set():
            self._dispatcher.execute(self._function, input_data, metadata, self._stopping)
        # A timer that fires a moment early must not compute the same occurrence again.
        counted_from = max(at, status.next) if on_schedule else at
        after = ScheduleStatus(counted_from, self._trigger.schedule.next_after(counted_from), counted_from)
        if self._statuses is not None and not self._stopping.is_set():
            self._statuses.write(self._function.name, after)
        return after
