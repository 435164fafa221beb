"""ADX: it takes messages, ingests their blobs within its batching time or refuses them, and answers questions."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.failures import FailedIngestion
from sinkcore.segment import Blob
from tests.simulation.scheduler import Scheduler
from tests.support.memory import MemoryBlobs, MemoryFailures

BATCHING_S = 60.0


@dataclass
class AdxFaults:
    """Probabilities of one message, unless it says otherwise; `down`: nothing is taken, and nothing answered."""

    refused: float = 0.0
    lost: float = 0.0
    transient: float = 0.0
    bad_data: float = 0.0
    unknown_code: float = 0.0
    again: float = 0.0
    down: bool = False
    table_missing: bool = False

    def calm(self) -> None:
        self.refused = self.lost = self.transient = self.bad_data = self.unknown_code = self.again = 0.0
        self.down = self.table_missing = False


@dataclass
class Ingested:
    """A row in a table: which record it is, and the segment that it tells of itself, None without metadata."""

    table: str
    uid: int
    segment: str | None
    message: int


@dataclass
class SimAdx:
    """Queue, tables and failures queue; see IngestionQueue, LandedRows and FailedIngestions of sinkcore."""

    scheduler: Scheduler
    blobs: MemoryBlobs
    failures: MemoryFailures
    faults: AdxFaults
    tagged: bool
    count: Callable[[str], None]
    rows: list[Ingested] = field(default_factory=list)
    waiting: dict[int, tuple[Blob, str]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    doomed: set[str] = field(default_factory=set)
    sent: Counter[str] = field(default_factory=Counter)
    _messages: int = 0

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.scheduler.running is not None:
            self.scheduler.running.notes["queueing"] = blob.path
        self.scheduler.park("queue")
        rng, faults = self.scheduler.rng, self.faults
        if faults.down or rng.random() < faults.refused:
            self.count("ADX down" if faults.down else "a message that ADX refuses")
            raise TransientError("ADX queue: 429")
        if rng.random() < faults.lost:
            # Nobody can tell which: the message got there, or it did not.
            if rng.random() < 0.5:
                self._take(blob, url)
            self.count("a message whose reply is lost")
            raise OutcomeUnknownError("ADX queue: no reply")
        self._take(blob, url)
        self.scheduler.park("has queued")

    def _take(self, blob: Blob, url: str) -> None:
        self._messages += 1
        self.sent[blob.path] += 1
        number = self._messages
        self.waiting[number] = (blob, url)
        self.scheduler.after(self.scheduler.rng.randint(50, int(BATCHING_S * 1000)), lambda: self._ingest(number))

    def _ingest(self, number: int) -> None:
        """What the message names is in its table, or a failure is reported."""
        blob, url = self.waiting.pop(number)
        rng, faults = self.scheduler.rng, self.faults
        if self.tagged and blob.source_id in self.taken:
            self.count("a tag that is there already")
            self.failures.report(url, "Skipped_IngestByTagAlreadyExists")
            return
        code = self._code(blob)
        if code is not None:
            self.count(f"ADX reports {code}")
            status = "Transient" if code == "General_InternalServerError" else "Permanent"
            self.failures.report(url, code, ShouldRetry=status == "Transient", FailureStatus=status)
            return
        self.taken.add(blob.source_id)
        times = 1
        if not self.tagged and rng.random() < faults.again:
            # At-least-once is ADX's own promise; the sink cannot help that, and is not counted against it.
            self.count("a blob that ADX itself ingests twice")
            times = 2
        lines = gzip.decompress(self.blobs.get(blob.container, blob.path)).splitlines()
        for _ in range(times):
            for line in lines:
                row = json.loads(line)
                segment = row["_kafka"]["segment"] if "_kafka" in row else None
                self.rows.append(Ingested(blob.table, row["uid"], segment, number))
        self.scheduler.say(f"ADX has ingested {blob.path} ({len(lines)} rows)")

    def _code(self, blob: Blob) -> str | None:
        rng, faults = self.scheduler.rng, self.faults
        if faults.table_missing:
            return "BadRequest_TableNotExist"
        if (blob.container, blob.path) not in self.blobs.blobs:
            return "Download_SourceNotFound"
        if blob.path in self.doomed or rng.random() < faults.bad_data:
            return "BadRequest_InvalidBlob"
        if rng.random() < faults.transient:
            return "General_InternalServerError"
        return "BadRequest_New" if rng.random() < faults.unknown_code else None

    def batching_s(self, blob: Blob) -> float:  # noqa: ARG002 - one policy for all tables
        return BATCHING_S

    def counts(self, blob: Blob, segment_ids: Sequence[str]) -> dict[str, int] | None:
        self._asked()
        found = Counter(row.segment for row in self.rows if row.table == blob.table and row.segment)
        return {each: found[each] for each in segment_ids if found[each]}

    def takes(self, blob: Blob) -> bool:  # noqa: ARG002 - there is one table, and it is there or not
        self._asked()
        return not self.faults.table_missing

    def receive(self, most: int) -> list[FailedIngestion]:
        self._asked()
        return self.failures.receive(most)

    def delete(self, message: FailedIngestion) -> None:
        self.scheduler.park("delete message")
        self.failures.delete(message)

    def _asked(self) -> None:
        self.scheduler.park("ask ADX")
        if self.faults.down:
            self.count("ADX down")
            raise TransientError("ADX engine: no answer")


def uid_of_letter(line: bytes) -> int:
    """The record that a dead letter is."""
    value = base64.b64decode(json.loads(line)["value"])
    return int(value.rpartition(b" ")[2])
