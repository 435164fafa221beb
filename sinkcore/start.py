"""Where a topic begins: its row, and the position of each partition that has none yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sinkcore.errors import TransientError
from sinkcore.ledger import Ledger
from sinkcore.ledger_rows import Position, TopicRow

if TYPE_CHECKING:
    from sinkcore.gaps import KafkaLog


def start(ledger: Ledger, kafka: KafkaLog, topic: str, rule: str, now_ms: int) -> TopicRow:
    """The topic has its row, which comes before any position: id, partitions and rule of this moment.

    Raises:
        TransientError: Kafka has no such topic, or does not answer.
    """
    found = ledger.topic()
    if found is not None:
        return found
    state = kafka.topic(topic)
    if state is None:
        raise TransientError(f"{topic}: Kafka has no such topic; create it, or check the ACL Describe on it")
    return ledger.start(TopicRow(topic, state.id or "", state.partitions, rule, started_ms=now_ms))


def places(
    kafka: KafkaLog, row: TopicRow, group: str, partitions: Iterable[int], in_hand: Mapping[int, int]
) -> dict[int, Position]:
    """Where each of `partitions`, which have no row, begins; `in_hand` are the first offsets that the host has
    delivered of them. A partition whose beginning is still open is left out.

    | partition                        | begins at                                                  |
    |----------------------------------|------------------------------------------------------------|
    | made after the first start       | its low watermark: it did not exist before                 |
    | rule `earliest`                  | the committed offset or the first in hand, else low        |
    | rule `latest`                    | the committed offset or the first in hand, else open       |
    | rule with a time                 | the first offset at or after that time                     |

    Of a committed offset and one in hand the lower one counts: a host that skips commits what it did not deliver.
    """
    asked = list(partitions)
    new = [p for p in asked if p >= row.partitions]
    old = [p for p in asked if p < row.partitions]
    begin = kafka.first_offsets(row.topic, new) if new else {}
    # A partition that a topic made again does not have any more: what a host still holds of it is taken.
    begin |= {p: in_hand[p] for p in new if p not in begin and p in in_hand}
    if old and row.start in ("earliest", "latest"):
        committed = kafka.committed(group, row.topic)
        begin |= {
            p: min(at for at in (committed.get(p), in_hand.get(p)) if at is not None)
            for p in old
            if p in committed or p in in_hand
        }
        rest = [p for p in old if p not in begin] if row.start == "earliest" else []
        begin |= kafka.first_offsets(row.topic, rest) if rest else {}
    elif old:
        moment = datetime.fromisoformat(row.start)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        begin |= kafka.offsets_at(row.topic, int(moment.timestamp() * 1000), old)
    return {p: Position(p, at, at, row.topic_id) for p, at in begin.items()}
