"""Kafka, two hosts, storage and ADX: what producers send by mistake, a hundred partitions, and a kill of each.

All of it is sent into one stack, because starting one and settling what was killed take their time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from localrunner.demo.kusto import proof
from localrunner.processes import wait_until
from tests.end_to_end.whole import ANSWER_S, Topic, Whole, running

LARGE_BYTES = 30 * 1024 * 1024
HOSTS = 2


@dataclass(frozen=True)
class Odd:
    """A record that somebody may send, and what becomes of it: None for a row, or a dead letter's reason."""

    value: bytes | None
    reason: str | None = None
    key: bytes | None = b"EWR"
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int = 1_357_034_400_120


ODD = {
    "a sound record": Odd(b'{"n": 1}'),
    "no JSON": Odd(b"no JSON", "invalid_json"),
    "half of a record": Odd(b'{"n": 1', "invalid_json"),
    "bytes": Odd(b"\x00\x01\xfe\xff", "invalid_json"),
    "a number": Odd(b"42", "not_an_object"),
    "a hundred thousand brackets": Odd(b"[" * 100_000, "too_deep"),
    "30 MB": Odd(b'{"n": 1, "s": "%b"}' % (b"x" * LARGE_BYTES)),
    "more than 32 MiB": Odd(b'{"s": "%b"}' % (b"x" * (LARGE_BYTES + (1 << 22))), "too_large"),
    "a tombstone": Odd(None, "tombstone"),
    "0 bytes": Odd(b"", "tombstone"),
    "the metadata field": Odd(b'{"_kafka": {"offset": 0}}', "metadata_conflict"),
    "the metadata field, escaped": Odd(b'{"\\u005fkafka": {"offset": 0}}', "metadata_conflict"),
    "an empty object": Odd(b"{}"),
    "several lines": Odd(b'{\r\n  "n": 1\n}\n'),
    "a header without a value": Odd(b'{"n": 1}', headers=(("type", None), ("type", b"order"), ("", b"\xff"))),
    "a key that is no text": Odd(b'{"n": 1}', key=b"\xff\xfe"),
    "no key": Odd(b'{"n": 1}', key=None),
    "no timestamp": Odd(b'{"n": 1}', timestamp=-1),
    "a timestamp before 1970": Odd(b'{"n": 1}', timestamp=-86_400_000),
}


@dataclass
class Sent:
    """The stack at the end, and where the odd records lie in Kafka."""

    whole: Whole
    odd: Topic
    wide: Topic
    long: Topic
    offsets: dict[str, int]

    def row(self, what: str) -> dict[str, Any]:
        """The row that an odd record became."""
        (row,) = self.whole.query(f"{self.odd.table} | where tolong(kafka.offset) == {self.offsets[what]}")
        return row

    def letter(self, what: str) -> dict[str, Any]:
        """The dead letter that an odd record became."""
        where = f"topic == '{self.odd.name}' and offset == {self.offsets[what]}"
        (letter,) = self.whole.query(f"DeadLetters | where {where}")
        return letter


@pytest.fixture(scope="module")
def sent(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """Everything has been sent while everything was killed, and has been settled."""
    name = uuid.uuid4().hex
    odd = Topic(f"odd-{name}", "Odd", 1, tombstones="dead_letter")
    wide = Topic(f"wide-{name}", "Wide", 100)
    long = Topic(f"Orders.EU.{name}.".ljust(249, "Z"), "Long", 4)
    with running(kafka, [odd, wide, long], tmp_path_factory.mktemp("whole"), HOSTS) as whole:
        offsets = {}
        with whole.load(wide, long):
            for what, record in ODD.items():
                offsets[what] = whole.send(
                    odd,
                    0,
                    record.value,
                    key=record.key,
                    headers=list(record.headers),
                    timestamp=record.timestamp,
                )
            wait_until("rows land", lambda: whole.row_count() > 0, ANSWER_S)
            for part in ("worker-0", "azurite", "host-1", "host-0"):
                whole.stack.wait_restarted(part, whole.stack.kill(part), ANSWER_S)
        whole.wait_quiet()
        killed = whole.stack.kill("adx")
        with whole.load(wide, long):
            whole.stack.wait_restarted("adx", killed, ANSWER_S)
        whole.settle()
        yield Sent(whole, odd, wide, long, offsets)


def test_every_offset_is_in_a_table_or_a_dead_letter_exactly_once(sent: Sent) -> None:
    """Two hosts, a worker, the storage and ADX were killed meanwhile."""
    topics = sent.whole.topics
    found = {
        (row["topic"], row["partition"]): (row["offsets"], row["first_offset"], row["last_offset"], row["twice"])
        for row in sent.whole.query(proof([topic.feed for topic in topics]))
    }

    ends = sent.whole.end_offsets()
    assert len(ends) == sum(topic.partitions for topic in topics)
    assert found == {at: (end, 0, end - 1, 0) for at, end in ends.items()}
    assert sum(ends.values()) == sent.whole.sent


@pytest.mark.parametrize("what", [what for what, record in ODD.items() if record.reason])
def test_a_record_that_is_no_row_is_a_dead_letter_with_its_reason(sent: Sent, what: str) -> None:
    assert sent.letter(what)["reason"] == ODD[what].reason


@pytest.mark.parametrize("what", [what for what, record in ODD.items() if not record.reason])
def test_a_record_that_is_odd_and_sound_is_a_row(sent: Sent, what: str) -> None:
    assert sent.row(what)["kafka"]["topic"] == sent.odd.name


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("a sound record", {"key": "EWR", "headers": {}, "timestamp": "2013-01-01T10:00:00.120Z"}),
        ("a header without a value", {"headers": {"type": [None, "order"], "": {"base64": "/w=="}}}),
        ("a key that is no text", {"key": {"base64": "//4="}}),
        ("no key", {"key": None}),
        ("no timestamp", {"timestamp": None}),
        ("a timestamp before 1970", {"timestamp": "1969-12-31T00:00:00.000Z"}),
    ],
)
def test_what_kafka_knows_of_a_record_is_in_its_row(sent: Sent, what: str, expected: dict[str, Any]) -> None:
    kafka = sent.row(what)["kafka"]

    assert {name: kafka[name] for name in expected} == expected
    assert (kafka["partition"], kafka["offset"]) == (0, sent.offsets[what])


def test_a_hundred_partitions_share_blobs(sent: Sent) -> None:
    """Quiet partitions still make decent blobs."""
    (counted,) = sent.whole.query(
        "Wide | summarize records = count(), segments = dcount(tostring(kafka.segment))"
        ", partitions = dcount(toint(kafka.partition))"
    )

    assert counted["partitions"] == 100
    assert counted["records"] > 10 * counted["segments"]


def test_a_topic_of_249_characters_with_dots_and_upper_case_has_its_rows(sent: Sent) -> None:
    assert len(sent.long.name) == 249

    (counted,) = sent.whole.query("Long | summarize topics = make_set(tostring(kafka.topic))")

    assert counted["topics"] == [sent.long.name]
