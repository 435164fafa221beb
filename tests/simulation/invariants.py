"""What must be true once faults have ended and everybody has had time: the promise, checked record by record."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING

from sinkcore.ledger import Ledger
from sinkcore.unfinished import CLAIM_MARGIN_S
from tests.simulation.adx import Message
from tests.simulation.kafka import GROUP

if TYPE_CHECKING:
    from tests.simulation.world import World


def check(world: World) -> list[str]:
    """What is wrong, a sentence each; nothing if the promise was kept."""
    return [
        *world.witness.faults_found,
        *_lost(world),
        *_twice(world),
        *_accounts(world),
        *_ends(world),
        *_left_behind(world),
    ]


def _lost(world: World) -> list[str]:
    """Every record that can be read, or could be until retention took it, has arrived or was counted."""
    dead = dead_letters(world)
    found = []
    for made in world.broker.written:
        arrived = world.adx.rows[made.id] if made.good else dead[made.id]
        if arrived or made.fate not in ("readable", "retained"):
            continue
        if made.topic_id != world.broker.topic_id or made.offset < world.begins.get(made.partition, 0):
            continue
        counted = any(
            made.topic_id == topic_id and made.partition == partition and first <= made.offset < end
            for topic_id, partition, first, end in world.witness.lost
        )
        if made.fate == "readable" or not counted:
            found.append(f"lost: record {made.id} at {made.partition}/{made.offset}, which is {made.fate}")
    return found


def _twice(world: World) -> list[str]:
    found = []
    for number, count in world.adx.rows.items():
        if count > 1:
            segments = world.adx.landed_of[number]
            made = world.broker.written[number]
            if len(set(segments)) > 1:
                found.append(f"twice: record {number} at {made.partition}/{made.offset} by segments {segments}")
            elif not _is_excused(world, segments[0], count):
                found.append(f"twice: record {number} at {made.partition}/{made.offset}, segment {segments[0]}")
    found += [
        f"twice: record {number} is {count} dead letters"
        for number, count in dead_letters(world).items()
        if count > 1
    ]
    return found


def _is_excused(world: World, segment_id: str, count: int) -> bool:
    """Whether docs/delivery.md, "What can be repeated", allows that the segment's rows are there `count` times."""
    if world.config.delivery == "exactly_once":
        return False
    messages = [m for m in world.adx.messages if m.segment_id == segment_id]
    if any(_is_late(world, message) for message in messages):
        world.faults.met["excused: a message was late"] += 1
        return True
    if world.config.delivery == "metadata":
        return False
    counted = [
        f
        for name, f in world.witness.said
        if name in ("segment_swept", "segment_not_marked") and f["segment"] == segment_id
    ]
    world.faults.met["excused: without metadata"] += 1
    return bool(counted)


def _is_late(world: World, message: Message) -> bool:
    """Sent after its sender had no time left, or ingested later than ADX is waited for."""
    settings = world.settings
    sent_s = (message.sent_ms - message.by.started_ms) / 1000
    took_s = ((message.landed_ms or 0) - message.sent_ms) / 1000
    return (
        sent_s > settings.invocation_max_s + CLAIM_MARGIN_S
        or took_s > world.adx.batching_s + settings.doubt_margin_s
    )


def dead_letters(world: World) -> Counter[int]:
    """How often each record is a dead letter, by its number."""
    found: Counter[int] = Counter()
    for data in world.store.in_container(world.settings.dead_letters_container).values():
        for line in gzip.decompress(data).splitlines():
            headers = dict(json.loads(line)["headers"])
            found[int(base64.b64decode(headers["id"]))] += 1
    return found


def _accounts(world: World) -> list[str]:
    """Every offset between `kept_from` and position is in one segment, in a gap, counted as lost, or holds nothing."""
    if world.broker.past_ids or world.was_cut:
        return []
    ledger = Ledger(world.table, GROUP)
    holds = {(m.partition, m.offset) for m in world.broker.written if m.fate in ("readable", "retained")}
    accounts: Counter[tuple[int, int]] = Counter()
    for segment in ledger.segments():
        for r in segment.ranges:
            accounts.update((r.partition, offset) for offset in range(r.first_offset, r.next_offset))
    for gap in ledger.gaps():
        accounts.update((gap.partition, offset) for offset in range(gap.next_offset, gap.end_offset))
    for _, partition, first, end in world.witness.lost:
        accounts.update((partition, offset) for offset in range(first, end))
    found = []
    for position in ledger.positions().values():
        for offset in range(position.kept_from, position.next_offset):
            count = accounts[position.partition, offset]
            if count > 1 or (count == 0 and (position.partition, offset) in holds):
                found.append(f"offset {position.partition}/{offset} is {count} times in the ledger")
    return found


def _ends(world: World) -> list[str]:
    ledger = Ledger(world.table, GROUP)
    states = {s.id: s.state for s in ledger.segments() if s.state not in ("queued", "landed")}
    found = [f"segment {segment_id} is {state}" for segment_id, state in states.items()]
    return found + [f"segment {o.segment.id} is open" for o in ledger.open_segments()]


def _left_behind(world: World) -> list[str]:
    """A sweeper took over only what somebody could not finish."""
    found = []
    for each in world.witness.commits.values():
        met = world.witness.of(each.by)
        if each.claims and each.by.error is None and met.mars < 2:
            found.append(
                f"segment {each.segment_id} of {each.by.name} was left to {each.claims[0].name} without a reason"
            )
    return found
