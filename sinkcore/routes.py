"""Where a record goes: database, table, format and ingestion mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sinkcore.conditions import Field, Source, When, read_template, read_when, sources_of
from sinkcore.declared import Faults, UnusableError, nearest, shown
from sinkcore.lanes import LANES, Framing, Lane
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
    def leads_to(self) -> tuple[str, ...]:
        """The tables that its records may come to."""
        return self.tables if sources_of(self.template) else (self.table,)

    @property
    def asks(self) -> list[Source]:
        """What of a record decides whether, and where to, the route takes it."""
        return ([] if self.when is None else [self.when.source]) + sources_of(self.template)

    @property
    def framing(self) -> Framing:
        """How the values are framed."""
        return "registry" if self.decode == "registry" else "none" if self.schema is None else "schema"

    @property
    def needs_registry(self) -> bool:
        """Values or keys are framed by a schema registry."""
        return "registry" in (self.decode, self.key)

    @property
    def lane(self) -> Lane:
        """What becomes of the records; a route without a lane does not get past the settings."""
        return LANES[self.format, self.framing]

    @property
    def stored_format(self) -> str:
        """The format of the route's blobs, as ADX names it."""
        return self.lane.stored if self.metadata is None else self.lane.stored_with_metadata


@dataclass(frozen=True, slots=True)
class NameRule:
    """What a name must look like. Names go into KQL commands and URLs, so that nothing else is let through."""

    pattern: re.Pattern[str]
    words: str

    def read(self, name: str, value: object) -> str:
        """The value given for the field `name`, if it keeps to the rule."""
        if not isinstance(value, str) or not self.pattern.fullmatch(value):
            raise UnusableError(f"{name} is not a name that can be used", f"use {self.words}")
        return value


@dataclass(frozen=True, slots=True)
class RouteField:
    """One field of a route: `read` checks what is given for it, by its name; the rest is for its documentation.

    `later` are values that are promised and that this version refuses.
    """

    default: str
    meaning: str
    read: Callable[[str, object], object]
    values: str = "name"
    later: str = ""


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


def _read_table(name: str, value: object) -> str:
    if isinstance(value, str) and ("{" in value or "}" in value):
        read_template(value)
        return value
    return TABLE.read(name, value)


def _read_tables(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UnusableError(f"{name} is not a list of names", 'write ["Orders", "Refunds"]')
    for each in value:
        TABLE.read(f"{name} has {shown(each)}, which", each)
        if value.count(each) > 1:
            raise UnusableError(f"{name} has {shown(each)} twice", "keep one of the two")
    if len(value) > TABLES_MAX:
        raise UnusableError(f"{name} has {len(value)} names", f"keep it to {TABLES_MAX}")
    return tuple(value)


def _word(
    meaning: str, default: str, *others: str, later: tuple[str, ...] = (), or_time: bool = False
) -> RouteField:
    """A field for one of a few words, in any case of letters; `none`, `true` and `false` are read as such."""
    words = (default, *others)

    def read(name: str, value: object) -> object:
        word = str(value).lower() if isinstance(value, str | bool) else ""
        if word in words:
            return {"none": None, "true": True, "false": False}.get(word, word)
        if or_time and _is_time(value):
            return str(value)
        use = f"use {' or '.join(words)}"
        if word in later:
            raise UnusableError(f"{name} {shown(word)} is not yet supported", use)
        subject = f"{name} {shown(value)}" if isinstance(value, str) else name
        raise UnusableError(
            f"{subject} is nothing that is known", f"{use} ({nearest(word, words)} is the nearest)"
        )

    now, not_yet = (", ".join(f"`{word}`" for word in some) for some in (words, later))
    return RouteField(f"`{default}`", meaning, read, f"{now}, an ISO time" if or_time else now, not_yet)


def _is_time(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _not_yet(meaning: str) -> RouteField:
    def read(name: str, _: object) -> object:
        raise UnusableError(f"{name} is not yet supported", "remove it")

    return RouteField("none", meaning, read, "", "any")


FIELDS: Mapping[str, RouteField] = {
    "topic": RouteField(
        "required",
        "Exact name, or `*` for topics of `SINK_TOPICS` not named here",
        _STAR_OR_TOPIC.read,
        "name or `*`",
    ),
    "db": RouteField("required", "Database", _entity(260).read),
    "table": RouteField("required", "Table", _read_table, "name or template"),
    "tables": RouteField("none", "Allow-list of a templated `table`", _read_tables, "list of names"),
    "format": _word("What a value holds", *dict.fromkeys(name for name, _ in LANES), later=("parquet", "orc")),
    "mapping": RouteField("identity", "Name of an ingestion mapping", _entity(1024).read),
    "decode": _word("How the value is framed", "none", "registry"),
    "validate": _word("Check each record before it is staged", "true", "false"),
    "schema": RouteField("none", "Schema that ships with the app", _PATH.read),
    "start": _word("Where a topic begins, or a time", "earliest", "latest", or_time=True),
    "metadata": RouteField("none", "Field that carries Kafka's metadata in every row", _FIELD_NAME.read),
    "unwrap": _not_yet("Envelope to take off"),
    "transform": _not_yet("Function of the user's own"),
    "key": _word("How keys read in metadata", "utf8", "base64", "registry"),
    "when": RouteField(
        "all", "Which records of the topic the route takes", lambda _, value: read_when(value), "object"
    ),
    "tombstones": _word("What becomes of tombstones", "skip", "dead_letter", "row"),
    "streaming": _word("Streaming ingestion", "false", later=("true",)),
    "ingest_by": _not_yet("Extra `ingest-by` tag"),
    "tags": _not_yet("Extra extent tags"),
}
_WAYS: Mapping[Framing, str] = {"registry": "decode registry", "schema": "a schema"}


def read_topics(value: str) -> tuple[str, ...]:
    """The topics of `SINK_TOPICS`, in order, each once.

    Raises:
        UnusableError: one is no topic's name.
    """
    topics = tuple(dict.fromkeys(topic.strip() for topic in value.split(",")))
    if not all(TOPIC.pattern.fullmatch(topic) for topic in topics):
        raise UnusableError("a part of it is no topic's name", f"with commas between, write {TOPIC.words}")
    return topics


def read_route(number: int, entry: object, faults: Faults) -> Route | None:
    """The route that `entry` gives; None, and faults, if it cannot be used.

    Its topic may be `*`, and `{topic}` stand in its table; `start` is empty where the entry gives none.
    """
    if not isinstance(entry, dict):
        faults.add(SETTING, f"route {number} is not an object", "write {...} with topic, db and table")
        return None
    named = isinstance(entry.get("topic"), str)
    subject = f"route {number} (topic {shown(entry['topic'])})" if named else f"route {number}"
    given = {name: value for name, value in entry.items() if value is not None and value != ""}
    found: dict[str, object] = {"start": ""}
    wrong: list[UnusableError] = []
    for name, value in given.items():
        try:
            found[name] = _field(name).read(name, value)
        except UnusableError as unusable:
            wrong.append(unusable)
    wrong += [
        UnusableError(f"it has no {each}", "add it") for each in ("topic", "db", "table") if each not in given
    ]
    if "metadata" not in given:
        if "key" in given:
            wrong.append(UnusableError("key means nothing without metadata", "add metadata or remove key"))
        if found.get("tombstones") == "row":
            wrong.append(UnusableError("tombstones row needs metadata", "add metadata, or skip them"))
    found.pop("streaming", None)  # it can only say that there is none
    route = None if wrong else Route(**found)  # type: ignore[arg-type]  # each field is as it was read
    if route is not None:
        wrong = [*_lane_faults(route), *_table_faults(route)]
    for each in wrong:
        faults.add(SETTING, f"{subject}: {each.fact}", each.fix)
    return None if wrong else route


def _field(name: str) -> RouteField:
    if name not in FIELDS:
        raise UnusableError(f"{shown(name)} is no field of a route", f"{nearest(name, FIELDS)} is the nearest")
    return FIELDS[name]


def _lane_faults(route: Route) -> Iterator[UnusableError]:
    """The route has no lane, or wants what means nothing in it."""
    lane = LANES.get((route.format, route.framing))
    if route.decode is not None and route.schema is not None:
        yield UnusableError("schema means nothing beside decode registry", "remove one of them")
    elif lane is None and route.framing == "none":
        needed = " or ".join(_WAYS[framing] for name, framing in LANES if name == route.format)
        yield UnusableError(f"format {route.format} needs {needed}", "add it")
    elif lane is None:
        others = " or ".join(name for name, framing in LANES if framing == route.framing)
        fact = f"{_WAYS[route.framing]} does not go with format {route.format}"
        yield UnusableError(fact, f"use format {others}")
    else:
        if route.schema is not None:
            yield from _schema_faults(route.schema, lane)
        if not route.validate and not lane.validates:
            fact = f"validate false means nothing: every {route.format.upper()} record is validated"
            yield UnusableError(fact, "remove it")
        asked = next((source for source in route.asks if isinstance(source, Field)), None)
        if asked is not None and not lane.fields:
            what = "when" if route.when is not None and route.when.source == asked else "table"
            fact = f"{what} asks for a field, and only values that arrive as plain JSON have fields"
            yield UnusableError(fact, "ask for a header")


def _schema_faults(path: str, lane: Lane) -> Iterator[UnusableError]:
    """The schema cannot be read, or not by this lane; what that takes is imported where a route has one."""
    from sinkcore.schemas import SchemaError
    from sinkcore.schemas.files import read_own

    try:
        kind = read_own(path).kind
        if kind not in lane.kinds:
            fact = f"its schema is {kind}, and its format takes {' or '.join(lane.kinds)}"
            yield UnusableError(fact, "use another format or schema")
    except SchemaError as error:
        yield UnusableError(f"schema cannot be used: {error}", "ship a schema that can")


def _table_faults(route: Route) -> Iterator[UnusableError]:
    """What a record says of its table is not held against a list, or there is a list for nothing."""
    if sources_of(route.template) and not route.tables:
        fact = "records choose the table, and no list says which ones they may choose"
        yield UnusableError(fact, "add tables, a list of all names")
    if route.tables and "{" not in route.table:
        yield UnusableError("tables means nothing, since table is a name", "remove tables")
