"""Where a record goes: database, table, format and ingestion mapping."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sinkcore.declared import Faults, UnusableError, nearest, shown
from sinkcore.lanes import LANES, Framing, Lane, formats_of, framings_of, lane_of

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
    decode: str | None = None
    schema: str | None = None
    validate: bool = True

    @property
    def framing(self) -> Framing:
        """How the values are framed."""
        return framing_of(self.decode, self.schema)

    @property
    def needs_registry(self) -> bool:
        """Values or keys are framed by a schema registry."""
        return "registry" in (self.decode, self.key)

    @property
    def lane(self) -> Lane:
        """What becomes of the records; a route without a lane does not get past the settings."""
        lane = lane_of(self.format, self.framing)
        assert lane is not None, f"no lane for {self.format} framed by {self.framing}"
        return lane

    @property
    def stored_format(self) -> str:
        """The format of the route's blobs, as ADX names it."""
        return self.lane.stored if self.metadata is None else self.lane.stored_with_metadata


def framing_of(decode: str | None, schema: str | None) -> Framing:
    """How values are framed, by what their route says."""
    return "registry" if decode == "registry" else "none" if schema is None else "schema"


@dataclass(frozen=True, slots=True)
class NameRule:
    """What a name must look like. Names go into KQL commands and URLs, so that nothing else is let through."""

    pattern: re.Pattern[str]
    words: str


@dataclass(frozen=True, slots=True)
class RouteField:
    """One field of a route: a name under a rule, or one of a few words (`now`), or wholly for later.

    `later` are the words that are promised and that this version refuses.
    """

    default: str
    meaning: str
    rule: NameRule | None = None
    now: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


def _entity(most: int) -> NameRule:
    # Source: Kusto's entity names take letters, digits, `_`, space, `.` and `-`, up to 1,024 characters, and a
    # database in Azure up to 260. A name of dots alone would climb in a URL, so the first one is stricter.
    return NameRule(
        re.compile(rf"[A-Za-z0-9_](?:[A-Za-z0-9_ .-]{{0,{most - 2}}}[A-Za-z0-9_.-])?"),
        f"1 to {most} letters, digits, '_', '.', '-' or inner spaces, the first a letter, digit or '_'",
    )


TOPIC = NameRule(
    # Source: Kafka's own rule (org.apache.kafka.common.internals.Topic).
    re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}"),
    "1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'",
)
_STAR_OR_TOPIC = NameRule(re.compile(rf"\*|{TOPIC.pattern.pattern}"), f"'*', or {TOPIC.words}")
_FIELD_NAME = NameRule(
    re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII), "1 to 128 letters, digits or '_', no digit first"
)
_PATH = NameRule(re.compile(r"[^\x00-\x1f\x7f]{1,1024}"), "a path, from the app's directory")
_FORMATS = tuple(dict.fromkeys(name for name, _ in LANES))
_LATER_FORMATS = tuple(
    name
    for name in (
        *("csv", "tsv", "scsv", "sohsv", "psv", "tsve", "txt", "raw"),
        *("avro", "apacheavro", "parquet", "orc"),
    )
    if name not in _FORMATS
)

FIELDS: Mapping[str, RouteField] = {
    "topic": RouteField(
        "required", "Exact name, or `*` for topics of `SINK_TOPICS` not named here", _STAR_OR_TOPIC
    ),
    "db": RouteField("required", "Database", _entity(260)),
    "table": RouteField("required", "Table", _entity(1024)),
    "tables": RouteField("none", "Allow-list of a templated `table`"),
    "format": RouteField("json", "What a value holds", None, _FORMATS, _LATER_FORMATS),
    "mapping": RouteField("identity", "Name of an ingestion mapping", _entity(1024)),
    "decode": RouteField("none", "How the value is framed", None, ("none", "registry")),
    "validate": RouteField("true", "Check each record before it is staged", None, ("true", "false")),
    "schema": RouteField("none", "Schema that ships with the app", _PATH),
    "start": RouteField("earliest", "Where a topic begins, or a time", None, ("earliest", "latest")),
    "metadata": RouteField("none", "Field that carries Kafka's metadata in every row", _FIELD_NAME),
    "unwrap": RouteField("none", "Envelope to take off"),
    "transform": RouteField("none", "Function of the user's own"),
    "key": RouteField("utf8", "How keys read in metadata", None, ("utf8", "base64"), ("registry",)),
    "when": RouteField("all", "Which records of the topic the route takes"),
    "tombstones": RouteField("skip", "What becomes of tombstones", None, ("skip", "dead_letter", "row")),
    "streaming": RouteField("false", "Streaming ingestion", None, ("false",), ("true",)),
    "ingest_by": RouteField("none", "Extra `ingest-by` tag"),
    "tags": RouteField("none", "Extra extent tags"),
}
_KEPT = frozenset(each.name for each in fields(Route))

# A bracket, or a string in either kind of quotes; also one that never ends, so that no character is read twice.
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|[\[\]{}]""", re.DOTALL)
_ESCAPE_OR_QUOTE = re.compile(r'\\.|"', re.DOTALL)


def read_topics(value: str) -> tuple[str, ...]:
    """The topics of `SINK_TOPICS`, in order, each once.

    Raises:
        UnusableError: one is no topic's name.
    """
    topics = tuple(dict.fromkeys(topic.strip() for topic in value.split(",")))
    if not all(TOPIC.pattern.fullmatch(topic) for topic in topics):
        raise UnusableError("a part of it is no topic's name", f"with commas between, write {TOPIC.words}")
    return topics


def read_mapping(value: str) -> list[Any]:
    """The entries of `SINK_TOPICS_MAPPING`, from JSON or from the connector's syntax with single quotes.

    Single-quoted strings become JSON's own and the rest is left to the JSON parser, so that there is one
    grammar and nothing is evaluated. Numbers come back as their text, as the connector takes them.

    Raises:
        UnusableError: it is too long, too deep, not JSON, or no list of routes.
    """
    if len(value) > MAPPING_MAX_CHARACTERS:
        raise UnusableError(f"it has {len(value)} characters", f"keep it to {MAPPING_MAX_CHARACTERS}")
    try:
        entries = json.loads(
            _as_json(value),
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repeats,
        )
    except json.JSONDecodeError as error:
        fix = r"check quotes and commas (inside single quotes an apostrophe is written \')"
        raise UnusableError(f"it is not JSON: {error.msg.lower()} near character {error.pos + 1}", fix) from None
    if not isinstance(entries, list):
        raise UnusableError("it is not a list", "put [ and ] around the routes")
    if not 1 <= len(entries) <= ROUTES_MAX:
        raise UnusableError(f"it has {len(entries)} routes", f"give 1 to {ROUTES_MAX}")
    return entries


def _as_json(value: str) -> str:
    depth = 0

    def convert(match: re.Match[str]) -> str:
        nonlocal depth
        token = match[0]
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        if depth > MAPPING_MAX_DEPTH:
            raise UnusableError(f"it is nested deeper than {MAPPING_MAX_DEPTH}", "write a list of routes")
        if token[0] != "'" or token[-1] != "'" or len(token) < 2:
            return token
        inner = _ESCAPE_OR_QUOTE.sub(lambda part: {"\\'": "'", '"': '\\"'}.get(part[0], part[0]), token[1:-1])
        return f'"{inner}"'

    return _TOKEN.sub(convert, value)


def _refuse_constant(name: str) -> None:
    raise UnusableError(f"it holds {name}, which is not JSON", "remove it")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for name, value in pairs:
        if name in entry:
            raise UnusableError(f"one object has {shown(name)} twice", "keep one of the two")
        entry[name] = value
    return entry


def read_routes(value: str | None, starred: tuple[str, ...], faults: Faults) -> tuple[Route, ...]:
    """The routes of `SINK_TOPICS_MAPPING`, `*` spread over the topics `starred` that no entry names.

    What cannot be used becomes a fault, and the routes are then not for use.
    """
    if value is None:
        return ()
    try:
        entries = read_mapping(value)
    except UnusableError as unusable:
        faults.add(_SETTING, unusable.fact, unusable.fix)
        return ()
    found = [_read_route(number, entry, faults) for number, entry in enumerate(entries, 1)]
    routes = [route for route in found if route is not None]
    topics = [route["topic"] for route in routes]
    rest = tuple(topic for topic in starred if topic not in topics)
    for topic in dict.fromkeys(topic for topic in topics if topics.count(topic) > 1):
        fact = f"it has several routes for the topic {shown(topic)}, of which the second can never match"
        faults.add(_SETTING, fact, "keep one (several are not yet supported)")
    if len(routes) == len(entries) and "SINK_TOPICS" not in faults.names:
        _check_star("*" in topics, starred, rest, faults)
    return tuple(
        Route(**{**route, "topic": topic})
        for route in routes
        for topic in (rest if route["topic"] == "*" else (route["topic"],))
    )


def _read_route(number: int, entry: object, faults: Faults) -> dict[str, Any] | None:
    """The fields of a Route that `entry` gives; None, and faults, if it cannot be used."""
    if not isinstance(entry, dict):
        faults.add(_SETTING, f"route {number} is not an object", "write {...} with topic, db and table")
        return None
    before = len(faults.sentences)
    named = isinstance(entry.get("topic"), str)
    subject = f"route {number} (topic {shown(entry['topic'])})" if named else f"route {number}"
    given = {name: value for name, value in entry.items() if value is not None and value != ""}
    route: dict[str, str] = {}
    for name, value in given.items():
        try:
            route[name] = _read_field(name, value)
        except UnusableError as unusable:
            faults.add(_SETTING, f"{subject}: {unusable.fact}", unusable.fix)
    for name in ("topic", "db", "table"):
        if name not in given:
            faults.add(_SETTING, f"{subject} has no {name}", "add it")
    if "key" in given and "metadata" not in given:
        faults.add(_SETTING, f"{subject}: key means nothing without metadata", "add metadata or remove key")
    if route.get("tombstones") == "row" and "metadata" not in given:
        faults.add(_SETTING, f"{subject}: tombstones row needs metadata", "add metadata, or skip them")
    if len(faults.sentences) == before:
        _check_lane(route, subject, faults)
    if len(faults.sentences) > before:
        return None
    # "none" is how a route says that there is none.
    kept = {name: text for name, text in route.items() if name in _KEPT and (name, text) != ("decode", "none")}
    return kept | {"validate": route.get("validate") != "false"}


def _check_lane(route: Mapping[str, str], subject: str, faults: Faults) -> None:
    """The route has a lane, and wants nothing that means nothing in it."""
    format_ = route.get("format", "json")
    framing = framing_of(route.get("decode"), route.get("schema"))
    lane = lane_of(format_, framing)
    if framing == "registry" and "schema" in route:
        faults.add(_SETTING, f"{subject}: schema means nothing beside decode registry", "remove one of them")
        return
    if lane is None:
        fact, fix = _no_lane(format_, framing)
        faults.add(_SETTING, f"{subject}: {fact}", fix)
        return
    if "schema" in route:
        _check_schema(route["schema"], subject, faults)
    if route.get("validate") == "false" and not lane.validates:
        fact = f"{subject}: validate false means nothing: every {format_.upper()} record is validated"
        faults.add(_SETTING, fact, "remove it")


def _no_lane(format_: str, framing: Framing) -> tuple[str, str]:
    if framing == "none":
        ways = " or ".join({"registry": "decode registry", "schema": "a schema"}[f] for f in framings_of(format_))
        return f"format {format_} needs {ways}", "add it"
    what = "decode registry" if framing == "registry" else "a schema"
    return f"{what} does not go with format {format_}", f"use format {' or '.join(formats_of(framing))}"


def _check_schema(path: str, subject: str, faults: Faults) -> None:
    """The schema can be read; what that takes is imported where a route has one."""
    from sinkcore.schemas import SchemaError
    from sinkcore.schemas.files import read_own

    try:
        read_own(path)
    except SchemaError as error:
        faults.add(_SETTING, f"{subject}: schema cannot be used: {error}", "ship a schema that can")


def _read_field(name: str, value: object) -> str:
    field = FIELDS.get(name)
    if field is None:
        raise UnusableError(f"{shown(name)} is no field of a route", f"{nearest(name, FIELDS)} is the nearest")
    if name == "table" and isinstance(value, str) and "{" in value:
        raise UnusableError("templates in table are not yet supported", "name the table itself")
    if field.rule is not None:
        if not isinstance(value, str) or not field.rule.pattern.fullmatch(value):
            raise UnusableError(f"{name} is not a name that can be used", f"use {field.rule.words}")
        return value
    if not field.now:
        raise UnusableError(f"{name} is not yet supported", "remove it")
    return _read_word(name, value, field)


def _read_word(name: str, value: object, field: RouteField) -> str:
    word = str(value).lower() if isinstance(value, str | bool) else ""
    if word in field.now or (name == "start" and _is_time(str(value))):
        return word if word in field.now else str(value)
    if word in field.later:
        raise UnusableError(f"{name} {shown(word)} is not yet supported", f"use {' or '.join(field.now)}")
    known = field.now + field.later
    fix = f"use {' or '.join(field.now)} ({nearest(word, known)} is the nearest)"
    raise UnusableError(f"{name} is not one of {', '.join(known)}", fix)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _check_star(has_star: bool, starred: tuple[str, ...], rest: tuple[str, ...], faults: Faults) -> None:
    if has_star and not starred:
        faults.add("SINK_TOPICS", "it is not set, and a route has the topic *", "list the topics that * takes")
    elif has_star and not rest:
        faults.add(_SETTING, "its other routes name all of SINK_TOPICS, so * can never match", "remove that route")
    elif rest and not has_star:
        fact = f"no route takes its topic {shown(rest[0])}"
        faults.add("SINK_TOPICS", fact, f"add a route for it, or for *, to {_SETTING}")
