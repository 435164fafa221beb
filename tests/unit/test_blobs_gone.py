"""Staged blobs that somebody deleted before ADX had them: read from Kafka again, and nothing of it twice."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
from typing import Any

import pytest

from sinkcore.audit import audit
from sinkcore.errors import OutcomeUnknownError, TransientError
from sinkcore.mend import GONE_MAX
from sinkcore.operate import replay
from sinkcore.resend import replay_dead_letters
from sinkcore.segment import Segment
from sinkcore.unfinished import CLAIM_MARGIN_S
from tests.support.app import PARTITIONS, TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.faults import Steps, Stopped

ROWS = {(0, 0): 1, (0, 2): 1, (1, 0): 1}
BATCH = [Sent(b'{"n":1}', 0), Sent(b"broken", 1), Sent(b'{"n":2}', 2), Sent(b'{"n":3}', 0, 1)]
DOWN = TransientError("ADX is down")


def left_behind(error: Exception = DOWN, route: dict[str, Any] | None = None, **values: str) -> World:
    """A committed segment of two partitions, with a dead letter, whose queueing ended with `error`."""
    world = World(settings_of(route, **values))
    put = world.blobs.put

    def refuses_dead_letters(container: str, path: str, data: bytes) -> None:
        if container == world.settings.dead_letters_container:
            raise TransientError("storage is busy")
        put(container, path, data)

    world.queue.fails_with = error
    world.blobs.put = refuses_dead_letters  # type: ignore[method-assign]
    world.sink().deliver(TOPIC, world.batch(BATCH))
    world.queue.fails_with = None
    world.blobs.put = put  # type: ignore[method-assign]
    return world


def segment_of(world: World) -> Segment:
    (segment,) = world.ledger.segments()
    return segment


def remove(world: World, kind: str = "", container: str = "sink-staging") -> None:
    """Somebody has deleted staged blobs of that kind."""
    for segment in world.ledger.segments():
        for blob in segment.blobs:
            if kind in blob.kind:
                world.blobs.delete(container, blob.path)


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == name]


def each_once(world: World) -> None:
    """Every record is a row or a dead letter once, and accounted for once."""
    assert world.queued_offsets() == ROWS
    assert world.dead_offsets() == {(0, 1): 1}
    assert world.ledger_offsets() == ROWS | {(0, 1): 1}
    assert world.ledger.gaps() == []
    sink = world.sink()
    assert all(found.missing == found.twice == () for found in audit(sink, sink.topic(TOPIC)))


@pytest.mark.parametrize("kind", ["", "rows", "dead_letters"])
def test_a_segment_of_which_adx_has_nothing_becomes_gaps_and_they_are_drained(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = left_behind()
    old = segment_of(world)
    remove(world, kind)

    world.sweep()

    each_once(world)
    assert old.id not in {segment.id for segment in world.ledger.segments()}
    (gone,) = said(caplog, "staged_blobs_gone")
    assert gone["segment"] == old.id
    assert gone["ranges"] == [[0, 0, 3], [1, 0, 1]]
    assert gone["rows_perhaps_repeated"] == 0
    assert len(said(caplog, "gap_repaired")) == 2


def test_its_ranges_are_gaps_in_one_transaction_which_other_moves_do_not_disturb() -> None:
    world = left_behind()
    remove(world)
    world.kafka.silent.add(TOPIC)
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 3)]))

    world.sweep()

    gaps = [(gap.partition, gap.next_offset, gap.end_offset, gap.why) for gap in world.ledger.gaps()]
    assert gaps == [(0, 0, 3, "reopened"), (1, 0, 1, "reopened")]
    assert len(world.ledger.segments()) == 1, "the one that came later"


@pytest.mark.parametrize("has_landed", [True, False])
def test_a_doubtful_segment_is_asked_about_before_it_becomes_gaps(has_landed: bool) -> None:
    world = left_behind(OutcomeUnknownError("lost"))
    if has_landed:
        for blob in segment_of(world).blobs:
            if blob.kind == "rows":
                world.queue.queue(blob, "url", 1.0)
    kept = dict(world.blobs.blobs)
    remove(world, "rows")

    world.sweep_to_the_end()

    if has_landed:
        world.blobs.blobs = kept | world.blobs.blobs
    each_once(world)


def test_without_metadata_what_may_be_repeated_is_said(caplog: pytest.LogCaptureFixture) -> None:
    world = left_behind(OutcomeUnknownError("lost"), {"metadata": None})
    remove(world)

    world.sweep_to_the_end()

    assert len(world.queued_rows()) == 3
    (gone,) = said(caplog, "staged_blobs_gone")
    assert gone["rows_perhaps_repeated"] == 3


def test_rows_that_are_gone_are_made_again_beside_dead_letters_that_are_out_already() -> None:
    """As gaps they would become dead letters a second time."""
    world = World()
    world.queue.fails_with = DOWN
    world.sink().deliver(TOPIC, world.batch(BATCH))
    world.queue.fails_with = None
    assert world.dead_offsets() == {(0, 1): 1}
    remove(world)

    world.sweep()

    each_once(world)
    assert [blob.state for blob in segment_of(world).blobs] == ["mended", "queued", "queued"]


def test_dead_letters_that_are_out_without_a_word_in_the_ledger_are_not_written_again() -> None:
    """Their writer died before the mark: the simulation found them twice, under the name of a second segment."""
    world = left_behind()
    (letters,) = (blob for blob in segment_of(world).blobs if blob.kind == "dead_letters")
    data = world.blobs.get(letters.container, letters.path)
    world.blobs.put("sink-dead-letters", world.dead_letters_path(segment_of(world).id), data)
    remove(world, "rows")

    for _ in range(4):
        world.sweep_late()

    each_once(world)


def test_dead_letters_that_are_gone_but_for_the_users_own_are_there() -> None:
    """Whoever died between writing and marking them left them in doubt."""
    world = left_behind()
    world.blobs.put(
        "sink-dead-letters",
        world.dead_letters_path(segment_of(world).id),
        world.blobs.get("sink-staging", segment_of(world).blobs[1].path),
    )
    for blob in segment_of(world).blobs:
        if blob.kind == "rows":
            (opened,) = world.ledger.open_segments()
            world.queue.queue(blob, "url", 1.0)
            world.ledger.note(opened, opened.segment.with_blob_states({blob.path: "queued"}))
    remove(world, "dead_letters")

    world.sweep()

    each_once(world)


def test_dead_letters_that_are_gone_while_adx_has_the_rows_are_for_a_person(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = left_behind()
    (opened,) = world.ledger.open_segments()
    rows = opened.segment.blobs[0]
    world.queue.queue(rows, "url", 1.0)
    world.ledger.note(opened, opened.segment.with_blob_states({rows.path: "queued"}))
    remove(world, "dead_letters")

    for _ in range(3):
        world.sweep()

    assert world.queued_offsets() == ROWS
    assert segment_of(world).state == "failed"
    (told,) = said(caplog, "blob_not_mended")
    assert "its dead letters are gone" in told["error"]


def test_of_two_blobs_for_one_table_of_which_adx_has_one_nothing_is_guessed() -> None:
    """Which records are in it is not recorded: as gaps some would be there twice."""
    world = World(settings_of(SINK_BLOB_MAX_BYTES="1024", SINK_RECORD_MAX_BYTES="1024"))
    world.queue.fails_with = DOWN
    records = [Sent(json.dumps({"n": n, "text": "x" * 500}).encode(), n) for n in range(2)]
    world.sink().deliver(TOPIC, world.batch(records))
    world.queue.fails_with = None
    (opened,) = world.ledger.open_segments()
    first, second = opened.segment.blobs
    world.queue.queue(first, "url", 1.0)
    world.ledger.note(opened, opened.segment.with_blob_states({first.path: "queued"}))
    world.blobs.delete(second.container, second.path)

    for _ in range(3):
        world.sweep()

    assert [blob.state for blob in segment_of(world).blobs] == ["queued", "failed"]
    assert len(world.queue.queued) == 1


def test_what_is_not_gone_is_queued_though_a_person_must_help_the_rest() -> None:
    world = left_behind()
    (opened,) = world.ledger.open_segments()
    letters = opened.segment.blobs[1]
    world.ledger.note(opened, opened.segment.with_blob_states({letters.path: "failed"}))

    for _ in range(3):
        world.sweep()

    assert world.queued_offsets() == ROWS
    assert segment_of(world).state == "failed"
    assert list(world.ledger.open_segments()) == []


@pytest.mark.parametrize("has_it", [True, False])
def test_with_ingest_by_tags_adx_itself_says_whether_it_has_what_is_gone(has_it: bool) -> None:
    """A new blob has a new tag, so that one made again too soon would be there twice."""
    world = left_behind(OutcomeUnknownError("lost"), SINK_DELIVERY="exactly_once")
    sent: list[str] = []

    def answers(blob: Any) -> str | None:
        sent.append(blob.path)
        if len(sent) > 1:
            return None
        return "Skipped_IngestByTagAlreadyExists" if has_it else "Download_SourceNotFound"

    world.landed.refusal = answers
    remove(world, "rows")
    world.clock.advance(world.settings.invocation_max_s + CLAIM_MARGIN_S + 1)

    for _ in range(4):
        world.sweep_late()

    assert len(sent) == (1 if has_it else 2)
    assert [blob.state for blob in segment_of(world).blobs][:2] == (
        ["queued"] * 2 if has_it else ["mended", "queued"]
    )
    assert world.dead_offsets() == {(0, 1): 1}


def test_a_replay_becomes_a_replay_again() -> None:
    """The audit knows a replay from what is there twice."""
    world = World()
    sink = world.sink()
    sink.deliver(TOPIC, world.batch(BATCH))
    replay(sink, sink.topic(TOPIC), 0, 0, 1)
    world.queue.fails_with = DOWN
    world.sweep()
    world.queue.fails_with = None
    (again,) = [segment for segment in world.ledger.segments() if segment.replay]
    world.blobs.delete(again.blobs[0].container, again.blobs[0].path)
    world.kafka.silent.add(TOPIC)

    world.sweep()
    assert [gap.why for gap in world.ledger.gaps()] == ["replay"]
    world.kafka.silent.clear()
    world.sweep()

    assert world.queued_offsets() == ROWS | {(0, 0): 2}
    assert all(found.twice == () for found in audit(sink, sink.topic(TOPIC)))


def test_dead_letters_that_were_sent_again_are_for_a_person(caplog: pytest.LogCaptureFixture) -> None:
    """No range of Kafka stands for them."""
    world = World()
    sink = world.sink()
    world.kafka.hold(TOPIC, BATCH)
    sink.deliver(TOPIC, world.batch([Sent(b"[1]", 4)]))
    (path,) = world.blobs.in_container("sink-dead-letters")
    letters = gzip.decompress(world.blobs.get("sink-dead-letters", path)).replace(b"WzFd", b"e30=")
    world.blobs.blobs["sink-dead-letters", path] = gzip.compress(letters)
    world.queue.fails_with = DOWN
    assert list(replay_dead_letters(sink, TOPIC)) == [(path, 1, 0)]
    world.queue.fails_with = None
    remove(world)

    for _ in range(2):
        world.sweep()

    assert [s.state for s in world.ledger.segments() if not s.ranges] == ["failed"]
    (told,) = said(caplog, "blob_not_mended")
    assert "of its 1 records Kafka has 0" in told["error"]


def test_a_segment_of_a_topic_that_is_no_more_is_not_read_from_the_new_one() -> None:
    """The same offsets hold other records there."""
    world = World()
    world.queue.fails_with = DOWN
    world.sink().deliver(TOPIC, world.batch([Sent(b"{}", 0), Sent(b"{}", 1)]))
    old = segment_of(world)
    world.kafka.create(TOPIC, PARTITIONS)
    world.kafka.hold(TOPIC, [Sent(b'{"new":1}', n) for n in range(5)])
    world.queue.fails_with = DOWN
    world.sweep()
    world.queue.fails_with = None
    remove(world)

    for _ in range(4):
        world.sweep()

    assert [s.state for s in world.ledger.segments() if s.id == old.id] == ["failed"]
    assert world.queued_offsets() == {(0, n): 1 for n in range(5)}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("out", [False, True], ids=["nothing is out", "dead letters are out"])
def test_a_sweeper_that_dies_at_any_step_of_it_is_followed_by_one_that_ends_it(out: bool, after: bool) -> None:
    for step in itertools.count(1):
        world = World() if out else left_behind()
        if out:
            world.queue.fails_with = DOWN
            world.sink().deliver(TOPIC, world.batch(BATCH))
            world.queue.fails_with = None
        remove(world)
        try:
            world.stepped_sweep(Steps(step, after))
        except Stopped:
            for _ in range(2):
                world.sweep_to_the_end()
            each_once(world)
            assert list(world.ledger.open_segments()) == []
        else:
            assert step > 20
            return


def test_blobs_that_go_again_and_again_are_made_again_a_few_times_only(caplog: pytest.LogCaptureFixture) -> None:
    """A rule of the storage account that deletes at once must not cost a blob a sweep for ever."""
    world = World()
    world.sink().deliver(TOPIC, world.batch(BATCH))
    world.landed.refusal = lambda _: "Download_SourceNotFound"

    for _ in range(3 * GONE_MAX):
        world.sweep_late()

    assert segment_of(world).state == "failed"
    assert len(world.queue.queued) == 1 + GONE_MAX
    assert world.dead_offsets() == {(0, 1): 1}, "nothing is taken for bad data"
    assert "blobs of it are gone, one after the other" in said(caplog, "blob_not_mended")[0]["error"]
