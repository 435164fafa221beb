"""What the sink asks Kafka: what a topic is, where its partitions begin and end, what a range of offsets holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import azure.functions as func


@dataclass(frozen=True, slots=True)
class TopicState:
    """What a topic is now. `id` is another once it was made anew; None from a broker without ids: no comparing."""

    id: str | None
    partitions: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What Kafka said about offsets `[first, end)` of one partition.

    Everything below `next_offset` is settled: it is among `events` (rising offsets, as the trigger delivers them),
    or proven not to exist, or one of the `lost` offsets that retention took. `why` the answer ends there:

    | why              | next_offset | because                                                                |
    |------------------|-------------|------------------------------------------------------------------------|
    | settled          | end         | the whole range is                                                     |
    | not_readable_yet | below end   | the log ends there, or an open transaction does not let us read further |
    | past_end         | first       | the log ends below `first`: the topic was made anew, or truncated      |
    | no_topic         | first       | there is none                                                          |
    | no_partition     | first       | the topic has not that many                                            |
    | budget           | below end   | that were as many records or bytes as were asked for                   |
    | unanswered       | below end   | the time was over                                                      |
    """

    events: list[func.KafkaEvent]
    next_offset: int
    lost: int
    why: str


class KafkaLog(Protocol):
    """Kafka, as far as the sink asks it anything; each call ends within a limit.

    Each raises TransientError where Kafka did not answer, or refused to.
    """

    def topic(self, topic: str) -> TopicState | None:
        """What the topic is now; None if the broker that was asked knows no such topic."""

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's committed offset in each partition that has one."""

    def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The low watermark of each partition that exists."""

    def end_offsets(self, topic: str, partitions: Iterable[int], *, committed_only: bool) -> dict[int, int]:
        """The last stable offset, or the high watermark, of each partition that exists."""

    def offsets_at(self, topic: str, timestamp_ms: int, partitions: Iterable[int]) -> dict[int, int]:
        """The offset of the first record of that time or later; the high watermark where there is none."""

    def read(
        self,
        topic: str,
        asked: Mapping[int, tuple[int, int]],
        *,
        budget_s: float,
        max_records: int,
        max_bytes: int,
    ) -> dict[int, Answer]:
        """What Kafka says about `[first, end)` of each partition asked about, within the budgets.

        Records are taken until one of the two budgets is reached or passed, so that a huge one comes through.
        """
