"""When a timer ran last and is due next, kept across restarts in the storage account of the function app."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError

from localrunner.host.logs import TIMER, HostLog
from localrunner.host.storage import HostStorage

NEVER: Final = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """`last` and `last_updated` are None where the timer has not run; all times are UTC."""

    last: datetime | None
    next: datetime
    last_updated: datetime | None

    def as_json(self) -> dict[str, str]:
        """The fields as the worker gets them and as they are kept."""
        return {
            "Last": _text(self.last),
            "Next": _text(self.next),
            "LastUpdated": _text(self.last_updated),
        }


class StatusStore:
    """Statuses as blobs, where Azure keeps them.

    Source: azure-webjobs-sdk-extensions, StorageScheduleMonitor.cs: `azure-webjobs-hosts`,
    `timers/<host id>/Host.Functions.<name>/status`.
    """

    def __init__(self, storage: HostStorage, log: HostLog) -> None:
        self._container = storage.container
        self._host_id = storage.host_id
        self._log = log

    def read(self, name: str) -> ScheduleStatus | None:
        """The status of the function `name`; None where none is kept, or storage does not answer."""
        try:
            content = self._container.download_blob(self._path(name)).readall()
        except ResourceNotFoundError:
            return None
        except AzureError as fault:
            self._log.error(TIMER, f"Function '{name}' failed to read its timer status: {type(fault).__name__}")
            return None
        return _status_of(json.loads(content))

    def write(self, name: str, status: ScheduleStatus) -> None:
        """The status is kept, unless storage does not answer: then an occurrence may run again."""
        body = json.dumps(status.as_json()).encode()
        try:
            with contextlib.suppress(ResourceExistsError):
                self._container.create_container()
            self._container.upload_blob(self._path(name), body, overwrite=True)
        except AzureError as fault:
            self._log.error(TIMER, f"Function '{name}' failed to update the timer status: {type(fault).__name__}")

    def _path(self, name: str) -> str:
        return f"timers/{self._host_id}/Host.Functions.{name}/status"


def _text(moment: datetime | None) -> str:
    return NEVER if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _status_of(document: dict[str, Any]) -> ScheduleStatus:
    moments = {
        name: None if document.get(name, NEVER).startswith("0001") else datetime.fromisoformat(document[name])
        for name in ("Last", "Next", "LastUpdated")
    }
    return ScheduleStatus(moments["Last"], moments["Next"] or datetime.now(UTC), moments["LastUpdated"])
