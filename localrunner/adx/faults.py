"""Faults on demand: what the double does wrong because a test asked for it through `/local/faults`.

docs/adx-double.md lists them ("Faults on demand"). A fault is met by what matches it, `skip` times for nothing and
then `count` times in earnest.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from localrunner.adx.errors import INGESTION_CODES, IngestionError, KustoError
from localrunner.adx.messages import Request, blob_name

FAULTS_MAX = 1000
DELAY_MAX_S = 600.0
KINDS = ("mgmt", "query", "streaming", "metadata")
ROLES = ("engine", "dm")
# Where a kill can strike: each is passed once for every batch, the last two once for every message of it.
POINTS = ("after_rows", "after_seal_record", "after_commit", "after_reports", "before_delete", "after_delete")

_REQUEST = frozenset({"on", "role", "contains"})
_BLOB = frozenset({"blob", "table"})
# What is done -> the properties it takes besides `do`, `count` and `skip`.
DEEDS: Mapping[str, frozenset[str]] = {
    "status": _REQUEST | {"status", "code", "permanent"},
    "throttle": _REQUEST,
    "delay": _REQUEST | {"delay_s"},
    "hang": _REQUEST,
    "drop": _REQUEST,
    "lose_reply": _REQUEST,
    "fail_blob": _BLOB | {"code"},
    "delay_blob": _BLOB | {"delay_s"},
    "redeliver": _BLOB,
    "kill": frozenset({"at", "table"}),
}
_ON_REQUESTS = frozenset(deed for deed, takes in DEEDS.items() if "on" in takes)


@dataclass(slots=True)
class Fault:
    """One fault; empty text matches everything, and a `count` of None never ends."""

    number: int
    do: str
    on: str = ""
    role: str = ""
    contains: str = ""
    status: int = 503
    code: str = ""
    permanent: bool | None = None
    delay_s: float = 0.0
    blob: str = "*"
    table: str = ""
    at: str = ""
    count: int | None = 1
    skip: int = 0
    met: int = 0
    # Set once the fault is taken back: what hangs or is delayed by it goes on.
    released: threading.Event = field(default_factory=threading.Event)

    def as_dict(self) -> dict[str, Any]:
        """As `GET /local/faults` shows it: what was asked for, and how often it has happened."""
        names = ("number", "do", *sorted(DEEDS[self.do]), "count", "skip", "met")
        return {name: getattr(self, name) for name in names}


class Faults:
    """The faults in force, in the order in which they were asked for; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[int, Fault] = {}
        self._numbers = itertools.count(1)

    def add(self, wanted: Any) -> list[Fault]:
        """The faults that a JSON object, or a list of them, asks for are in force: all of them or none.

        Raises:
            KustoError: it names what is unknown or out of bounds.
        """
        given = wanted if isinstance(wanted, list) else [wanted]
        with self._lock:
            if len(self._faults) + len(given) > FAULTS_MAX:
                raise KustoError(f"There are {len(self._faults)} faults; more than {FAULTS_MAX} are not kept")
            made = [_parsed(next(self._numbers), one) for one in given]
            self._faults.update((fault.number, fault) for fault in made)
        return made

    def listed(self) -> list[dict[str, Any]]:
        """Every fault in force or used up, oldest first."""
        with self._lock:
            return [fault.as_dict() for fault in self._faults.values()]

    def clear(self, number: int | None = None) -> int:
        """That fault, or all of them, are taken back and what hangs lets go; how many there were."""
        with self._lock:
            gone = [number] if number is not None else list(self._faults)
            taken = [self._faults.pop(one) for one in gone if one in self._faults]
        for fault in taken:
            fault.released.set()
        return len(taken)

    def on_request(self, role: str, kind: str, text: str) -> Fault | None:
        """What goes wrong with this request, or None."""
        return self._met(
            lambda fault: (
                fault.do in _ON_REQUESTS
                and fault.role in ("", role)
                and fault.on in ("", kind)
                and fault.contains in text
            )
        )

    def on_blob(self, do: str, request: Request) -> Fault | None:
        """Whether `do` happens to the blob of `request`."""
        name = blob_name(request.blob_url)
        return self._met(
            lambda fault: fault.do == do and fnmatchcase(name, fault.blob) and fault.table in ("", request.table)
        )

    def refuse(self, request: Request) -> None:
        """Raise the IngestionError that the blob is to fail with, if any."""
        fault = self.on_blob("fail_blob", request)
        if fault is not None:
            raise IngestionError(fault.code, "Refused on demand, by /local/faults.")

    def pass_point(self, point: str, table: str) -> None:
        """The process is killed here if that was asked for."""
        fault = self._met(lambda fault: fault.do == "kill" and fault.at == point and fault.table in ("", table))
        if fault is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    def _met(self, matches: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for fault in self._faults.values():
                if not matches(fault) or (fault.count is not None and fault.met >= fault.skip + fault.count):
                    continue
                fault.met += 1
                if fault.met > fault.skip:
                    return fault
        return None


def _parsed(number: int, given: Any) -> Fault:
    # A list, so that what cannot be hashed is not in it either.
    if not isinstance(given, dict) or given.get("do") not in list(DEEDS):
        raise KustoError(f"A fault is a JSON object whose 'do' is one of {', '.join(DEEDS)}")
    takes = DEEDS[given["do"]] | {"do", "count", "skip"}
    unknown = sorted(set(given) - takes)
    if unknown:
        raise KustoError(f"A fault '{given['do']}' has no '{unknown[0]}'; it takes {', '.join(sorted(takes))}")
    fault = Fault(number, **given)
    _check(fault)
    return fault


def _check(fault: Fault) -> None:
    def require(holds: bool, what: str) -> None:
        if not holds:
            raise KustoError(f"The fault cannot be used: {what}")

    texts = (fault.on, fault.role, fault.contains, fault.code, fault.blob, fault.table, fault.at)
    require(all(isinstance(text, str) for text in texts), "a property that is text is not")
    require(fault.on in ("", *KINDS), f"'on' is one of {', '.join(KINDS)}")
    require(fault.role in ("", *ROLES), f"'role' is one of {', '.join(ROLES)}")
    require(_whole(fault.status) and 400 <= fault.status <= 599, "'status' is from 400 to 599")
    require(fault.permanent in (None, True, False), "'permanent' is true or false")
    delay_s: Any = fault.delay_s
    require(
        isinstance(delay_s, int | float) and 0 <= delay_s <= DELAY_MAX_S, f"'delay_s' is at most {DELAY_MAX_S:g}"
    )
    require(fault.count is None or (_whole(fault.count) and fault.count > 0), "'count' is above 0, or null")
    require(_whole(fault.skip) and fault.skip >= 0, "'skip' is 0 or more")
    if fault.do == "fail_blob":
        require(fault.code in INGESTION_CODES, "'code' is one of the codes that docs/adx-double.md lists")
    if fault.do == "kill":
        require(fault.at in POINTS, f"'at' is one of {', '.join(POINTS)}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
