"""What must hold when a run is over: nothing lost, nothing twice, every segment at an end, every offset accounted for."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.adx import uid_of_letter

if TYPE_CHECKING:
    from tests.simulation.kafka import Produced
    from tests.simulation.world import World

EXEMPT = "the open case: a sparse topic, a skip folded into one list, and a late store that hides it"
FROZEN_AT_PUT = "frozen while the message was on its way"


def check(world: World) -> None:
    """Raises AssertionError with what is wrong."""
    faults = [*_lost_or_twice(world), *_segments(world), *_coverage(world)]
    assert not faults, "; ".join(faults[:6])


def _lost_or_twice(world: World) -> list[str]:
    rows = Counter(uid for uid, _ in {(row.uid, row.message) for row in world.adx.rows})
    letters, refused = _letters(world), _refused_for_good(world)
    faults: list[str] = []
    for record in world.kafka.records:
        if record.kind == "tombstone":
            continue
        found = rows[record.uid] + letters[record.uid]
        if found == 0 and record.uid not in refused and not record.gone and not record.may_be_lost:
            if _is_open_case(world, record):
                world.watch.count(EXEMPT)
                continue
            faults.append(f"LOST record {record.uid}, {record.partition}/{record.offset}")
        if found > 1 and not record.may_be_twice:
            faults.append(f"TWICE record {record.uid}, {record.partition}/{record.offset}: {found} times")
    return _without_doubtful(world, rows, faults)


def _letters(world: World) -> Counter[int]:
    """Dead letters by record; they are never twice, whatever the mode."""
    found = Counter[int]()
    for data in world.memory_blobs.in_container(world.settings.dead_letters_container).values():
        found.update(map(uid_of_letter, gzip.decompress(data).splitlines()))
    return found


def _refused_for_good(world: World) -> set[int]:
    """Records of segments that ADX refused and only a person can help; their blobs are kept."""
    found: set[int] = set()
    for segment in world.segments():
        for blob in segment.blobs:
            if blob.state == "failed" and blob.kind == "rows":
                lines = gzip.decompress(world.memory_blobs.get(blob.container, blob.path)).splitlines()
                found |= {json.loads(line)["uid"] for line in lines}
    return found


def _is_open_case(world: World, record: Produced) -> bool:
    row = world.ledger.topic()
    skipped = (record.partition, record.offset) in world.watch.skips
    return bool(skipped and row and row.sparse and world.watch.open_skip_moved_back and world.watch.met[7])


def _without_doubtful(world: World, rows: Counter[int], faults: list[str]) -> list[str]:
    """Repeats that the mode allows are not faults: each is of a segment that was said to be perhaps repeated."""
    twice = [fault for fault in faults if fault.startswith("TWICE")]
    if not twice or world.delivery == "exactly_once":
        return faults
    allowed = world.watch.perhaps_repeated
    if world.metadata:
        allowed = world.watch.frozen_at_put
    excused = {uid for path in sorted(allowed) for uid in _uids_of(world, path)}
    kept = [fault for fault in faults if not fault.startswith("TWICE") or int(fault.split()[2][:-1]) not in excused]
    if len(kept) < len(faults):
        world.watch.count(FROZEN_AT_PUT if world.metadata else "a segment repeated without metadata")
    return kept


def _uids_of(world: World, path: str) -> set[int]:
    data = world.memory_blobs.blobs.get((world.settings.staging_container, path))
    return set() if data is None else {json.loads(line)["uid"] for line in gzip.decompress(data).splitlines()}


def _segments(world: World) -> list[str]:
    ends = {"landed", "failed", "queued"}
    return [f"segment {each.id} is {each.state}" for each in world.segments() if each.state not in ends]


def _coverage(world: World) -> list[str]:
    """Below a position each offset is in one segment, or counted as lost; none is in two."""
    if {"recreate", "truncate"} & world.theme.happenings.keys():
        return []  # Offsets mean other records there.
    held: Counter[tuple[int, int]] = Counter(
        (each.partition, offset)
        for segment in world.segments()
        for each in segment.ranges
        for offset in range(each.first_offset, each.next_offset)
    )
    held.update(world.watch.lost)
    faults = []
    for partition, position in sorted(world.ledger.positions().items()):
        for offset in range(position.kept_from, position.next_offset):
            times = held[partition, offset]
            if times != 1 and not (times > 1 and (partition, offset) in world.watch.lost):
                faults.append(f"offset {partition}/{offset} is in {times} segments")
    return faults
