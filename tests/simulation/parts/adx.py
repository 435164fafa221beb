"""ADX: a queue, a batching time, refusals of the set-up and of the data, and what its tables hold."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.failures import FailedIngestion
from sinkcore.segment import Blob
from tests.simulation.parts.schedule import Schedule
from tests.support.memory import MemoryBlobs, MemoryFailures

BATCHING_S = 60.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message in ADX's queue, and until when ADX holds its rows back."""

    blob: Blob
    url: str
    due_ms: int


@dataclass(eq=False)
class Adx:
    """All three sides of ADX that sinkcore sees: the queue, the tables and the failures."""

    schedule: Schedule
    blobs: MemoryBlobs
    tagged: bool
    faulty: float = 0.03
    down: bool = False
    lacking: bool = False
    queued: list[Message] = field(default_factory=list)
    landed: Counter[int] = field(default_factory=Counter)
    by_segment: Counter[tuple[str, str]] = field(default_factory=Counter)
    taken: set[str] = field(default_factory=set)
    doubts: int = 0
    # Blobs by whether their data can be ingested: what ADX thinks of the same bytes does not change.
    sound: dict[str, bool] = field(default_factory=dict)
    failures: MemoryFailures = field(init=False)

    def __post_init__(self) -> None:
        self.failures = MemoryFailures(self.schedule.clock)

    def queue(self, blob: Blob, url: str, timeout_s: float) -> None:
        """See IngestionQueue. A call whose time is over when its machine wakes sends nothing any more."""
        actor = self.schedule.current()
        clock = actor.clock if actor else None
        began = (clock.now_ms(), clock.monotonic_s()) if clock else (0, 0.0)
        self.schedule.seam(f"queue {blob.path[-30:]}")
        if clock and max((clock.now_ms() - began[0]) / 1000, clock.monotonic_s() - began[1]) > timeout_s:
            self.schedule.hit("fault: queue time-out")
            self.doubts += 1
            raise OutcomeUnknownError("queue: no answer in time")
        if self.down or self.schedule.chance(self.faulty):
            self.schedule.hit("fault: adx down" if self.down else "fault: adx throttles")
            raise TransientError("queue: throttled")
        self.queued.append(Message(blob, url, self.schedule.clock.ms + int(BATCHING_S * 1000)))
        if self.schedule.chance(self.faulty):
            self.schedule.hit("fault: queue reply lost")
            self.doubts += 1
            raise OutcomeUnknownError("queue: the reply was lost")

    def ingest(self) -> None:
        """What ADX has had for its batching time is in the table, or refused."""
        if self.down:
            return
        due = [m for m in self.queued if m.due_ms <= self.schedule.clock.ms]
        self.queued = [m for m in self.queued if m.due_ms > self.schedule.clock.ms]
        for message in due:
            self._ingest(message)

    def _ingest(self, message: Message) -> None:
        blob = message.blob
        code, retry = self._refusal(blob)
        if code:
            self.schedule.say("adx", f"refuses {blob.path[-30:]}: {code}")
            self.schedule.hit(f"fault: {code}")
            self.failures.report(message.url, code, ShouldRetry=retry)
            if self.schedule.chance(0.2):
                self.schedule.hit("fault: failure reported twice")
                self.failures.report(message.url, code, ShouldRetry=retry)
            return
        rows = gzip.decompress(self.blobs.get(blob.container, blob.path)).splitlines()
        self.schedule.say("adx", f"ingests {blob.path[-30:]}: {len(rows)} rows")
        self.taken.add(blob.source_id)
        for row in map(json.loads, rows):
            self.landed[row["n"]] += 1
            if blob.table == "Odd" and row["to"] != "odd":
                self.schedule.errors.append(f"record {row['n']} is in the wrong table")
        self.by_segment[blob.table, blob.path.split("/")[-2]] += len(rows)

    def _refusal(self, blob: Blob) -> tuple[str, bool]:
        if self.tagged and blob.source_id in self.taken:
            return "Skipped_IngestByTagAlreadyExists", False
        if self._lacks(blob):
            return "BadRequest_TableNotExist", False
        if (blob.container, blob.path) not in self.blobs.blobs:
            return "Download_SourceNotFound", False
        if not self.sound.setdefault(blob.path, not self.schedule.chance(self.faulty / 2)):
            return "BadRequest_InvalidBlob", False
        if self.schedule.chance(self.faulty / 2):
            return "General_InternalServerError", True
        return "", False

    def batching_s(self, blob: Blob) -> float:
        return BATCHING_S

    def counts(self, blob: Blob, segment_ids: Sequence[str]) -> dict[str, int] | None:
        self.schedule.seam(f"counts {len(segment_ids)}")
        self._answer()
        self.ingest()
        found = {i: self.by_segment[blob.table, i] for i in segment_ids}
        return None if blob.metadata is None else {i: rows for i, rows in found.items() if rows}

    def takes(self, blob: Blob) -> bool:
        self.schedule.seam("takes")
        self._answer()
        return not self._lacks(blob)

    def receive(self, most: int) -> list[FailedIngestion]:
        self.schedule.seam("receive failures")
        self._answer()
        return self.failures.receive(most)

    def delete(self, message: FailedIngestion) -> None:
        self.schedule.seam("delete a failure")
        self._answer()
        self.failures.delete(message)

    def _lacks(self, blob: Blob) -> bool:
        """Of several tables one may be missing alone."""
        return self.lacking and blob.table == "Flights"

    def _answer(self) -> None:
        if self.down:
            self.schedule.hit("fault: adx down")
            raise TransientError("adx: no answer")
