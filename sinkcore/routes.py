"""Where a record goes: database, table, format and ingestion mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sinkcore.conditions import Field, Source, When, read_template, read_when, sources_of
from sinkcore.declared import Faults, UnusableError, nearest, shown
from sinkcore.lanes import LANES, Framing, Lane, formats_of, framings_of, lane_of
from sinkcore.mapping import SETTING

TOPICS_MAX = 100
TABLES_MAX = 64
"""Places to which the routes of one topic lead: each is a blob of a segment, and a segment holds some 80."""


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of `SINK_TOPICS_MAPPING`, checked, with its defaults filled in.

    `topic` is an exact name, never `*`: a route for `*` is one Route for each topic that it takes.
    `table` is a name, or a template whose yield must be in `tables`, which is empty for a name.
    `mapping` None is ADX's identity mapping; `metadata` None adds no field to the rows; `when` None takes all.
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
    when: When | None = None
    tables: tuple[str, ...] = ()

    @property
    def template(self) -> tuple[str | Source, ...]:
        """The parts of `table`: one text where it is a name."""
        return read_template(self.table)

    @property
    def asks(self) -> list[Source]:
        """What of a record decides whether, and where to, the route takes it."""
        return ([] if self.when is None else [self.when.source]) + sources_of(self.template)

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
    """One field of a route: a name under a rule, one of a few words (`now`), or of a `shape` of its own.

    One without any of these is for later.

    `later` are the words that are promised and that this version refuses.
    """

    default: str
    meaning: str
    rule: NameRule | None = None
    now: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    shape: str = ""


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
TABLE = _entity(1024)
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
    "table": RouteField("required", "Table", TABLE, shape="name or template"),
    "tables": RouteField("none", "Allow-list of a templated `table`", shape="list of names"),
    "format": RouteField("json", "What a value holds", None, _FORMATS, _LATER_FORMATS),
    "mapping": RouteField("identity", "Name of an ingestion mapping", _entity(1024)),
    "decode": RouteField("none", "How the value is framed", None, ("none", "registry")),
    "validate": RouteField("true", "Check each record before it is staged", None, ("true", "false")),
    "schema": RouteField("none", "Schema that ships with the app", _PATH),
    "start": RouteField("earliest", "Where a topic begins, or a time", None, ("earliest", "latest")),
    "metadata": RouteField("none", "Field that carries Kafka's metadata in every row", _FIELD_NAME),
    "unwrap": RouteField("none", "Envelope to take off"),
    "transform": RouteField("none", "Function of the user's own"),
    "key": RouteField("utf8", "How keys read in metadata", None, ("utf8", "base64", "registry")),
    "when": RouteField("all", "Which records of the topic the route takes", shape="object"),
    "tombstones": RouteField("skip", "What becomes of tombstones", None, ("skip", "dead_letter", "row")),
    "streaming": RouteField("false", "Streaming ingestion", None, ("false",), ("true",)),
    "ingest_by": RouteField("none", "Extra `ingest-by` tag"),
    "tags": RouteField("none", "Extra extent tags"),
}
_KEPT = frozenset(each.name for each in fields(Route))


def read_topics(value: str) -> tuple[str, ...]:
    """The topics of `SINK_TOPICS`, in order, each once.

    Raises:
        UnusableError: one is no topic's name.
    """
    topics = tuple(dict.fromkeys(topic.strip() for topic in value.split(",")))
    if not all(TOPIC.pattern.fullmatch(topic) for topic in topics):
        raise UnusableError("a part of it is no topic's name", f"with commas between, write {TOPIC.words}")
    return topics


def read_route(number: int, entry: object, faults: Faults) -> dict[str, Any] | None:
    """The fields of a Route that `entry` gives; None, and faults, if it cannot be used.

    What depends on the topic's name, which is not known yet where it is `*`, is not looked at.
    """
    if not isinstance(entry, dict):
        faults.add(SETTING, f"route {number} is not an object", "write {...} with topic, db and table")
        return None
    before = len(faults.sentences)
    named = isinstance(entry.get("topic"), str)
    subject = f"route {number} (topic {shown(entry['topic'])})" if named else f"route {number}"
    given = {name: value for name, value in entry.items() if value is not None and value != ""}
    route: dict[str, Any] = {}
    for name, value in given.items():
        try:
            route[name] = _read_field(name, value)
        except UnusableError as unusable:
            faults.add(SETTING, f"{subject}: {unusable.fact}", unusable.fix)
    for name in ("topic", "db", "table"):
        if name not in given:
            faults.add(SETTING, f"{subject} has no {name}", "add it")
    if "key" in given and "metadata" not in given:
        faults.add(SETTING, f"{subject}: key means nothing without metadata", "add metadata or remove key")
    if route.get("tombstones") == "row" and "metadata" not in given:
        faults.add(SETTING, f"{subject}: tombstones row needs metadata", "add metadata, or skip them")
    if len(faults.sentences) == before:
        _check_lane(route, subject, faults)
        _check_tables(route, subject, faults)
    if len(faults.sentences) > before:
        return None
    # "none" is how a route says that there is none.
    kept = {name: what for name, what in route.items() if name in _KEPT and (name, what) != ("decode", "none")}
    return kept | {"validate": route.get("validate") != "false"}


def _check_lane(route: Mapping[str, Any], subject: str, faults: Faults) -> None:
    """The route has a lane, and wants nothing that means nothing in it."""
    format_ = route.get("format", "json")
    framing = framing_of(route.get("decode"), route.get("schema"))
    lane = lane_of(format_, framing)
    if framing == "registry" and "schema" in route:
        faults.add(SETTING, f"{subject}: schema means nothing beside decode registry", "remove one of them")
        return
    if lane is None:
        fact, fix = _no_lane(format_, framing)
        faults.add(SETTING, f"{subject}: {fact}", fix)
        return
    if "schema" in route:
        _check_schema(route["schema"], lane, subject, faults)
    if route.get("validate") == "false" and not lane.validates:
        fact = f"{subject}: validate false means nothing: every {format_.upper()} record is validated"
        faults.add(SETTING, fact, "remove it")


def _check_tables(route: Mapping[str, Any], subject: str, faults: Faults) -> None:
    """What a record says of its table is held against a list, and asked only where it can be known."""
    sources = sources_of(read_template(route["table"]))
    if sources and "tables" not in route:
        fact = f"{subject}: records choose the table, and no list says which ones they may choose"
        faults.add(SETTING, fact, "add tables, a list of all names")
    if "tables" in route and "{" not in route["table"]:
        faults.add(SETTING, f"{subject}: tables means nothing, since table is a name", "remove tables")
    lane = lane_of(route.get("format", "json"), framing_of(route.get("decode"), route.get("schema")))
    if lane is not None and not lane.fields:
        when = [route["when"].source] if "when" in route else []
        if any(isinstance(source, Field) for source in (*when, *sources)):
            what = "when" if any(isinstance(source, Field) for source in when) else "table"
            fact = f"{subject}: {what} asks for a field, and only values that arrive as plain JSON have fields"
            faults.add(SETTING, fact, "ask for a header")


def _no_lane(format_: str, framing: Framing) -> tuple[str, str]:
    if framing == "none":
        ways = " or ".join({"registry": "decode registry", "schema": "a schema"}[f] for f in framings_of(format_))
        return f"format {format_} needs {ways}", "add it"
    what = "decode registry" if framing == "registry" else "a schema"
    return f"{what} does not go with format {format_}", f"use format {' or '.join(formats_of(framing))}"


def _check_schema(path: str, lane: Lane, subject: str, faults: Faults) -> None:
    """The schema can be read; what that takes is imported where a route has one."""
    from sinkcore.schemas import SchemaError
    from sinkcore.schemas.files import read_own

    try:
        kind = read_own(path).kind
        if kind not in lane.kinds:
            fact = f"{subject}: its schema is {kind}, and its format takes {' or '.join(lane.kinds)}"
            faults.add(SETTING, fact, "use another format or schema")
    except SchemaError as error:
        faults.add(SETTING, f"{subject}: schema cannot be used: {error}", "ship a schema that can")


def _read_field(name: str, value: object) -> object:
    field = FIELDS.get(name)
    if field is None:
        raise UnusableError(f"{shown(name)} is no field of a route", f"{nearest(name, FIELDS)} is the nearest")
    if name == "when":
        return read_when(value)
    if name == "tables":
        return _read_tables(value)
    if name == "table" and isinstance(value, str) and ("{" in value or "}" in value):
        read_template(value)
        return value
    if field.rule is not None:
        if not isinstance(value, str) or not field.rule.pattern.fullmatch(value):
            raise UnusableError(f"{name} is not a name that can be used", f"use {field.rule.words}")
        return value
    if not field.now:
        raise UnusableError(f"{name} is not yet supported", "remove it")
    return _read_word(name, value, field)


def _read_tables(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UnusableError("tables is not a list of names", 'write ["Orders", "Refunds"]')
    for name in value:
        if not isinstance(name, str) or not TABLE.pattern.fullmatch(name):
            raise UnusableError(
                f"tables has {shown(name)}, which is not a name that can be used", f"use {TABLE.words}"
            )
        if value.count(name) > 1:
            raise UnusableError(f"tables has {shown(name)} twice", "keep one of the two")
    if len(value) > TABLES_MAX:
        raise UnusableError(f"tables has {len(value)} names", f"keep it to {TABLES_MAX}")
    return tuple(value)


def _read_word(name: str, value: object, field: RouteField) -> str:
    word = str(value).lower() if isinstance(value, str | bool) else ""
    if word in field.now or (name == "start" and _is_time(str(value))):
        return word if word in field.now else str(value)
    if word in field.later:
        raise UnusableError(f"{name} {shown(word)} is not yet supported", f"use {' or '.join(field.now)}")
    subject = f"{name} {shown(value)}" if isinstance(value, str) else name
    fix = f"use {' or '.join(field.now)} ({nearest(word, field.now)} is the nearest)"
    raise UnusableError(f"{subject} is nothing that is known", fix)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
