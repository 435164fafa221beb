"""A segment: what one commit adds. Names and ids are made here, so that a blob tells which segment it is of."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Literal

import msgspec

from sinkcore.records import OffsetRange

State = Literal["staged", "queued", "landed", "failed"]
# A blob that was `queued` needs no more; one that is `unsent` certainly was not queued; of a `staged` one nobody
# knows. In the ledger every blob is `staged` while somebody is at queueing it: who dies then leaves a doubt.
# The others are what ADX has refused: docs/ledger.md has all of them ("Rows").
BlobState = Literal["staged", "unsent", "queued", "again", "set_up", "refused", "failed", "mended"]
# ADX's longest code has 53 characters.
ERROR_MAX_CHARS = 64
# ADX's code for a blob that is not in storage; ours, where we see it first.
GONE = "Download_SourceNotFound"


@dataclass(frozen=True, slots=True)
class Blob:
    """A staged blob with all that queueing it needs, so that a changed setting never re-aims staged data.

    `route` tells which records led to it: the digest of their route (`sinkcore.routing`).
    `kind` is `rows` for a body that ADX ingests, `dead_letters` for one that goes to the users' container. `error`
    is ADX's code for its last refusal, and `failures` how many there were.
    """

    kind: Literal["rows", "dead_letters"]
    container: str
    path: str
    rows: int
    raw_size_bytes: int
    stored_size_bytes: int
    db: str = ""
    table: str = ""
    format: str = ""
    mapping: str | None = None
    metadata: str | None = None
    route: str = ""
    source_id: str = ""
    state: BlobState = "staged"
    error: str = ""
    failures: int = 0

    @property
    def is_due(self) -> bool:
        """Whether it is to be queued."""
        return self.state in ("staged", "unsent")


@dataclass(frozen=True, slots=True)
class Segment:
    """What one commit adds: offset ranges of one topic, and the blobs that hold their records.

    `waiting` says that a sweeper has claimed it, that nobody queues it, and that ADX is to be asked about it.
    `replay` says that a person had its offsets taken once more. `topic_id` is which topic of that name they are
    of; empty where the broker has no ids.
    """

    id: str
    topic: str
    ranges: tuple[OffsetRange, ...]
    blobs: tuple[Blob, ...]
    records: int
    dead_letters: int
    state: State = "staged"
    attempts: int = 0
    waiting: bool = False
    replay: bool = False
    topic_id: str = ""

    @property
    def outcome(self) -> State:
        """Its state by what is known of its blobs."""
        states = {blob.state for blob in self.blobs}
        if states & {"set_up", "refused", "failed"}:
            return "failed"
        return "queued" if states <= {"queued", "mended"} else "staged"

    @property
    def tells_itself(self) -> bool:
        """Whether ADX can be asked about it: each of its rows carries its id, and there are some."""
        rows = [blob for blob in self.blobs if blob.kind == "rows"]
        return bool(rows) and all(blob.metadata is not None for blob in rows)

    def with_blob_states(self, states: dict[str, BlobState]) -> Segment:
        """The segment with the state of each blob whose path `states` names."""
        blobs = tuple(replace(blob, state=states.get(blob.path, blob.state)) for blob in self.blobs)
        return replace(self, blobs=blobs)

    def with_blob(self, blob: Blob) -> Segment:
        """The segment with `blob` in the place of its blob of that path."""
        return replace(self, blobs=tuple(blob if each.path == blob.path else each for each in self.blobs))

    def with_waiting_blobs(self, state: BlobState) -> Segment:
        """The segment with `state` for each blob that is to be queued."""
        return self.with_blob_states({blob.path: state for blob in self.blobs if blob.is_due})


def new_segment_id(now_ms: int) -> str:
    """32 hexadecimal digits: 12 of the time in milliseconds, then 20 random ones, so that ids sort by age."""
    return f"{now_ms:012x}{secrets.token_hex(10)}"


def started_ms(segment_id: str) -> int:
    """When the segment's id was made, milliseconds since 1970."""
    return int(segment_id[:12], 16)


def blob_path(topic: str, segment_id: str, name: str) -> str:
    """`<topic>/<yyyy>/<mm>/<dd>/<segment id><name>`: a function of topic and segment alone.

    Source: Azure refuses path segments that end in a dot ("Naming and referencing containers"), so a topic's
    trailing dots are written as =2E.
    """
    day = datetime.fromtimestamp(started_ms(segment_id) / 1000, UTC).date()
    return f"{folder_of(topic, day)}{segment_id}{name}"


def folder_of(topic: str, day: date) -> str:
    """Where the topic's blobs of that day lie: `<topic>/<yyyy>/<mm>/<dd>/`."""
    bare = topic.rstrip(".")
    return f"{bare}{'=2E' * (len(topic) - len(bare))}/{day:%Y/%m/%d}/"


def topic_of_folder(folder: str) -> str:
    """The topic whose blobs lie below `<folder>/`."""
    return folder.replace("=2E", ".")


def source_id_of(segment_id: str, index: int) -> str:
    """The id under which ADX reports on a segment's blob number `index`."""
    return str(uuid.uuid5(uuid.UUID(segment_id), str(index)))


def blobs_to_json(blobs: tuple[Blob, ...]) -> str:
    """The blobs as the ledger has them: a JSON list of objects."""
    return msgspec.json.encode(blobs).decode()
