"""Dead letters are read, and sent again by today's routes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from sinkcore.clock import Deadline
from sinkcore.deadletters import DeadLetter, dead_letters_in
from sinkcore.operate import NotPossibleError
from sinkcore.records import slices_of, timestamp_of
from sinkcore.sink import Sink

if TYPE_CHECKING:
    import azure.functions as func

# What a dead letter blob carries once its records have been sent again.
REPLAYED_AS = "replayed_as"


def letters(sink: Sink, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each dead letter below `prefix` with the path of its blob, value, key and headers as text where they are
    UTF-8, else `{"base64": "..."}`."""
    container = sink.settings.dead_letters_container
    for path in list(sink.blobs.names(container, prefix)):
        for letter in dead_letters_in(sink.blobs.get(container, path)):
            headers = [[name, _readable(value)] for name, value in letter.headers]
            readable = {"key": _readable(letter.key), "value": _readable(letter.value), "headers": headers}
            yield path, msgspec.structs.asdict(letter) | readable


def replay_dead_letters(sink: Sink, prefix: str) -> Iterator[tuple[str, int, int]]:
    """The dead letters below `prefix` are encoded again by today's routes: path, records, and refused again.

    A blob that was replayed before is left out. The new segment's id follows from the old one's, so that whoever
    dies between the commit and the mark repeats nothing.
    """
    container = sink.settings.dead_letters_container
    # What is refused again becomes a blob below the same prefix, and is not for this call.
    for path in list(sink.blobs.names(container, prefix)):
        if REPLAYED_AS in sink.blobs.marks(container, path):
            continue
        events = [_event(letter) for letter in dead_letters_in(sink.blobs.get(container, path))]
        if events:
            yield path, len(events), _replay_blob(sink, path, events)


def _replay_blob(sink: Sink, path: str, events: list[func.KafkaEvent]) -> int:
    name = str(events[0].topic)
    if not sink.settings.routes_of(name):
        raise NotPossibleError(f"{path}: no route names the topic {name}; add one")
    topic = sink.topic(name)
    old_id = path.rpartition("/")[2].partition(".")[0]
    segment_id = old_id[:12] + sha256(f"{old_id} again".encode()).hexdigest()[:20]
    again, token = replace(sink, new_id=lambda _: segment_id), sink.new_id(sink.clock.now_ms())[12:]
    deadline = Deadline.after(sink.clock, sink.settings.invocation_max_s)
    # Whoever died behind the commit has left a segment that may be queued by now.
    segment = topic.ledger.segment(segment_id) or again.take_again(topic, slices_of(events), deadline, token)
    if segment is None:
        raise NotPossibleError(f"{path}: its records become too many blobs for one segment")
    sink.blobs.mark(sink.settings.dead_letters_container, path, {REPLAYED_AS: segment_id})
    return segment.dead_letters


def _readable(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _event(letter: DeadLetter) -> func.KafkaEvent:
    """The record of a dead letter as the trigger once delivered it, with key and header values in base64."""
    import azure.functions as func

    fields = msgspec.to_builtins(letter)
    return func.KafkaEvent(
        body=letter.value or b"",
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        timestamp=timestamp_of(letter.timestamp_ms),
        key=fields["key"],
        headers=[{"Key": name, "Value": value} for name, value in fields["headers"]],
    )
