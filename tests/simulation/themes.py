"""What a run is about: which faults are likely in it. Each seed has one theme, so that none is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Theme:
    """Probabilities are of one step (`kill`, `freeze`) or one call; `happenings` weigh what the world does."""

    name: str
    skips: bool = False
    latest: bool = False
    start_first: bool = True
    hosts: int = 2
    partitions: int = 2
    kill: float = 0.002
    freeze: float = 0.002
    freeze_ms: tuple[int, int] = (5_000, 900_000)
    clocks_stop: float = 0.3
    skew_ms: int = 0
    refused: float = 0.01
    lost: float = 0.01
    delayed: float = 0.005
    slow: float = 0.005
    queue_refused: float = 0.02
    queue_lost: float = 0.02
    adx_transient: float = 0.0
    adx_bad_data: float = 0.0
    adx_unknown: float = 0.0
    adx_again: float = 0.0
    kafka_refused: float = 0.01
    kafka_silent: float = 0.02
    bad: float = 0.05
    tombstones: float = 0.05
    second_sweeper: float = 0.1
    settings: Mapping[str, str] = field(default_factory=dict)
    happenings: Mapping[str, float] = field(default_factory=dict)


_EVERYDAY = {"kill a worker": 1.0, "kill a host": 0.5, "rebalance": 1.0}
_BASE = Theme("everyday", happenings=_EVERYDAY)


def _theme(name: str, more: Mapping[str, float] | None = None, **changes: object) -> Theme:
    return replace(_BASE, name=name, happenings={**_EVERYDAY, **(more or {})}, **changes)  # type: ignore[arg-type]


THEMES = (
    _BASE,
    _theme("a host that skips", skips=True, kill=0.01, refused=0.05, second_sweeper=0.3),
    _theme("skips, and lists that outlive rebalances", {"rebalance": 8.0}, skips=True, refused=0.08, partitions=3),
    _theme("rebalances", {"rebalance": 8.0}, hosts=3, partitions=4),
    _theme("zombies", freeze=0.012, clocks_stop=0.6, second_sweeper=0.4),
    _theme("zombies of a week", {"a week": 2.0}, freeze=0.01, freeze_ms=(86_400_000, 20 * 86_400_000), hosts=1),
    _theme("deaths", kill=0.02),
    _theme("lost replies", refused=0.04, lost=0.08, delayed=0.05, queue_lost=0.15, slow=0.03),
    _theme("two sweepers", second_sweeper=1.0, slow=0.02, kill=0.006, skips=True, refused=0.05),
    _theme("transactions", {"transaction": 10.0, "abort": 4.0}),
    _theme("transactions, skipping", {"transaction": 10.0, "abort": 4.0}, skips=True, refused=0.05),
    _theme("compaction", {"compact": 6.0}, skips=True, refused=0.04),
    _theme("retention", {"retain": 4.0, "storage out": 1.0}),
    _theme("a topic made again", {"recreate": 1.5, "rebalance": 2.0}),
    _theme("a log cut short", {"truncate": 2.0}),
    _theme("partitions added, Latest", {"add a partition": 2.0}, latest=True),
    _theme("offsets expire, Latest", {"offsets expire": 3.0}, latest=True, settings={"SINK_GAP_MAX_RECORDS": "6"}),
    _theme("offsets expire, Earliest", {"offsets expire": 3.0}),
    _theme("operators reset the group", {"reset backward": 2.0, "reset forward": 2.0}),
    _theme("skips before the first batch", {"kill a worker": 4.0}, skips=True, refused=0.25),
    _theme("ADX down", {"ADX down": 3.0}, queue_refused=0.1, settings={"SINK_PENDING_MAX": "3"}),
    _theme("ADX refuses", {"table missing": 1.5}, adx_transient=0.2, adx_bad_data=0.08),
    _theme("ADX repeats", adx_again=0.1, queue_lost=0.05),
    _theme("storage out", {"storage out": 3.0, "table dropped": 1.0}),
    _theme("storage out, skipping", {"storage out": 3.0, "ADX down": 1.0}, skips=True),
    _theme("clocks an hour apart", skew_ms=3_600_000, kill=0.01, freeze=0.004, second_sweeper=0.3),
)
