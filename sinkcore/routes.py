"""Where a record goes: database, table, format and ingestion mapping."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sinkcore.declared import Faults, UnusableError, nearest, shown

MAPPING_MAX_CHARACTERS = 131_072  # Linux takes no longer environment variable
MAPPING_MAX_DEPTH = 8
ROUTES_MAX = 1_000
TOPICS_MAX = 100

_SETTING = "SINK_TOPICS_MAPPING"


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of `SINK_TOPICS_MAPPING`, checked, with its defaults filled in.

    `topic` is an exact name, never `*`: a route for `*` is one Route for each topic that it takes.
    `mapping` None is ADX's identity mapping; `metadata` None adds no field to the rows.
    """

    topic: str
    db: str
    table: str
    format: str = "json"
    mapping: str | None = None
    metadata: str | None = None
    key: str = "utf8"
    tombstones: str = "skip"
    start: str = "earliest"


@dataclass(frozen=True, slots=True)
class NameRule:
    """What a name must look like. Names go into KQL commands and URLs, so that nothing else is let through."""

    pattern: re.Pattern[str]
    words: str


@dataclass(frozen=True, slots=True)
class RouteField:
    """One field of a route: a name under a rule, or one of a few words (`now`), or wholly for later.

    `later` are the words that the contract has and this version refuses.
    """

    default: str
    meaning: str
    rule: NameRule | None = None
    now: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


def _entity(most: int) -> NameRule:
    # Source: Kusto's entity names take letters, digits, `_`, space, `.` and `-`, up to 1,024 characters; an
    # Azure database up to 260. Of these, a name of dots alone would climb in a URL, so the first is stricter.
    return NameRule(
        re.compile(rf"[A-Za-z0-9_](?:[A-Za-z0-9_ .-]{{0,{most - 2}}}[A-Za-z0-9_.-])?"),
        f"1 to {most} letters, digits, '_', '.', '-' or inner spaces, the first a letter, digit or '_'",
    )


TOPIC = NameRule(
    # Source: org.apache.kafka.common.internals.Topic: this alphabet, 249 characters, neither "." nor "..".
    re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}"),
    "1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'",
)
_TOPIC_OR_STAR = NameRule(re.compile(rf"\*|{TOPIC.pattern.pattern}"), f"'*', or {TOPIC.words}")
_METADATA = NameRule(
    re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}"), "1 to 128 letters, digits or '_', the first not a digit"
)

FIELDS: Mapping[str, RouteField] = {
    "topic": RouteField(
        "required", "exact name, or `*` for the topics of `SINK_TOPICS` that no other entry names", _TOPIC_OR_STAR
    ),
    "db": RouteField("required", "database in ADX", _entity(260)),
    "table": RouteField("required", "table in that database", _entity(1024)),
    "tables": RouteField("none", "allow-list of a templated `table`"),
    "format": RouteField(
        "json",
        "what a record's value holds",
        now=("json", "multijson", "singlejson"),
        later=tuple("csv tsv scsv sohsv psv tsve txt raw avro apacheavro parquet orc".split()),
    ),
    "mapping": RouteField("identity", "name of an ingestion mapping of the table", _entity(1024)),
    "decode": RouteField("none", "how the value is framed", now=("none",), later=("registry",)),
    "validate": RouteField("true", "check each record before it is staged", now=("true",)),
    "schema": RouteField("none", "schema that ships with the app"),
    "start": RouteField("earliest", "where a topic begins", now=("earliest",), later=("latest",)),
    "metadata": RouteField("none", "field that carries Kafka's metadata in every row", _METADATA),
    "unwrap": RouteField("none", "envelope to take off"),
    "transform": RouteField("none", "function of the user's own"),
    "key": RouteField("utf8", "how keys read in metadata", now=("utf8", "base64"), later=("registry",)),
    "when": RouteField("all", "which records of the topic the route takes"),
    "tombstones": RouteField(
        "skip", "what becomes of a record without a value", now=("skip", "dead_letter"), later=("row",)
    ),
    "streaming": RouteField("false", "streaming ingestion", now=("false",), later=("true",)),
    "ingest_by": RouteField("none", "extra `ingest-by` tag"),
    "tags": RouteField("none", "extra extent tags"),
}

_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|[\[\]{}]""", re.DOTALL)
_ESCAPE_OR_QUOTE = re.compile(r'\\.|"', re.DOTALL)


def read_mapping(text: str) -> list[Any]:
    """The entries of `SINK_TOPICS_MAPPING`, from JSON or from the connector's syntax with single quotes.

    Single-quoted strings are turned into JSON's own and the rest is left to the JSON parser, so that there is
    one grammar and nothing is evaluated. Numbers come back as their text.

    Raises:
        UnusableError: it is too long, too deep, or no list.
    """
    if len(text) > MAPPING_MAX_CHARACTERS:
        raise UnusableError(f"it has {len(text)} characters", f"keep it to {MAPPING_MAX_CHARACTERS}")
    try:
        entries = json.loads(
            _as_json(text),
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repeats,
        )
    except json.JSONDecodeError as error:
        raise UnusableError(
            f"it is not JSON: {error.msg.lower()} near character {error.pos + 1}",
            r"check quotes and commas (an apostrophe inside single quotes is written \')",
        ) from None
    if not isinstance(entries, list):
        raise UnusableError("it is not a list", "put [ and ] around the routes")
    if not 1 <= len(entries) <= ROUTES_MAX:
        raise UnusableError(f"it has {len(entries)} routes", f"give 1 to {ROUTES_MAX}")
    return entries


def _as_json(text: str) -> str:
    depth = 0

    def convert(token: re.Match[str]) -> str:
        nonlocal depth
        found = token[0]
        if found in "[]{}":
            depth += 1 if found in "[{" else -1
            if depth > MAPPING_MAX_DEPTH:
                raise UnusableError(f"it is nested deeper than {MAPPING_MAX_DEPTH}", "write a list of routes")
        elif found[0] == "'" and len(found) > 1 and found[-1] == "'":
            inner = _ESCAPE_OR_QUOTE.sub(lambda part: {"\\'": "'", '"': '\\"'}.get(part[0], part[0]), found[1:-1])
            return f'"{inner}"'
        return found

    return _TOKEN.sub(convert, text)


def _refuse_constant(name: str) -> None:
    raise UnusableError(f"it holds {name}, which JSON has not", "remove it")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UnusableError(f"a route has {shown(repeated)} twice", "keep one of the two")
    return entry


def read_routes(text: str, starred: tuple[str, ...], faults: Faults) -> tuple[Route, ...]:
    """The routes of `SINK_TOPICS_MAPPING`, `*` spread over the topics `starred` that no entry names.

    What cannot be used becomes a fault; with faults the routes are not for use.
    """
    try:
        entries = read_mapping(text)
    except UnusableError as unusable:
        faults.add(_SETTING, unusable.fact, unusable.fix)
        return ()
    read = [_read_route(number, entry, faults) for number, entry in enumerate(entries, 1)]
    found = [route for route in read if route is not None]
    _check_reached(found, faults)
    named = {route["topic"] for route in found}
    rest = tuple(topic for topic in starred if topic not in named)
    if len(found) == len(entries):
        _check_star("*" in named, starred, rest, faults)
    return tuple(
        Route(**{**route, "topic": topic})
        for route in found
        for topic in (rest if route["topic"] == "*" else (route["topic"],))
    )


def _read_route(number: int, entry: object, faults: Faults) -> dict[str, Any] | None:
    """The fields of a route that are not at their default; None, and faults, if it cannot be used."""
    if not isinstance(entry, dict):
        faults.add(_SETTING, f"route {number} is not an object", "write {...} with topic, db and table")
        return None
    before = len(faults.sentences)
    subject = f"route {number}"
    if isinstance(entry.get("topic"), str):
        subject += f" (topic {shown(entry['topic'])})"
    given = {name: value for name, value in entry.items() if value is not None and value != ""}
    route: dict[str, Any] = {}
    for name, value in given.items():
        try:
            route[name] = _read_field(name, value)
        except UnusableError as unusable:
            faults.add(_SETTING, f"{subject}: {unusable.fact}", unusable.fix)
    for name, rules in FIELDS.items():
        if rules.default == "required" and name not in given:
            faults.add(_SETTING, f"{subject} has no {name}", f"give {name}: {rules.meaning}")
    if "key" in given and "metadata" not in given:
        faults.add(
            _SETTING, f"{subject}: key says how keys read in metadata, and there is none",
            "add metadata or remove key",
        )  # fmt: skip
    if len(faults.sentences) > before:
        return None
    return {name: value for name, value in route.items() if name in Route.__dataclass_fields__}


def _read_field(name: str, value: object) -> str:
    rules = FIELDS.get(name)
    if rules is None:
        raise UnusableError(f"{shown(name)} is no field of a route", f"{nearest(name, FIELDS)} is the nearest")
    if isinstance(value, bool):
        value = str(value).lower()
    if name == "table" and isinstance(value, str) and "{" in value:
        raise UnusableError("templates in table are not yet supported", "give the table's own name")
    if rules.rule is not None:
        if not isinstance(value, str) or not rules.rule.pattern.fullmatch(value):
            raise UnusableError(f"{name} is no name that can be used", f"give {rules.rule.words}")
        return value
    if not rules.now:
        raise UnusableError(f"{name} is not yet supported", "remove it")
    return _read_word(name, value, rules)


def _read_word(name: str, value: object, rules: RouteField) -> str:
    word = value.lower() if isinstance(value, str) else ""
    if word in rules.now:
        return word
    words = " or ".join(rules.now)
    if word in rules.later or (name == "start" and _is_time(word)):
        raise UnusableError(f"{name} {shown(value)} is not yet supported", f"use {words}")
    if name == "validate" and word == "false":
        raise UnusableError(
            "validate false means nothing for json, whose every record is validated", "remove validate"
        )
    known = rules.now + rules.later
    raise UnusableError(
        f"{name} is not one of {', '.join(known)}", f"use {words} ({nearest(word, known)} is the nearest)"
    )


def _is_time(word: str) -> bool:
    try:
        datetime.fromisoformat(word)
    except ValueError:
        return False
    return True


def _check_reached(routes: list[dict[str, Any]], faults: Faults) -> None:
    """Each route can match: without `when`, a topic's second route never does."""
    taken: set[str] = set()
    for route in routes:
        topic = route["topic"]
        if topic in taken:
            faults.add(
                _SETTING,
                f"two routes have the topic {shown(topic)}, and the second can never match",
                "remove one (several routes for one topic are not yet supported)",
            )
        taken.add(topic)


def _check_star(has_star: bool, starred: tuple[str, ...], rest: tuple[str, ...], faults: Faults) -> None:
    if has_star and not starred:
        faults.add("SINK_TOPICS", "a route has the topic *, and this is not set", "list the topics that * takes")
    elif has_star and not rest:
        faults.add(_SETTING, "other routes name all of SINK_TOPICS, so * can never match", "remove one of them")
    elif rest and not has_star:
        faults.add("SINK_TOPICS", f"no route takes {shown(rest[0])}", f"add a route for it or * to {_SETTING}")
