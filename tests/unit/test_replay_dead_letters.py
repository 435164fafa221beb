"""Dead letters lose no byte and repeat none, on their way out and on their way back."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkcore import operate, resend
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import Steps, Stopped

BYTES = st.binary(max_size=20)
TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
REFUSED = st.builds(
    Sent,
    value=BYTES.map(lambda data: b"[" + data),
    offset=st.just(0),
    partition=st.integers(0, 3),
    key=st.none() | BYTES,
    timestamp=st.sampled_from(
        ["1969-12-31T23:59:59.999Z", "1969-12-31T00:00:00Z", "2013-01-01T10:00:00.12Z", "9999-12-31T23:59:59.999Z"]
    ),
    headers=st.lists(st.tuples(TEXT, st.none() | BYTES), max_size=4).map(tuple),
)


def replay(world: World, prefix: str = TOPIC) -> list[tuple[str, int, int]]:
    return list(resend.replay_dead_letters(world.sink(), prefix))


def letters_of(world: World) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for data in world.blobs.in_container("sink-dead-letters").values()
        for line in gzip.decompress(data).splitlines()
    ]


def as_sent(sent: Sent) -> dict[str, Any]:
    def text(data: bytes | None) -> str | None:
        return None if data is None else b64encode(data).decode()

    return {
        "topic": TOPIC,
        "partition": sent.partition,
        "offset": sent.offset,
        "key": text(sent.key),
        "value": text(sent.value or None),
        "headers": [[name, text(value)] for name, value in sent.headers],
    }


def without_holes(sent: list[Sent]) -> list[Sent]:
    return [replace(each, offset=2**40 + n) for n, each in enumerate(sorted(sent, key=lambda s: s.partition))]


@given(st.lists(REFUSED, min_size=1, max_size=6).map(without_holes))
def test_no_byte_is_lost_on_the_way_out_nor_on_the_way_back(sent: list[Sent]) -> None:
    """Null and empty keys, null and empty header values, headers of one name, bytes that are no text, no time."""
    world = World()
    world.sink().deliver(TOPIC, world.batch(sent))
    first = letters_of(world)
    replay(world)

    def whole(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        by_place = sorted(letters, key=lambda letter: (letter["partition"], letter["offset"]))
        return [{name: letter[name] for name in (*as_sent(sent[0]), "timestamp_ms")} for letter in by_place]

    again = letters_of(world)
    expected = [as_sent(each) for each in sorted(sent, key=lambda each: (each.partition, each.offset))]
    assert [{name: letter[name] for name in as_sent(sent[0])} for letter in whole(first)] == expected
    assert whole(again) == [letter for letter in whole(first) for _ in range(2)], "refused again, as they were"


def mended_world() -> World:
    """A dead letter that passes by now, beside a row."""
    world = World(settings_of({"tombstones": "dead_letter"}))
    world.sink().deliver(TOPIC, world.batch([Sent(b'{"n":0}', 0), Sent(b"[]", 1), Sent(None, 2)]))
    ((at, data),) = [(at, data) for at, data in world.blobs.blobs.items() if at[0] == "sink-dead-letters"]
    world.blobs.blobs[at] = gzip.compress(gzip.decompress(data).replace(b"W10=", b"e30="))
    return world


def test_typed_twice_each_letter_is_sent_once() -> None:
    world = mended_world()

    replay(world)
    replay(world, f"{TOPIC}/")
    world.sweep_to_the_end()

    assert world.queued_offsets() == {(0, 0): 1, (0, 1): 1}


def test_two_people_at_once_send_each_letter_once() -> None:
    """The second one has looked for the mark before the first one made it."""
    world = mended_world()
    first = resend.replay_dead_letters(world.sink(), TOPIC)
    other = world.sink()
    marks, other.blobs.marks = other.blobs.marks, lambda *_: {}  # type: ignore[method-assign]

    next(first)
    second = list(resend.replay_dead_letters(other, TOPIC))
    other.blobs.marks = marks  # type: ignore[method-assign]
    world.sweep_to_the_end()

    assert second
    assert world.queued_offsets() == {(0, 0): 1, (0, 1): 1}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 14))
def test_routes_that_change_between_a_death_and_the_next_try_change_nothing_that_is_committed(
    step: int, after: bool
) -> None:
    """A blob that was staged by other routes under the same name would be queued as if it held today's rows."""
    world = mended_world()
    with suppress(Stopped):
        list(resend.replay_dead_letters(world.stepped_sink(Steps(step, after)), TOPIC))
    before = {
        blob.path: world.blobs.blobs[blob.container, blob.path]
        for segment in world.ledger.segments()
        for blob in segment.blobs
    }

    world.settings = settings_of({"tombstones": "row", "table": "Mended"})
    replay(world)
    world.sweep_to_the_end()

    for segment in world.ledger.segments():
        for blob in segment.blobs:
            held = world.blobs.blobs[blob.container, blob.path]
            assert held == before.get(blob.path, held)
            assert len(gzip.decompress(held).splitlines()) == blob.rows
    sent = world.queued_offsets()
    assert {at: sent[at] for at in ((0, 0), (0, 1))} == {(0, 0): 1, (0, 1): 1}
    # A row once, or a dead letter beside the first; one that the second call found has become a row in its turn.
    assert sent[0, 2] == 1 or (sent[0, 2] == 0 and world.dead_offsets()[0, 2] == 2)


def test_what_is_refused_again_is_not_sent_again_by_the_same_call() -> None:
    """It is a new blob below the same prefix, and storage lists it if it is asked late enough."""
    world = World()
    world.sink().deliver(TOPIC, world.batch([Sent(b"[", 0)]))
    names = world.blobs.names

    def lazily(container: str, prefix: str) -> Any:
        seen: set[str] = set()
        while new := sorted(set(names(container, prefix)) - seen):
            seen.add(new[0])
            yield new[0]
            assert len(seen) < 5, "it would go on for ever"

    world.blobs.names = lazily  # type: ignore[method-assign]

    assert len(replay(world)) == 1


def test_letters_of_a_topic_without_a_route_are_left_as_they_are() -> None:
    world = mended_world()
    world.settings = settings_of({"topic": "another"})

    with pytest.raises(operate.NotPossibleError, match="no route names the topic flights"):
        replay(world)

    assert world.blobs.marked == {}
