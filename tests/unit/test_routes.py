"""Routes: the connector's mapping as it stands, what is refused and how, and names that are safe anywhere."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sinkcore.conditions import Field, Header, When
from sinkcore.declared import Faults, UnusableError
from sinkcore.lanes import SUFFIXES
from sinkcore.mapping import MAPPING_MAX_CHARACTERS, read_mapping
from sinkcore.routes import FIELDS, Route
from sinkcore.routeset import read_routes

ROUTE = {"topic": "flights", "db": "db", "table": "Flights"}


def routes_of(text: str, *starred: str) -> tuple[tuple[Route, ...], list[str]]:
    faults = Faults()
    return read_routes(text, starred, faults), faults.sentences


def one_fault(entry: Any, *starred: str) -> str:
    _, (fault,) = routes_of(json.dumps([entry] if isinstance(entry, dict) else entry), *starred)
    return fault


ARTICLE = (
    "[{'topic': 'crimes','db': 'crimes_db', 'table': 'crimes_curated','format': 'json',"
    " 'mapping':'crimes_curated_mapping'}]"
)
ACCEPTED: list[tuple[str, Route]] = [
    (
        ARTICLE,
        Route("crimes", "crimes_db", "crimes_curated", "json", "crimes_curated_mapping"),
    ),
    (
        "[{'topic':'t','db':'d','table':'T','format':'MultiJson','mapping':'','streaming':'false'}]",
        Route("t", "d", "T", "multijson"),
    ),
    (
        """[{'topic': "t", "db": 'd', 'table': "T", 'validate': 'True', 'decode': null, "streaming": false}]""",
        Route("t", "d", "T"),
    ),
    ("[{'topic':'2024','db':'d e-f.g','table':'_T','mapping':'1'}]", Route("2024", "d e-f.g", "_T", mapping="1")),
    ("[{'topic': 2024, 'db': 'd', 'table': 7}]", Route("2024", "d", "7")),
    (
        json.dumps(
            [{**ROUTE, "metadata": "_kafka", "key": "base64", "tombstones": "dead_letter", "start": "earliest"}]
        ),
        Route("flights", "db", "Flights", metadata="_kafka", key="base64", tombstones="dead_letter"),
    ),
    (json.dumps([{**ROUTE, "format": "singlejson"}]), Route("flights", "db", "Flights", "singlejson")),
    (json.dumps([{**ROUTE, "format": "TSVE"}]), Route("flights", "db", "Flights", "tsve")),
    (
        json.dumps([{**ROUTE, "format": "avro", "decode": "registry", "validate": "false"}]),
        Route("flights", "db", "Flights", "avro", decode="registry", validate=False),
    ),
    (
        json.dumps([{**ROUTE, "metadata": "_kafka", "tombstones": "row"}]),
        Route("flights", "db", "Flights", metadata="_kafka", tombstones="row"),
    ),
    (json.dumps([{**ROUTE, "topic": "A.b_c-9" * 35}]), Route("A.b_c-9" * 35, "db", "Flights")),
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED)
def test_a_mapping_is_taken_in_the_connectors_syntax_and_in_json(text: str, expected: Route) -> None:
    """Whoever comes from the connector pastes the mapping and is done."""
    assert routes_of(text) == ((expected,), [])


QUOTES: list[tuple[str, object]] = [
    (r"""['it\'s']""", "it's"),
    ("""["it's"]""", "it's"),
    ("""['say "hi"']""", 'say "hi"'),
    (r"""['say \"hi\"']""", 'say "hi"'),
    (r"""["say \"it's\""]""", 'say "it\'s"'),
    (r"""['a\\']""", "a\\"),
    (r"""['a\\\'b']""", "a\\'b"),
    (r"""['\u00e9\n']""", "é\n"),
    ("""['[{not brackets}]']""", "[{not brackets}]"),
    ("""['']""", ""),
]


@pytest.mark.parametrize(("text", "expected"), QUOTES)
def test_quotes_inside_quotes_keep_their_meaning(text: str, expected: object) -> None:
    """Answers by hand: a quote of the other kind is a letter, an escaped one too."""
    assert read_mapping(text) == [expected]


UNREADABLE: list[tuple[str, str]] = [
    ("", "not JSON"),
    ("[", "not JSON"),
    ("[{'topic': 'it's'}]", r"written \'"),
    ("['abc", "not JSON"),
    (r"['abc\'", "not JSON"),
    ("['abc\\", "not JSON"),
    ("['a\nb']", "control character"),
    (r"['\x41']", "escape"),
    ("{'topic': 't'}", "not a list"),
    ("null", "not a list"),
    ("[]", "0 routes"),
    (f"[{'1,' * 1000}1]", "1001 routes"),
    ("[NaN]", "NaN"),
    ("[-Infinity]", "-Infinity"),
    ("[True]", "not JSON"),
    ("[('a', 'b')]", "not JSON"),
    ("[{'topic': 'a', 'topic': 'b'}]", '"topic" twice'),
    ("[" * 9 + "]" * 9, "deeper than 8"),
    ("[" * 100_000, "deeper than 8"),
    ("[" + " " * MAPPING_MAX_CHARACTERS + "]", "131074 characters"),
    ("[{'topic': 't'}] trailing", "not JSON"),
]


@pytest.mark.parametrize(("text", "words"), UNREADABLE)
def test_a_mapping_that_cannot_be_read_says_where_or_why(text: str, words: str) -> None:
    """The text is a person's, typed into one line of a portal."""
    with pytest.raises(UnusableError) as raised:
        read_mapping(text)

    assert words in str(raised.value)


@pytest.mark.parametrize("opening", ["", "'", '"'])
@pytest.mark.parametrize("unit", ['"', "'", '\\"', "\\'", "\\", '{"', "[]", "'a',"])
def test_a_hostile_mapping_is_refused_in_linear_time(opening: str, unit: str) -> None:
    """Start-up must not hang on a long text of quotes: each character is looked at a fixed number of times."""
    text = (opening + unit * MAPPING_MAX_CHARACTERS)[: MAPPING_MAX_CHARACTERS - 1] + "\\"
    started = time.process_time()

    with pytest.raises(UnusableError):
        read_mapping(text)

    assert time.process_time() - started < 1.0


NOT_YET: list[tuple[str, Any]] = [
    *(("format", name) for name in ("parquet", "orc", "ORC")),
    ("unwrap", "debezium"),
    ("transform", "my.module:function"),
    ("streaming", True),
    ("streaming", "true"),
    ("ingest_by", "x"),
    ("tags", ["x"]),
]


@pytest.mark.parametrize(("name", "value"), NOT_YET)
def test_what_comes_later_is_refused_by_name(name: str, value: Any) -> None:
    """An option that is ignored would land rows in the wrong place or form, silently."""
    fault = one_fault({**ROUTE, name: value})

    assert fault.startswith('SINK_TOPICS_MAPPING: route 1 (topic "flights"): ')
    assert name in fault
    assert "not yet" in fault


def test_a_schema_of_another_kind_than_the_format_takes_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "flight.json"
    path.write_text("{}")

    fault = one_fault({**ROUTE, "format": "avro", "schema": str(path)})

    assert "its schema is JSON, and its format takes AVRO" in fault


def test_a_descriptor_set_needs_a_message_type(tmp_path: Path) -> None:
    path = tmp_path / "flight.desc"
    path.write_bytes(b"")

    assert "no message type of that name" in one_fault({**ROUTE, "schema": str(path)})
    assert "no message type of that name" in one_fault({**ROUTE, "schema": f"{path}#Flight"})


FIELD = {"field": "a", "equals": 1}
TABLES = {"tables": ["T_a"]}
REFUSED: list[tuple[Any, str]] = [
    ({**ROUTE, "tabel": "T"}, '"tabel" is no field of a route; table is the nearest'),
    ({**ROUTE, "Topic": "T"}, "topic is the nearest"),
    ({**ROUTE, "format": "jsn"}, "json is the nearest"),
    ({**ROUTE, "format": ["json"]}, "format is nothing that is known; use json or"),
    ({**ROUTE, "tombstones": "skipp"}, "skip is the nearest"),
    ({**ROUTE, "start": "yesterday"}, 'start "yesterday" is nothing that is known; use earliest or latest'),
    ({**ROUTE, "validate": False}, "every JSON record is validated"),
    ({**ROUTE, "validate": "false"}, "every JSON record is validated"),
    ({**ROUTE, "validate": False, "format": "csv"}, "every CSV record is validated"),
    ({**ROUTE, "decode": "registry", "format": "csv"}, "decode registry does not go with format csv"),
    ({**ROUTE, "format": "avro"}, "format avro needs decode registry or a schema"),
    (
        {**ROUTE, "format": "txt", "schema": "a.avsc"},
        "a schema does not go with format txt; use format json or avro or apacheavro",
    ),
    (
        {**ROUTE, "format": "avro", "schema": "a.avsc", "decode": "registry"},
        "schema means nothing beside decode registry",
    ),
    ({**ROUTE, "format": "avro", "schema": "missing.avsc"}, "its file cannot be read: No such file"),
    ({**ROUTE, "format": "avro", "schema": "a\n"}, "schema is not a name that can be used"),
    ({**ROUTE, "tombstones": "row"}, "tombstones row needs metadata"),
    ({**ROUTE, "key": "base64"}, "key means nothing without metadata"),
    ({"topic": "t", "db": "d"}, "has no table"),
    ({"topic": "t", "db": None, "table": "T"}, "has no db"),
    ({"topic": "", "db": "d", "table": "T"}, "has no topic"),
    ([ROUTE, ROUTE], "of routes 1 and 2 the first takes all records, so the second can never match"),
    ([ROUTE, {**ROUTE, "table": "Other"}], "the second can never match"),
    ([ROUTE, {**ROUTE, "when": {"header": "h", "equals": "x"}}], "the second can never match"),
    ([{**ROUTE, "when": FIELD}, {**ROUTE, "table": "T", "when": FIELD}], "the first has the same when"),
    ([{**ROUTE, "when": FIELD}, {**ROUTE, "when": {"field": "a", "equals": 10e-1}}], "can never match"),
    ([{**ROUTE, "start": "latest", "when": FIELD}, {**ROUTE, "start": "earliest"}], "give different starts"),
    ([{**ROUTE, "metadata": "_k", "when": FIELD}, ROUTE], 'lead to the table "Flights" and differ in metadata'),
    ([{**ROUTE, "table": f"T{n}", "when": {"field": "a", "equals": n}} for n in range(65)], "lead to 65 tables"),
    ({**ROUTE, "when": "type=order"}, "when is not an object"),
    ({**ROUTE, "when": []}, "when is not an object"),
    ({**ROUTE, "when": {}}, "exactly one of header and field"),
    ({**ROUTE, "when": {"header": "h", "field": "f", "equals": "x"}}, "exactly one of header and field"),
    ({**ROUTE, "when": {"header": "h"}}, "when has no equals"),
    ({**ROUTE, "when": {"header": "h", "equal": "x"}}, '"equal", which it does not know; equals is the nearest'),
    ({**ROUTE, "when": {"header": "h", "equals": 7}}, "equals is not text, as every header is; put it in quotes"),
    ({**ROUTE, "when": {"header": "h", "equals": None}}, "equals is not text"),
    ({**ROUTE, "when": {"header": "h", "equals": True}}, "equals is not text"),
    ({**ROUTE, "when": {"header": "", "equals": "x"}}, "the name of a header is no text, or empty"),
    ({**ROUTE, "when": {"header": ["h"], "equals": "x"}}, "the name of a header is no text, or empty"),
    ({**ROUTE, "when": {"field": "f", "equals": [1]}}, "equals is an object or a list"),
    ({**ROUTE, "when": {"field": "f", "equals": {}}}, "equals is an object or a list"),
    ({**ROUTE, "when": {"field": "", "equals": 1}}, "the path of a field is no text, or empty"),
    ({**ROUTE, "when": {"field": ["a", "b"], "equals": 1}}, "the path of a field is no text, or empty"),
    ({**ROUTE, "when": {"field": "a..b", "equals": 1}}, "a dot without a name beside it"),
    ({**ROUTE, "when": {"field": ".a", "equals": 1}}, "a dot without a name beside it"),
    ({**ROUTE, "when": {"field": "a.", "equals": 1}}, "a dot without a name beside it"),
    ({**ROUTE, "when": {"field": "$.a", "equals": 1}}, "begin with the field's name: a.b, not $.a.b"),
    ({**ROUTE, "when": {"field": "a[0]", "equals": 1}}, "elements of arrays cannot be asked for"),
    ({**ROUTE, "when": {"field": "a['b']", "equals": 1}}, "elements of arrays cannot be asked for"),
    ({**ROUTE, "when": {"field": 'a"b', "equals": 1}}, "a quote, a backslash, a control character"),
    ({**ROUTE, "when": {"field": "a\\\\b", "equals": 1}}, "a quote, a backslash, a control character"),
    ({**ROUTE, "when": {"field": "\ud800", "equals": 1}}, "half a character"),
    ({**ROUTE, "when": {"field": ".".join("a" * 17), "equals": 1}}, "has 17 names; keep it to 16"),
    (
        {**ROUTE, "when": FIELD, "format": "csv"},
        "when asks for a field, and only values that arrive as plain JSON",
    ),
    ({**ROUTE, "when": FIELD, "format": "avro", "decode": "registry"}, "when asks for a field"),
    ({**ROUTE, **TABLES, "table": "T_{field:a}", "format": "txt"}, "table asks for a field"),
    ({**ROUTE, "table": "T_{header:h}"}, "records choose the table, and no list says"),
    ({**ROUTE, "table": "{field:a}"}, "add tables, a list of all names"),
    ({**ROUTE, "tables": ["A"]}, "tables means nothing, since table is a name"),
    ({**ROUTE, **TABLES, "table": "T_{head:h}"}, '"{head:h}", which is no placeholder'),
    ({**ROUTE, **TABLES, "table": "T_{Topic}"}, '"{Topic}", which is no placeholder'),
    ({**ROUTE, **TABLES, "table": "T_{}"}, '"{}", which is no placeholder'),
    ({**ROUTE, **TABLES, "table": "T_{header:}"}, "the name of a header is no text, or empty"),
    ({**ROUTE, **TABLES, "table": "T_{field:a[0]}"}, "elements of arrays cannot be asked for"),
    ({**ROUTE, **TABLES, "table": "T_{header:h"}, "a brace without its partner"),
    ({**ROUTE, **TABLES, "table": "T_header:h}"}, "a brace without its partner"),
    ({**ROUTE, **TABLES, "table": "T_{header:{h}}"}, "a brace without its partner"),
    ({**ROUTE, **TABLES, "table": "U_{header:h}"}, 'tables has "T_a", which table can never become'),
    ({**ROUTE, "table": "T_{header:h}", "tables": []}, "tables is not a list of names"),
    ({**ROUTE, "table": "T_{header:h}", "tables": "T_a"}, "tables is not a list of names"),
    ({**ROUTE, "table": "T_{header:h}", "tables": ["T_a", "T_a"]}, '"T_a" twice'),
    ({**ROUTE, "table": "T_{header:h}", "tables": ["T_a'); drop"]}, "which is not a name that can be used"),
    ({**ROUTE, "table": "T_{header:h}", "tables": ["T_a", None]}, "which is not a name that can be used"),
    ({**ROUTE, "table": "T_{header:h}", "tables": [f"T_{n}" for n in range(65)]}, "65 names; keep it to 64"),
    ({**ROUTE, "table": "{topic}", "tables": ["Flights"]}, 'table is "flights", which tables lacks'),
    ({**ROUTE, "topic": ".t", "table": "{topic}"}, "with the topic's name, table is not a name that can be used"),
    ({**ROUTE, "table": "a b{topic} "}, "with the topic's name, table is not a name that can be used"),
    ({**ROUTE, "db": "{topic}"}, "db is not a name that can be used"),
    ([7], "route 1 is not an object"),
    ({**ROUTE, "topic": "*"}, "SINK_TOPICS: it is not set"),
]


@pytest.mark.parametrize(("entry", "words"), REFUSED)
def test_a_route_that_cannot_be_used_is_one_fault(entry: Any, words: str) -> None:
    """Each names the route, the field, and the nearest that would do."""
    assert words in one_fault(entry)


def test_a_star_that_is_left_without_topics_is_refused() -> None:
    """It could never match, so its author expects something that does not happen."""
    assert "can never match" in one_fault([ROUTE, {**ROUTE, "topic": "*"}], "flights")


UNSAFE = [
    "a'b",
    'a"b',
    "a;b",
    "a|b",
    "a/b",
    "..",
    ".a",
    "-a",
    " a",
    "a ",
    "a]b",
    "a\nb",
    "a\x00b",
    "é",
    "a%b",
    "a\\b",
]


@pytest.mark.parametrize("name", ["db", "table", "mapping", "metadata", "topic"])
@pytest.mark.parametrize("value", UNSAFE)
def test_a_name_that_could_leave_its_place_in_a_command_or_url_is_refused(name: str, value: str) -> None:
    """Names are put into KQL commands, URLs, JSON and blob paths."""
    if name == "topic" and value in (".a", "-a"):
        assert routes_of(json.dumps([{**ROUTE, "topic": value}]))[1] == []
        return

    fault = one_fault({**ROUTE, name: value})

    assert f"{name} is not a name that can be used" in fault
    assert fault.isascii()


@pytest.mark.parametrize(("name", "most"), [("db", 260), ("table", 1024), ("mapping", 1024), ("topic", 249)])
def test_names_are_as_long_as_their_place_takes(name: str, most: int) -> None:
    """Kafka's, Kusto's and Azure's own limits, exactly."""
    assert routes_of(json.dumps([{**ROUTE, name: "n" * most}]))[1] == []
    assert "1 to" in one_fault({**ROUTE, name: "n" * (most + 1)})


def test_every_fault_of_every_route_is_reported() -> None:
    """One round of mending should do."""
    entries = [{"topic": "a/b", "db": "d"}, 5, {**ROUTE, "format": "xml", "when": {}}]

    routes, sentences = routes_of(json.dumps(entries))

    assert routes == ()
    assert [sentence.split(":")[1][:9] for sentence in sentences] == [" route 1 "] * 2 + [" route 2 "] + [
        " route 3 "
    ] * 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WORDS = re.findall("`([a-z0-9-]+)`", " ".join(field.values + field.later for field in FIELDS.values()))
ENTRIES = st.dictionaries(
    st.sampled_from([*FIELDS, "tabel"]), VALUES | st.sampled_from([*WORDS, "t", "*", "{topic}"]), max_size=8
)


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(list("[]{}'\"\\,: \ntrue0a\ud800")), max_size=40) | st.text(max_size=40))
@example("[{'\ud800': 1}]")
@example("[{'topic': '\ud800', 'db': 'd', 'table': 'T'}]")
def test_any_text_gives_routes_or_faults_that_can_be_printed(text: str) -> None:
    """Whatever is typed, start-up ends in routes or in lines of ASCII, never in a traceback."""
    routes, sentences = routes_of(text)

    assert bool(sentences) or routes
    assert all(sentence.isascii() and "\n" not in sentence for sentence in sentences)


@settings(max_examples=200, deadline=None)
@given(
    entries=st.lists(ENTRIES, min_size=1, max_size=3), given_topics=st.lists(st.sampled_from("abt"), max_size=2)
)
def test_any_entries_give_routes_or_faults(entries: list[dict[str, Any]], given_topics: list[str]) -> None:
    """The same, past the parser: fields of the right names with values of any kind."""
    routes, sentences = routes_of(json.dumps(entries), *given_topics)

    if not sentences:
        assert len(routes) >= len(entries)
        assert all(route.lane and route.stored_format in SUFFIXES for route in routes)
    assert all(sentence.isascii() for sentence in sentences)


@settings(max_examples=200, deadline=None)
@given(value=st.text(max_size=20))
def test_any_string_survives_single_quotes(value: str) -> None:
    """Quoted as the connector's users quote it: JSON's escapes, with the outer quotes single."""
    quoted = "'" + json.dumps(value)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"

    assert read_mapping(f"[{quoted}]") == [value]


@pytest.mark.parametrize(
    "start", ["earliest", "latest", "2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+02:00"]
)
def test_a_topic_begins_at_its_start_at_its_end_or_at_a_time(start: str) -> None:
    faults = Faults()

    (route,) = read_routes(json.dumps([{**ROUTE, "start": start}]), (), faults)

    assert faults.sentences == []
    assert route.start == start


def test_an_exponent_that_cannot_be_counted_to_is_refused() -> None:
    """Only here, since JSON's own writer does not make such a number."""
    text = '[{"topic": "t", "db": "d", "table": "T", "when": {"field": "a", "equals": 1e9999999999999999999}}]'

    assert "an exponent that cannot be used" in routes_of(text)[1][0]


WHENS: list[tuple[str, When]] = [
    ('{"header": "type", "equals": "order"}', When(Header("type"), '"order')),
    ("{'header': 'type', 'equals': ''}", When(Header("type"), '"')),
    ('{"field": "a.b", "equals": "1"}', When(Field(("a", "b")), '"1')),
    ('{"field": "a", "equals": 1}', When(Field(("a",)), "1e0")),
    ('{"field": "a", "equals": -10.50}', When(Field(("a",)), "-105e-1")),
    ('{"field": "a", "equals": -0.0}', When(Field(("a",)), "0")),
    ('{"field": "a", "equals": true}', When(Field(("a",)), "true")),
    ('{"field": "a", "equals": null}', When(Field(("a",)), "null")),
    (r'{"field": "a\\.b.\\[c\\]", "equals": null}', When(Field(("a.b", "[c]")), "null")),
    ('{"field": "$", "equals": null}', When(Field(("$",)), "null")),
]


@pytest.mark.parametrize(("text", "when"), WHENS)
def test_a_condition_is_read_as_it_is_written(text: str, when: When) -> None:
    """Texts and numbers are two things, though the connector's syntax takes one for the other elsewhere."""
    (route,), sentences = routes_of(f'[{{"topic": "t", "db": "d", "table": "T", "when": {text}}}]')

    assert sentences == []
    assert route.when == when


def test_several_routes_of_a_topic_stay_in_their_order_and_begin_where_one_of_them_says() -> None:
    entries = [
        {**ROUTE, "table": "A", "when": {"header": "h", "equals": "a"}},
        {"topic": "*", "db": "db", "table": "S_{topic}", "when": FIELD},
        {**ROUTE, "table": "B", "start": "latest"},
        {"topic": "*", "db": "db", "table": "Rest"},
    ]

    routes, sentences = routes_of(json.dumps(entries), "x", "y", "flights")

    assert sentences == []
    assert [(r.topic, r.table, r.start) for r in routes] == [
        ("flights", "A", "latest"),
        ("flights", "B", "latest"),
        ("x", "S_x", "earliest"),
        ("x", "Rest", "earliest"),
        ("y", "S_y", "earliest"),
        ("y", "Rest", "earliest"),
    ]


def test_what_is_wrong_with_the_routes_for_all_topics_is_said_once() -> None:
    star = {"topic": "*", "db": "db", "table": "T"}

    _, sentences = routes_of(json.dumps([star, star]), *(f"t{n}" for n in range(50)))

    assert len(sentences) == 1


@pytest.mark.parametrize("unit", ["{header:h}", "{field:a}", "a"])
def test_a_hostile_template_is_read_in_linear_time(unit: str) -> None:
    """A name is held against a template of very many placeholders without trying all ways to cut it."""
    table = unit * (20_000 // len(unit))
    started = time.process_time()

    routes_of(json.dumps([{**ROUTE, "table": table + "{header:h}b", "tables": ["a" * 1000]}]))

    assert time.process_time() - started < 1.0
