"""What follows when ADX refuses what it had accepted: nothing is lost, nothing twice, and nobody has to help."""

from __future__ import annotations

import base64
import json
import logging
from collections import Counter
from typing import Any

import pytest

from sinkcore.errors import TransientError
from sinkcore.failures import HIDDEN_S, FailedIngestion
from sinkcore.refusals import ALREADY_TAKEN, ANOTHER_TRY, DATA, MESSAGES_MAX, RETRIES_MAX, SET_UP, state_after
from sinkcore.segment import ERROR_MAX_CHARS, Blob, Segment
from tests.support.app import TOPIC, World, settings_of
from tests.support.events import Sent
from tests.support.kafka import Log

# Offsets 0, 1 and 4 are rows, 2 is a dead letter by itself, 3 a tombstone.
BATCH = [Sent(b'{"n":0}', 0), Sent(b'{"n":1}', 1), Sent(b"broken", 2), Sent(b"", 3), Sent(b'{"n":4}', 4)]
ROWS = dict.fromkeys([(0, 0), (0, 1), (0, 4)], 1)
LETTER = {(0, 2): 1}


def a_world(route: dict[str, Any] | None = None, **values: str) -> World:
    """A batch has been delivered."""
    world = World(settings_of(route, **values))
    world.sink().deliver(TOPIC, world.batch(BATCH))
    return world


def refuse(world: World, code: str, times: int = 10**6, **more: Any) -> None:
    """ADX refuses the next blobs that it is sent."""
    left = [times]

    def refusal(blob: Blob) -> str | None:
        left[0] -= 1
        return code if left[0] >= 0 else None

    world.landed.refusal, world.landed.refusal_more = refusal, more


def sweep_late(world: World, times: int = 1) -> None:
    for _ in range(times):
        world.sweep_late()


def the_segment(world: World) -> Segment:
    (segment,) = world.ledger.segments()
    return segment


def blob_states(world: World) -> list[str]:
    return [blob.state for blob in the_segment(world).blobs]


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [r.__dict__["facts"] for r in caplog.records if r.__dict__.get("event") == name]


def all_is_well(world: World, letters: dict[tuple[int, int], int] = LETTER) -> None:
    """Each record is a row once or a dead letter once, and everything has come to its end."""
    assert world.landed_offsets() + world.dead_offsets() == Counter(ROWS) + Counter(LETTER)
    assert world.dead_offsets() == letters
    assert {segment.state for segment in world.ledger.segments()} == {"landed"}
    assert list(world.ledger.open_segments()) == []
    assert world.failures.messages == {}


def test_a_missing_table_fails_the_segment_and_it_lands_once_the_table_is_there() -> None:
    world = a_world()
    world.landed.lacking = {"Flights"}
    sweep_late(world, 3)
    segment = the_segment(world)
    assert (segment.state, segment.blobs[0].error) == ("failed", "BadRequest_TableNotExist")
    assert len(world.queue.queued) == 1, "it is not queued for as long as the table is missing"

    world.landed.lacking = set()
    sweep_late(world, 2)

    all_is_well(world)


def test_without_metadata_likewise() -> None:
    """Nobody can be asked about rows, but whether the table is there."""
    world = a_world({"metadata": None})
    world.landed.lacking = {"Flights"}
    sweep_late(world, 4)
    assert (the_segment(world).state, len(world.queue.queued)) == ("failed", 1)

    world.landed.lacking = set()
    sweep_late(world, 2)

    assert (the_segment(world).state, len(world.landed.landed)) == ("queued", 1)
    assert list(world.ledger.open_segments()) == []


def test_a_missing_mapping_likewise() -> None:
    world = a_world({"mapping": "M"})
    world.landed.lacking = {"M"}
    sweep_late(world, 3)
    assert the_segment(world).state == "failed"

    world.landed.lacking = set()
    sweep_late(world, 2)

    all_is_well(world)


def test_where_only_a_right_is_missing_it_is_tried_less_and_less_often_and_without_end() -> None:
    """Whether ADX may is known to ADX alone: the table is there."""
    world = a_world()
    refuse(world, "Forbidden")
    for _ in range(6 * 60):
        world.clock.advance(60)
        world.sweep()

    tries = len(world.queue.queued)
    assert 8 <= tries <= 20, "within 6 hours"
    refuse(world, "Forbidden", times=0)
    sweep_late(world, 2)
    all_is_well(world)


def test_what_adx_says_to_try_again_is_queued_again_after_a_rest() -> None:
    world = a_world(SINK_DOUBT_MARGIN_S="0")
    world.landed.batching = 10
    refuse(world, "General_InternalServerError", times=2, FailureStatus="Transient", ShouldRetry=True)
    world.clock.advance(10)
    world.sweep()
    assert blob_states(world) == ["again", "queued"]
    assert the_segment(world).state == "staged"
    world.clock.advance(60)
    world.sweep()
    assert len(world.queue.queued) == 1
    world.clock.advance(1)
    world.sweep()
    assert len(world.queue.queued) == 2
    world.clock.advance(30)
    world.sweep()
    world.clock.advance(119)
    world.sweep()
    assert len(world.queue.queued) == 2, "the second rest is twice as long"
    world.clock.advance(2)
    world.sweep()
    assert len(world.queue.queued) == 3

    sweep_late(world, 2)

    all_is_well(world)


def test_after_so_many_tries_it_is_failed_and_its_blob_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world()
    refuse(world, "Download_Forbidden")
    sweep_late(world, 3 * (RETRIES_MAX + 2))

    assert len(world.queue.queued) == RETRIES_MAX + 1
    assert (the_segment(world).state, blob_states(world)) == ("failed", ["failed", "queued"])
    assert list(world.ledger.open_segments()) == []
    assert said(caplog, "ingestion_failed")[-1]["now"] == "failed"
    world.clock.advance(30 * 24 * 3600)
    world.sweep()
    assert (the_segment(world).blobs[0].container, the_segment(world).blobs[0].path) in world.blobs.blobs


def test_a_code_that_nobody_knows_is_for_a_person(caplog: pytest.LogCaptureFixture) -> None:
    """Dead letters out of good data, or tries without end, would be worse than to ask."""
    world = a_world()
    refuse(world, "BadRequest_SomethingNew")
    sweep_late(world, 2)

    assert the_segment(world).state == "failed"
    assert len(world.queue.queued) == 1
    (line,) = [r for r in caplog.records if r.__dict__.get("event") == "ingestion_failed"]
    assert line.levelno == logging.ERROR


@pytest.mark.parametrize("code", sorted(ALREADY_TAKEN))
def test_that_adx_has_a_blob_already_is_no_failure(code: str) -> None:
    """It says so of the second message for one blob; the first one's rows are there."""
    world = a_world()
    world.landed.ingest()
    (_, url), *_ = world.queue.queued
    world.failures.report(url, code)
    sweep_late(world)
    sweep_late(world)

    all_is_well(world)


def test_broken_data_is_read_from_kafka_again_and_queued_as_a_new_blob() -> None:
    """What was staged may have been damaged; the records are still in Kafka."""
    world = a_world()
    refuse(world, "BadRequest_InvalidBlob", times=1)
    sweep_late(world)
    assert blob_states(world) == ["mended", "queued", "queued"]
    sweep_late(world)

    all_is_well(world)
    assert the_segment(world).dead_letters == 1


def test_a_segment_whose_log_was_cut_short_inside_it_is_failed_instead_of_being_asked_for_without_end() -> None:
    """At the offsets that are gone Kafka answers "not yet", and what comes there later is not what was there."""
    world = World()
    world.sink().deliver(TOPIC, world.batch(Sent(b'{"n":%d}' % n, n) for n in range(4)))
    refuse(world, "BadRequest_InvalidBlob", times=1)
    world.kafka.topics[TOPIC][0].end = 2
    sweep_late(world, 2)

    assert the_segment(world).state == "failed"
    assert blob_states(world) == ["failed"]
    assert list(world.ledger.open_segments()) == []


def test_data_that_is_refused_twice_becomes_dead_letters_once(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world()
    refuse(world, "BadRequest_InvalidBlob")
    sweep_late(world, 4)

    assert world.landed_offsets() == {}
    assert world.dead_offsets() == dict.fromkeys([(0, 0), (0, 1), (0, 2), (0, 4)], 1)
    letters = {letter["offset"]: letter for letter in world.dead_letters()}
    assert {n: letters[n]["reason"] for n in letters} == {
        0: "refused_by_adx",
        1: "refused_by_adx",
        2: "invalid_json",
        4: "refused_by_adx",
    }
    assert letters[4]["detail"] == "BadRequest_InvalidBlob"
    assert letters[4]["value"] == b'{"n":4}'
    segment = the_segment(world)
    assert (segment.dead_letters, segment.state) == (4, "queued")
    assert list(world.ledger.open_segments()) == []
    assert len(world.queue.queued) == 2


def test_a_record_that_the_check_refuses_this_time_is_a_dead_letter_and_the_rest_is_rows() -> None:
    """The app's limits, or the app, may be others than when the record was first taken."""
    world = World()
    world.sink().deliver(TOPIC, world.batch([Sent(b'{"n":0}', 0), Sent(b'{"n":1,"x":"long"}', 1)]))
    refuse(world, "Stream_InputStreamTooLarge", times=1)
    world.settings = settings_of(SINK_RECORD_MAX_BYTES="10")
    sweep_late(world, 2)

    assert world.landed_offsets() == {(0, 0): 1}
    assert [(d["offset"], d["reason"]) for d in world.dead_letters()] == [(1, "too_large")]
    assert the_segment(world).state == "landed"


def test_what_was_a_dead_letter_stays_one_even_if_it_would_pass_now() -> None:
    """It is in the users' hands: as a row it would be there twice."""
    world = World(settings_of(SINK_RECORD_MAX_BYTES="10"))
    world.sink().deliver(TOPIC, world.batch([Sent(b'{"n":0}', 0), Sent(b'{"n":1,"x":"long"}', 1)]))
    refuse(world, "BadRequest_InvalidBlob", times=1)
    world.settings = settings_of()
    sweep_late(world, 2)

    assert world.landed_offsets() == {(0, 0): 1}
    assert world.dead_offsets() == {(0, 1): 1}


def test_a_code_fits_the_row_of_a_segment_with_as_many_blobs_as_fit_it() -> None:
    """Otherwise the ledger could never hold what ADX said."""
    world = World(settings_of(SINK_BLOB_MAX_BYTES="1024", SINK_RECORD_MAX_BYTES="1024"))
    big = [Sent(json.dumps({"n": n, "x": "y" * 600}).encode(), n) for n in range(90)]
    world.sink().deliver(TOPIC, world.batch(big))
    refuse(world, "X" * 100)
    sweep_late(world)

    errors = {blob.error for segment in world.ledger.segments() for blob in segment.blobs}
    assert errors == {"X" * ERROR_MAX_CHARS}


def lose_to_retention(world: World, log: Log) -> None:
    log.retain_from(1)


def lose_to_compaction(world: World, log: Log) -> None:
    del log.records[1]


def recreate(world: World, log: Log) -> None:
    world.kafka.create(TOPIC, 1)
    for n in range(5):
        world.kafka.topics[TOPIC][0].append(b'{"n":%d}' % (n + 100), 0)


def drop(world: World, log: Log) -> None:
    del world.kafka.topics[TOPIC]


@pytest.mark.parametrize("what", [lose_to_retention, lose_to_compaction, recreate, drop])
def test_where_kafka_has_not_all_of_its_records_the_blob_itself_is_kept(
    what: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Another topic of the same name has other records at the same offsets."""
    world = a_world()
    refuse(world, "BadRequest_InvalidBlob")
    what(world, world.kafka.topics[TOPIC][0])
    sweep_late(world, 3)

    old = min(world.ledger.segments(), key=lambda segment: segment.id)
    assert (old.state, [blob.state for blob in old.blobs]) == ("failed", ["failed", "queued"])
    assert world.dead_offsets()[0, 2] == 1
    assert [fact["for_good"] for fact in said(caplog, "blob_not_mended")][:1] == [True]
    world.clock.advance(30 * 24 * 3600)
    world.sweep()
    assert (old.blobs[0].container, old.blobs[0].path) in world.blobs.blobs


def test_while_kafka_does_not_answer_a_refused_blob_waits(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world()
    refuse(world, "BadRequest_InvalidBlob", times=1)
    world.kafka.silent = {TOPIC}
    sweep_late(world, 2)
    assert blob_states(world) == ["refused", "queued"]
    world.kafka.silent = set()
    world.kafka.fails_with = TransientError("Kafka is down")
    sweep_late(world)
    world.kafka.fails_with = None
    sweep_late(world, 2)

    all_is_well(world)
    assert [fact["for_good"] for fact in said(caplog, "blob_not_mended")] == [False] * 3


def test_of_several_bodies_for_one_table_none_is_guessed_at(caplog: pytest.LogCaptureFixture) -> None:
    """Which records were in which body depends on settings of that day."""
    world = World(settings_of(SINK_BLOB_MAX_BYTES="1024", SINK_RECORD_MAX_BYTES="1024"))
    big = [Sent(json.dumps({"n": n, "x": "y" * 600}).encode(), n) for n in range(3)]
    world.sink().deliver(TOPIC, world.batch(big))
    assert len(the_segment(world).blobs) == 3
    refuse(world, "BadRequest_InvalidBlob", times=1)
    sweep_late(world, 2)

    assert (the_segment(world).state, blob_states(world)) == ("failed", ["failed", "queued", "queued"])
    assert world.landed_offsets() == {(0, 1): 1, (0, 2): 1}
    assert "other blobs" in said(caplog, "blob_not_mended")[0]["error"]


def test_an_app_that_makes_no_dead_letters_makes_none_here() -> None:
    world = World(settings_of(SINK_ON_BAD_RECORD="fail"))
    world.sink().deliver(TOPIC, world.batch([Sent(b'{"n":0}', 0)]))
    refuse(world, "BadRequest_InvalidBlob")
    sweep_late(world, 4)

    assert world.dead_letters() == []
    assert (the_segment(world).state, blob_states(world)) == ("failed", ["mended", "failed"])


def test_a_topic_that_is_no_longer_routed_ends_with_its_blob_kept() -> None:
    world = a_world()
    refuse(world, "BadRequest_InvalidBlob")
    world.settings = settings_of({"table": "Elsewhere"})
    sweep_late(world, 2)

    assert (the_segment(world).state, blob_states(world)) == ("failed", ["failed", "queued"])


def test_a_refusal_that_comes_while_the_rest_of_the_segment_is_being_queued_does_not_make_it_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The invocation is still at it, and nobody else may be, whatever ADX says of another blob meanwhile.

    Of two blobs of one table that are in doubt, one of which landed, nobody can tell which: it waits for a person.
    """
    world = World(settings_of(SINK_BLOB_MAX_BYTES="1024", SINK_RECORD_MAX_BYTES="1024"))
    big = [Sent(json.dumps({"n": n, "x": "y" * 600}).encode(), n) for n in range(2)]
    queue = world.queue.queue
    world.landed.batching = 0
    refuse(world, "General_InternalServerError", times=1, ShouldRetry=True)

    def slowly(blob: Blob, url: str, timeout_s: float) -> None:
        for _ in range(2 if world.queue.queued else 0):
            world.sweep()
            world.clock.advance(61)
        world.sweep()
        queue(blob, url, timeout_s)

    world.queue.queue = slowly  # type: ignore[method-assign]
    world.sink().deliver(TOPIC, world.batch(big))
    world.queue.queue = queue  # type: ignore[method-assign]
    assert the_segment(world).blobs[0].state == "again"
    sweep_late(world, 4)

    assert world.landed_offsets() == {(0, 1): 1}
    assert said(caplog, "segment_in_doubt")[-1]["rows_found"] == 1
    assert len(list(world.ledger.open_segments())) == 1


def test_without_metadata_what_adx_refused_is_queued_again_as_it_says() -> None:
    """Nobody can be asked, and ADX said that it has none of it."""
    world = a_world({"metadata": None})
    refuse(world, "General_InternalServerError", times=1, ShouldRetry=True)
    assert the_segment(world).state == "queued"
    assert list(world.ledger.open_segments()) == []
    sweep_late(world, 3)

    assert len(world.queue.queued) == 2
    assert len(world.landed.landed) == 1
    assert the_segment(world).state == "queued"
    assert list(world.ledger.open_segments()) == []


def test_with_ingest_by_tags_nothing_is_asked_before_it_is_queued_again() -> None:
    world = a_world(SINK_DELIVERY="exactly_once", SINK_CONFIRM="none")
    refuse(world, "General_InternalServerError", times=1, ShouldRetry=True)
    world.landed.fails_with = AssertionError("asked")
    sweep_late(world, 3)

    assert len(world.landed.landed) == 1


def test_a_refusal_of_what_has_landed_after_all_repeats_nothing() -> None:
    """ADX can report on one of two messages for a blob, and ingest the other."""
    world = a_world()
    world.landed.ingest()
    (_, url), *_ = world.queue.queued
    world.failures.report(url, "General_InternalServerError", ShouldRetry=True)
    sweep_late(world, 3)

    all_is_well(world)
    assert len(world.queue.queued) == 1


@pytest.mark.parametrize("code", ["General_InternalServerError", "BadRequest_InvalidBlob"])
def test_a_refusal_that_comes_after_the_rows_were_seen_changes_nothing(code: str) -> None:
    world = a_world()
    sweep_late(world)
    assert the_segment(world).state == "landed"
    (_, url), *_ = world.queue.queued
    world.failures.report(url, code, ShouldRetry=True)
    sweep_late(world, 2)

    all_is_well(world)
    assert len(world.queue.queued) == 1


@pytest.mark.parametrize(
    "code", ["General_InternalServerError", "BadRequest_InvalidBlob", "BadRequest_TableNotExist"]
)
def test_a_message_that_comes_twice_counts_once(code: str) -> None:
    world = a_world()
    refuse(world, code, times=1, ShouldRetry=code.startswith("General"))
    world.clock.advance(world.landed.batching)
    world.landed.ingest()
    ((text, _),) = world.failures.messages.values()
    world.failures.put(text)
    world.sweep()
    assert the_segment(world).blobs[0].failures == 1
    sweep_late(world)
    world.failures.put(text)
    sweep_late(world, 4)

    all_is_well(world)


def test_foreign_and_malformed_messages_stay_in_the_queue() -> None:
    """The queue belongs to the cluster: everybody who queues blobs finds the answers there."""
    world = a_world()
    _, url = world.queue.queued[0]
    ours = url.partition("?")[0]
    for other in (
        "https://somebody.blob.core.windows.net/container/file.csv",
        ours.replace("sink-staging", "another-container"),
        ours.replace("memory://", "memory://another-account/"),
        ours.replace("/0.json.gz", "/1.json.gz"),
        ours.replace(the_segment(world).id, "0" * 32),
        ours.replace("flights/", "trains/"),
        "",
    ):
        world.failures.report(other, "BadRequest_InvalidBlob")
    for text in ("no base64!", base64.b64encode(b"no JSON").decode(), base64.b64encode(b"[1]").decode(), ""):
        world.failures.put(text)
    before = {number: text for number, (text, _) in world.failures.messages.items()}
    sweep_late(world, 3)

    assert {number: text for number, (text, _) in world.failures.messages.items()} == before
    assert the_segment(world).state == "landed"


def test_a_message_is_ours_by_its_blobs_address_however_it_is_written() -> None:
    """With a SAS, an identity, or percent signs."""
    for suffix in ("?sv=1&sig=abc", ";managed_identity=system", ""):
        topic = "a.topic.."
        world = World(settings_of({"topic": topic}))
        world.sink().deliver(topic, world.batch([Sent(b"{}", 0)], topic))
        (_, url), *_ = world.queue.queued
        world.failures.report(
            "x", "Forbidden", IngestionSourcePath=url.partition("?")[0].replace("=", "%3D") + suffix
        )
        world.sweep()

        assert world.failures.messages == {}


def test_a_queue_that_is_full_of_others_messages_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """Ours are behind them, and found late or never."""
    world = a_world()
    for _ in range(MESSAGES_MAX + 10):
        world.failures.report("https://somebody.blob.core.windows.net/c/b", "BadRequest_InvalidBlob")
    world.sweep()

    assert said(caplog, "failures_queue_crowded") == [{"received": MESSAGES_MAX, "owned": 0}]
    hidden = [at_ms for _, at_ms in world.failures.messages.values() if at_ms > world.clock.ms]
    assert len(hidden) == MESSAGES_MAX
    assert max(hidden) == world.clock.ms + HIDDEN_S * 1000


def test_a_failures_queue_that_does_not_answer_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    world = a_world()
    world.failures.fails_with = TransientError("ADX failures queue: 503")
    sweep_late(world)

    assert the_segment(world).state == "landed"
    assert len(said(caplog, "failures_not_read")) == 1


def test_what_adx_says_in_words_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    """Details can quote a record."""
    caplog.set_level(logging.DEBUG)
    world = a_world()
    refuse(world, "BadRequest_InvalidBlob", times=1)
    sweep_late(world, 2)

    (facts,) = said(caplog, "ingestion_failed")
    assert set(facts) == {
        *("topic", "segment", "db", "table", "code", "status", "should_retry", "failures", "now"),
    }
    everything = " ".join(f"{r.getMessage()} {r.__dict__}" for r in caplog.records)
    assert "VERY-PRIVATE" not in everything
    assert "secret" not in everything


def test_no_code_means_two_things() -> None:
    """Every code is on Microsoft's page, and on one list at the most."""
    lists = [ALREADY_TAKEN, SET_UP, DATA, ANOTHER_TRY]
    assert sum(map(len, lists)) == len(set().union(*lists))
    blob = Blob("rows", "c", "p", 1, 1, 1)
    permanent = [state_after(FailedIngestion("", code, "Permanent", False, None), blob) for code in sorted(SET_UP)]
    assert set(permanent) == {"set_up"}


def test_failed_segments_do_not_hold_kafka_back_and_waiting_ones_do() -> None:
    """SINK_PENDING_MAX counts what ADX has yet to take: not what it has, nor what nobody can give it."""
    for code, pending in (("BadRequest_TableNotExist", 1), ("BadRequest_SomethingNew", 0), (None, 0)):
        world = a_world()
        if code:
            refuse(world, code)
        world.landed.lacking = {"M"} if code else set()
        world.clock.advance(world.landed.batching)
        world.sweep()
        row = world.ledger.topic()
        assert row is not None
        assert row.pending == pending, code
