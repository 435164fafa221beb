"""`python -m sinkctl VERB`: what only a person can decide. Settings come from the environment or a file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

try:
    from sinkcore import audit as audits
    from sinkcore import operate, resend
    from sinkcore.errors import ConfigError, SinkError, TransientError
    from sinkcore.settings import read_settings
    from sinkcore.sink import Sink, Topic
except ModuleNotFoundError as error:
    sys.exit(f"sinkctl: this Python has no {error.name}; use .venv/bin/python, which `make setup` makes")

Verb = Callable[[Sink, argparse.Namespace], int]
EXIT_FAULTS = 2


def start(sink: Sink, asked: argparse.Namespace) -> int:
    """Give every partition its position, by the route's `start`: a step of the deployment."""
    for name in asked.topic or sink.settings.topics:
        for partition, begins in sorted(operate.start_topic(sink, name, asked.from_group).items()):
            print(f"{name} {partition} begins at {begins.next_offset} ({begins.by})")
    return 0


def _known(sink: Sink, asked: argparse.Namespace) -> tuple[list[Topic], int]:
    """The topics that were started, and how many were not, which is said."""
    known, unknown = [], 0
    for name in asked.topic or sink.settings.topics:
        try:
            known.append(operate.known_topic(sink, name))
        except operate.NotPossibleError as error:
            print(error, file=sys.stderr)
            unknown += 1
    return known, unknown


def gaps(sink: Sink, asked: argparse.Namespace) -> int:
    """List what waits to be read from Kafka again."""
    known, unknown = _known(sink, asked)
    for topic in known:
        for gap in topic.ledger.gaps():
            size = f"{gap.next_offset} to {gap.end_offset} ({gap.end_offset - gap.next_offset})"
            print(f"{topic.name} {gap.partition} {size} {gap.why}{' held' if gap.held else ''} {gap.key}")
    return 1 if unknown else 0


def release(sink: Sink, asked: argparse.Namespace) -> int:
    """Let a held gap be drained."""
    gap = operate.release(operate.known_topic(sink, asked.topic), asked.gap)
    print(f"{asked.topic} {gap.partition}: {gap.end_offset - gap.next_offset} offsets will be drained")
    return 0


def skip(sink: Sink, asked: argparse.Namespace) -> int:
    """Give up a record, a gap, or everything of a partition below an offset."""
    topic, where = operate.known_topic(sink, asked.topic), f"{asked.topic} {asked.partition}"
    if asked.gap:
        gap = operate.skip_gap(topic, asked.gap)
        print(f"{asked.topic} {gap.partition}: {gap.next_offset} to {gap.end_offset} are given up")
    elif asked.offset is not None:
        before = asked.offset - operate.skip_record(sink, topic, asked.partition, asked.offset).next_offset
        print(f"{where}: offset {asked.offset} is given up; the next sweep takes the {before} before it")
    else:
        first = operate.skip_to(sink, topic, asked.partition, asked.to).next_offset
        print(f"{where}: goes on at {asked.to}; {first} to {asked.to} ({asked.to - first}) are given up")
    return 0


def replay(sink: Sink, asked: argparse.Namespace) -> int:
    """Take a range of offsets once more, or send dead letters again by today's routes."""
    if asked.dead_letters is not None:
        path = ""
        for path, records, refused in resend.replay_dead_letters(sink, asked.dead_letters):
            print(f"{path}: {records} records sent again, {refused} of them refused again")
        if not path:
            raise operate.NotPossibleError(f"{asked.dead_letters}: no dead letters that wait begin with it")
        return 0
    gap = operate.replay(sink, operate.known_topic(sink, asked.topic), asked.partition, asked.first, asked.to)
    print(f"{asked.topic} {gap.partition}: {gap.next_offset} to {gap.end_offset} will be taken once more")
    return 0


def letters(sink: Sink, asked: argparse.Namespace) -> int:
    """Show dead letters, a line of JSON each, with values, keys and headers as text where they are UTF-8."""
    path = ""
    for path, letter in resend.letters(sink, asked.prefix):
        print(json.dumps({"blob": path, **letter}, ensure_ascii=False))
    if not path:
        raise operate.NotPossibleError(f"{asked.prefix}: no dead letters begin with it")
    return 0


def retry(sink: Sink, asked: argparse.Namespace) -> int:
    """Try failed segments again: one, or all of a topic."""
    again = operate.retry(operate.known_topic(sink, asked.topic), asked.segment)
    lines = [f"{asked.topic}: segment {each.id} with {each.records} records is tried again" for each in again]
    print("\n".join(lines) or f"{asked.topic}: no failed segment is left to you")
    return 0


def audit(sink: Sink, asked: argparse.Namespace) -> int:
    """Check that every offset is in one segment or gap, and ask Kafka about the rest; exit 1 if it is not well."""
    known, faults = _known(sink, asked)
    for topic in known:
        for found in audits.audit(sink, topic, _progress):
            where, accounted = f"{topic.name} {found.partition}", f"{found.kept_from} to {found.next_offset}"
            print(f"{where}: {accounted}, {found.in_gaps} in gaps, {found.above} above")
            for what in ("missing", "twice", "unchecked", "gone"):
                for offsets in getattr(found, what):
                    faults += what != "gone"
                    print(f"{where}: {what.upper()} {offsets.first_offset} to {offsets.next_offset}")
        for partition in audits.unplaced(sink, topic):
            faults += 1
            print(f"{topic.name} {partition}: NO POSITION")
    return 1 if faults else 0


def _progress(asked: int, whole: int) -> None:
    print(f"asked Kafka about {asked} of {whole} offsets", file=sys.stderr)


_VERBS = (start, gaps, release, skip, replay, letters, retry, audit)
VERBS: dict[str, Verb] = {verb.__name__: verb for verb in _VERBS}


def parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    top = argparse.ArgumentParser(prog="python -m sinkctl", description=__doc__)
    top.add_argument("--settings", type=Path, metavar="FILE", help="a Functions local.settings.json")
    verbs = top.add_subparsers(dest="verb", required=True)
    made = {name: verbs.add_parser(name, description=v.__doc__, help=v.__doc__) for name, v in VERBS.items()}
    for name in ("start", "gaps", "audit"):
        made[name].add_argument("topic", nargs="*", help="all that have a route, if none is named")
    made["start"].add_argument("--from-group", default="", help="begin where this consumer group has committed")
    for name in ("release", "skip", "retry"):
        made[name].add_argument("topic")
    for name in ("skip", "replay"):
        made[name].add_argument("--partition", type=int)
    made["release"].add_argument("gap", help="the key that `gaps` shows")
    one = made["skip"].add_mutually_exclusive_group(required=True)
    one.add_argument("--gap", help="the key that `gaps` shows")
    one.add_argument("--offset", type=int, help="one record")
    one.add_argument("--to", type=int, metavar="OFFSET", help="where the partition goes on")
    made["letters"].add_argument("prefix", help="such as flights/2026/01")
    made["retry"].add_argument("segment", nargs="?", help="its id; all failed ones of the topic, if none is given")
    made["replay"].add_argument("topic", nargs="?")
    made["replay"].add_argument("--dead-letters", metavar="PREFIX", help="such as flights/2026/01")
    made["replay"].add_argument("--first", type=int, metavar="OFFSET")
    made["replay"].add_argument("--to", type=int, metavar="OFFSET", help="the offset after the last one")
    return top


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 done, 1 not possible or not well, 2 what was typed or set is unusable."""
    top = parser()
    asked = top.parse_args(arguments)
    if asked.verb == "skip" and not asked.gap and asked.partition is None:
        top.error("skip --offset and skip --to need --partition")
    lacks = [name for name in ("topic", "partition", "first", "to") if getattr(asked, name, 0) is None]
    if asked.verb == "replay" and asked.dead_letters is None and lacks:
        top.error("replay needs --dead-letters, or a topic with --partition, --first and --to")
    try:
        settings = read_settings({**_values(asked.settings), **environment})
        from sinkcore.clients import build_app

        return VERBS[asked.verb](build_app(settings, new_ledger=asked.verb == "start").sink, asked)
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return EXIT_FAULTS
    except (SinkError, operate.NotPossibleError) as error:
        print(error, file=sys.stderr)
        if isinstance(error, TransientError):
            print("sinkctl itself does not try again: type it once more", file=sys.stderr)
        return 1


def _values(file: Path | None) -> dict[str, str]:
    """The settings in a local.settings.json."""
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text())["Values"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"--settings: {file} cannot be read as a Functions local.settings.json ({type(error).__name__})"
        raise ConfigError((f'{what}; name a file with {{"Values": {{...}}}}',)) from None


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # At the interpreter's own end the Kafka client's threads are still at work, and now and then crash it.
    os._exit(code)
