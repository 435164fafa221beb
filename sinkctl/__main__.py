"""`python -m sinkctl VERB`: what only a person can decide. Settings come from the environment or a file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sinkcore import audit as audits
from sinkcore import operate
from sinkcore.errors import ConfigError, SinkError
from sinkcore.settings import read_settings
from sinkcore.sink import Sink

Verb = Callable[[Sink, argparse.Namespace], int]
EXIT_FAULTS = 2


def start(sink: Sink, asked: argparse.Namespace) -> int:
    """Give every partition its position, by the route's `start`: a step of the deployment."""
    for name in asked.topic or sink.settings.topics:
        for partition, position in sorted(operate.start_topic(sink, name, asked.from_group).items()):
            print(f"{name} {partition} begins at {position.next_offset}")
    return 0


def gaps(sink: Sink, asked: argparse.Namespace) -> int:
    """List what waits to be read from Kafka again."""
    for name in asked.topic or sink.settings.topics:
        for gap in sink.topic(name).ledger.gaps():
            held = " held" if gap.held else ""
            left = gap.end_offset - gap.next_offset
            print(
                f"{name} {gap.partition} {gap.next_offset} to {gap.end_offset} ({left}) {gap.why}{held} {gap.key}"
            )
    return 0


def release(sink: Sink, asked: argparse.Namespace) -> int:
    """Let a held gap be drained."""
    gap = operate.release(sink.topic(asked.topic), asked.gap)
    print(f"{asked.topic} {gap.partition}: {gap.end_offset - gap.next_offset} offsets will be drained")
    return 0


def skip(sink: Sink, asked: argparse.Namespace) -> int:
    """Give up a gap, or everything of a partition below an offset."""
    topic = sink.topic(asked.topic)
    if asked.gap:
        gap = operate.skip_gap(topic, asked.gap)
        print(f"{asked.topic} {gap.partition}: {gap.next_offset} to {gap.end_offset} are given up")
    else:
        position = operate.skip_to(sink, topic, asked.partition, asked.to)
        print(f"{asked.topic} {asked.partition}: goes on at {asked.to}, was at {position.next_offset}")
    return 0


def replay(sink: Sink, asked: argparse.Namespace) -> int:
    """Take a range of offsets once more, or send dead letters again by today's routes."""
    if asked.dead_letters is not None:
        for path, records, refused in operate.replay_dead_letters(sink, asked.dead_letters):
            print(f"{path}: {records} records sent again, {refused} of them refused again")
        return 0
    gap = operate.replay(sink, sink.topic(asked.topic), asked.partition, asked.first, asked.to)
    print(f"{asked.topic} {gap.partition}: {gap.next_offset} to {gap.end_offset} will be taken once more")
    return 0


def retry(sink: Sink, asked: argparse.Namespace) -> int:
    """Try failed segments again: one, or all of a topic."""
    segments = operate.retry(sink.topic(asked.topic), asked.segment)
    for segment in segments:
        print(f"{asked.topic}: segment {segment.id} with {segment.records} records is tried again")
    if not segments:
        print(f"{asked.topic}: no failed segment is left to you")
    return 0


def audit(sink: Sink, asked: argparse.Namespace) -> int:
    """Check that every offset is in one segment or gap, and ask Kafka about the rest; exit 1 if it is not well."""
    faults = 0
    for name in asked.topic or sink.settings.topics:
        for found in audits.audit(sink, sink.topic(name), _progress):
            print(f"{name} {found.partition}: {found.kept_from} to {found.next_offset}, {found.in_gaps} in gaps")
            for what in ("missing", "twice", "unchecked", "gone"):
                for offsets in getattr(found, what):
                    faults += what != "gone"
                    print(
                        f"{name} {found.partition}: {what.upper()} {offsets.first_offset} to {offsets.next_offset}"
                    )
    return 1 if faults else 0


def _progress(asked: int, whole: int) -> None:
    print(f"asked Kafka about {asked} of {whole} offsets", file=sys.stderr)


VERBS: dict[str, Verb] = {
    "start": start,
    "gaps": gaps,
    "release": release,
    "skip": skip,
    "replay": replay,
    "retry": retry,
    "audit": audit,
}


def parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    top = argparse.ArgumentParser(prog="python -m sinkctl", description=__doc__)
    top.add_argument("--settings", type=Path, metavar="FILE", help="a Functions local.settings.json")
    verbs = top.add_subparsers(dest="verb", required=True)
    made = {
        name: verbs.add_parser(name, description=verb.__doc__, help=verb.__doc__) for name, verb in VERBS.items()
    }
    for name in ("start", "gaps", "audit"):
        made[name].add_argument("topic", nargs="*", help="all that have a route, if none is named")
    made["start"].add_argument("--from-group", default="", help="begin where this consumer group has committed")
    made["release"].add_argument("topic")
    made["release"].add_argument("gap", help="the key that `gaps` shows")
    made["skip"].add_argument("topic")
    one = made["skip"].add_mutually_exclusive_group(required=True)
    one.add_argument("--gap", help="the key that `gaps` shows")
    one.add_argument("--to", type=int, metavar="OFFSET", help="where the partition goes on")
    made["skip"].add_argument("--partition", type=int)
    made["retry"].add_argument("topic")
    made["retry"].add_argument("segment", nargs="?", help="its id; all failed ones of the topic, if none is given")
    made["replay"].add_argument("topic", nargs="?")
    made["replay"].add_argument("--dead-letters", metavar="PREFIX", help="such as flights/2026/01")
    made["replay"].add_argument("--partition", type=int)
    made["replay"].add_argument("--first", type=int, metavar="OFFSET")
    made["replay"].add_argument("--to", type=int, metavar="OFFSET", help="the offset after the last one")
    return top


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 done, 1 not possible or not well, 2 what was typed or set is unusable."""
    top = parser()
    asked = top.parse_args(arguments)
    if asked.verb == "skip" and asked.to is not None and asked.partition is None:
        top.error("skip --to needs --partition")
    if (
        asked.verb == "replay"
        and asked.dead_letters is None
        and None in (asked.topic, asked.partition, asked.first, asked.to)
    ):
        top.error("replay needs --dead-letters, or a topic with --partition, --first and --to")
    values = dict(environment)
    if asked.settings is not None:
        values = {**json.loads(asked.settings.read_text())["Values"], **values}
    try:
        settings = read_settings(values)
        from sinkcore.clients import build_app

        return VERBS[asked.verb](build_app(settings, new_ledger=asked.verb == "start").sink, asked)
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return EXIT_FAULTS
    except (SinkError, operate.NotPossibleError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # At the interpreter's own end the Kafka client's threads are still at work, and now and then crash it.
    os._exit(code)
