"""Which route takes a record: each detail by example, and all of them against a slow matcher of another make."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sinkcore.declared import Faults
from sinkcore.fields import Finder
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.routeset import read_routes
from sinkcore.routing import DECISIONS_KEPT, REMEMBERED_MAX_BYTES, Routed, router_of
from tests.support.events import Sent, events_of
from tests.support.strictjson import NotJsonError
from tests.support.strictjson import parse as strictly

LIMIT = 4096
BASE = {"topic": "flights", "db": "db"}


def routes_of(*entries: dict[str, Any]) -> tuple[Route, ...]:
    """Routes of `flights`, by way of the settings."""
    faults = Faults()
    routes = read_routes(json.dumps([BASE | entry for entry in entries]), (), faults)
    assert faults.sentences == []
    return routes


def routed(entries: list[dict[str, Any]], records: list[Sent], limit: int = LIMIT) -> Routed:
    return router_of(routes_of(*entries)).split(slices_of(events_of(records)), limit)


def ends_of(found: Routed) -> dict[tuple[int, int], str]:
    """Where each record is, by partition and offset: a table's name, or a reason; each is in one place."""
    places = [
        ((piece.partition, offset), part.route.table)
        for part in found.parts
        for piece in part.slices
        for offset in piece.offsets
    ]
    places += [((r.record.partition, r.record.offset), r.reason) for _, r in found.refused]
    assert len(dict(places)) == len(places), "a record is in two places"
    return dict(places)


def end_of(entries: list[dict[str, Any]], value: bytes | None, *headers: tuple[str, bytes | None]) -> str:
    """Where one record ends; `skipped` if nowhere."""
    return ends_of(routed(entries, [Sent(value, 0, headers=headers)])).get((0, 0), "skipped")


def by_header(equals: str, table: str = "A") -> dict[str, Any]:
    return {"table": table, "when": {"header": "type", "equals": equals}}


def by_field(path: str, equals: Any, table: str = "A", **more: Any) -> dict[str, Any]:
    return {"table": table, "when": {"field": path, "equals": equals}, **more}


HEADERS: list[tuple[list[tuple[str, bytes | None]], str]] = [
    ([("type", b"order")], "A"),
    ([("type", b"refund"), ("type", b"order")], "A"),
    ([("type", b"order"), ("type", b"refund")], "no_route"),
    ([("type", b"order"), ("type", None)], "no_route"),
    ([("Type", b"order")], "no_route"),
    ([("type", b"Order")], "no_route"),
    ([("type", b"order ")], "no_route"),
    ([("type", b"\xfforder")], "no_route"),
    ([("type", None)], "no_route"),
    ([("type", b"")], "no_route"),
    ([("other", b"order")], "no_route"),
    ([], "no_route"),
]


@pytest.mark.parametrize(("headers", "end"), HEADERS)
def test_a_header_matches_letter_by_letter_and_the_last_of_its_name_counts(
    headers: list[tuple[str, bytes | None]], end: str
) -> None:
    """Kafka's own client calls the last one the header of that name."""
    assert end_of([by_header("order")], b"{}", *headers) == end


@pytest.mark.parametrize("value", [b"", b"not json", b"\xff", b"x" * (LIMIT + 1)])
def test_a_header_is_asked_for_whatever_the_value_is(value: bytes) -> None:
    """What becomes of the value is for the route that takes it."""
    assert end_of([by_header("order")], value, ("type", b"order")) == "A"
    assert end_of([by_header("order")], value) == "no_route"


EQUAL: list[tuple[Any, list[str], list[str]]] = [
    (
        1,
        ["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000000000000000000000"],
        [
            '"1"',
            "true",
            "null",
            "1.0000000000000000000001",
            "[1]",
            '{"b":1}',
            "-1",
            "1e999",
            "1e99999999999999999999",
        ],
    ),
    (0, ["0", "-0", "0.0", "0e99999999999999999999", "-0e-5"], ["false", '""', "null", "1e-400"]),
    (9007199254740993, ["9007199254740993", "9007199254740993.0"], ["9007199254740992"]),
    (Decimal("1E400"), ["1e400", "10E399"], ["1e401"]),
    ("1", ['"1"', '"\\u0031"'], ["1", "1.0"]),
    ("é\n", ['"é\\n"', '"\\u00e9\\n"'], ['"e\\u0301\\n"', '"É\\n"']),
    ("", ['""'], ["null", "0", "false", "[]", "{}"]),
    ("null", ['"null"'], ["null"]),
    (None, ["null"], ['"null"', "false", "0", '""']),
    (True, ["true"], ["1", '"true"', "false"]),
    (False, ["false"], ["0", "null", '""']),
]


@pytest.mark.parametrize(("equals", "same", "others"), EQUAL)
@pytest.mark.parametrize("path", ["a", "x.a"])
def test_a_field_equals_by_type_and_by_exact_value(
    equals: Any, same: list[str], others: list[str], path: str
) -> None:
    """`1`, `1.0` and `10e-1` are one number and `"1"` is a text; floats would take neighbours for equal."""
    routes = read_routes(f"[{text_of(BASE | by_field(path, equals))}]", (), faults := Faults())
    assert faults.sentences == []
    around = '{"a": %s}' if path == "a" else '{"x": {"a": %s}}'

    found = router_of(routes).split(
        slices_of(events_of([Sent((around % each).encode(), n) for n, each in enumerate([*same, *others])])), LIMIT
    )

    assert ends_of(found) == {
        (0, n): "A" if each in same else "no_route" for n, each in enumerate([*same, *others])
    }


SHAPES: list[tuple[str, bytes, str]] = [
    ("a.b", b'{"a":{"b":7}}', "A"),
    ("a.b", b' {"a" : {"b" : 7 } } \n', "A"),
    ("a.b", b'{"\\u0061":{"b":7}}', "A"),
    ("a.b", b'{"a.b":7}', "no_route"),
    ("a.b", b'{"a":null}', "no_route"),
    ("a.b", b'{"a":"x"}', "no_route"),
    ("a.b", b'{"a":1e999}', "no_route"),
    ("a.b", b'{"a":[{"b":7}]}', "no_route"),
    ("a.b", b'{"b":7}', "no_route"),
    ("a.b", b'{"a":{"b":7},"a":5}', "no_route"),
    ("a.b", b'{"a":5,"a":{"b":7}}', "A"),
    ("a.b", b'{"a":{"b":7},"a":{"c":7}}', "no_route"),
    ("a.b", b'{"a":{"b":7,"b":8}}', "no_route"),
    ("a.b", b'{"a":{"b":8,"b":7}}', "A"),
    (r"a\.b", b'{"a.b":7}', "A"),
    (r"a\[0\]", b'{"a[0]":7}', "A"),
    ("$schema", b'{"$schema":7}', "A"),
    ("é", '{"é":7}'.encode(), "A"),
    ("a b", b'{"a b":7}', "A"),
    ("a", b'{"a":7', "invalid_json"),
    ("a", b'{"a":7}}', "invalid_json"),
    ("a", b'{"a":7} {"a":7}', "invalid_json"),
    ("a", b'{"a":7,}', "invalid_json"),
    ("a", b'{"a":8,"x":"\xff"}', "invalid_json"),
    ("a", b'{"a":"\xff"}', "invalid_json"),
    ("a", b'\xef\xbb\xbf{"a":7}', "invalid_json"),
    ("a", b"   ", "invalid_json"),
    ("a", b"[7]", "not_an_object"),
    ("a", b'[{"a":7}]', "not_an_object"),
    ("a", b"7", "not_an_object"),
    ("a", b"null", "not_an_object"),
    ("a", b"[" * 2000, "too_deep"),
    ("a", b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", "too_deep"),
    ("a", b'{"a":7,"x":"' + b"y" * LIMIT + b'"}', "too_large"),
    ("a", b"x" * (LIMIT + 1), "too_large"),
    ("a", b"", "skipped"),
]


@pytest.mark.parametrize(("path", "value", "end"), SHAPES)
def test_a_field_is_found_by_its_path_and_what_has_no_fields_says_why(path: str, value: bytes, end: str) -> None:
    """A dead letter `no_route` for a record that is broken would send its reader after the wrong thing."""
    assert end_of([by_field(path, 7)], value) == end


@pytest.mark.parametrize("value", [value for _, value, end in SHAPES if end not in ("A", "no_route")])
def test_what_has_no_fields_goes_to_a_route_that_asks_for_none(value: bytes) -> None:
    """It does not match and is no error; the route that takes it judges it."""
    assert end_of([by_field("a", 7), {"table": "Rest"}], value) == "Rest"


@pytest.mark.parametrize("format_", ["multijson", "singlejson"])
def test_a_record_of_several_objects_has_no_fields(format_: str) -> None:
    """The record is looked at as it arrived, and never split over routes."""
    entries = [by_field("a", 7, format=format_)]

    assert end_of(entries, b'[{"a":7}]') == "no_route"
    assert end_of(entries, b'{"a":7}{"a":7}') == "no_route"
    assert end_of(entries, b'{"a":7}') == "A"
    assert end_of(entries, b'[{"a":7},') == "invalid_json"
    assert end_of([*entries, {"table": "Rest", "format": format_}], b'[{"a":7}]') == "Rest"


@pytest.mark.parametrize(
    ("tombstones", "end"), [("skip", "skipped"), ("dead_letter", "tombstone"), ("row", "no_route")]
)
def test_a_tombstone_that_no_route_takes_is_what_the_first_route_by_field_says(tombstones: str, end: str) -> None:
    """It has no fields to ask for; a compacted topic must not fill the dead letters."""
    metadata = {"metadata": "_kafka"}
    entries = [by_header("x", "H"), by_field("a", 7, tombstones=tombstones, **metadata), by_field("a", 8, "B")]

    assert end_of(entries, None) == end
    assert end_of([*entries, {"table": "Rest"}], None) == "Rest"
    assert end_of(entries, None, ("type", b"x")) == "H"


TEMPLATE: dict[str, Any] = {
    "table": "T_{header:type}_{field:a.b}",
    "tables": ["T_x_y", "T_x_7", "T_x_1.0", "T_x_true", "T_x_"],
}
YIELDS: list[tuple[bytes, str]] = [
    (b'{"a":{"b":"y"}}', "T_x_y"),
    (b'{"a":{"b":"\\u0079"}}', "T_x_y"),
    (b'{"a":{"b":7}}', "T_x_7"),
    (b'{"a":{"b":1.0}}', "T_x_1.0"),
    (b'{"a":{"b":true}}', "T_x_true"),
    (b'{"a":{"b":""}}', "T_x_"),
    (b'{"a":{"b":7.0}}', "table_not_allowed"),
    (b'{"a":{"b":"Y"}}', "table_not_allowed"),
    (b'{"a":{"b":null}}', "table_not_allowed"),
    (b'{"a":{"b":["y"]}}', "table_not_allowed"),
    (b'{"a":{"b":"y; drop"}}', "table_not_allowed"),
    (b'{"a":{}}', "table_not_allowed"),
    (b'{"a":{"b":"y"}', "invalid_json"),
    (b"[]", "not_an_object"),
    (b"x" * (LIMIT + 1), "too_large"),
    (b"", "skipped"),
]


@pytest.mark.parametrize(("value", "end"), YIELDS)
def test_a_template_yields_a_name_of_the_list_or_a_dead_letter(value: bytes, end: str) -> None:
    """A record never makes up a name: names go into commands and messages."""
    assert end_of([TEMPLATE], value, ("type", b"x")) == end


def test_a_route_that_has_taken_a_record_keeps_it_whatever_its_table_becomes() -> None:
    """Behind it only its own kind of refusal is of use, and its dead letter has the template for a table."""
    entries = [TEMPLATE | {"when": {"header": "type", "equals": "x"}}, {"table": "Rest"}]

    found = routed(entries, [Sent(b'{"a":{"b":"?"}}', 0, headers=(("type", b"x"),))])

    ((route, refused),) = found.refused
    assert (route and route.table, refused.reason) == (TEMPLATE["table"], "table_not_allowed")
    assert "?" not in refused.detail


@pytest.mark.parametrize(
    ("tombstones", "end"), [("skip", "skipped"), ("dead_letter", "tombstone"), ("row", "table_not_allowed")]
)
def test_a_tombstone_of_a_template_that_asks_for_a_field(tombstones: str, end: str) -> None:
    entry = TEMPLATE | {"tombstones": tombstones, "metadata": "_kafka"}

    assert end_of([entry], None, ("type", b"x")) == end


def test_a_topics_name_in_a_template_is_put_in_at_start() -> None:
    faults = Faults()
    routes = read_routes('[{"topic": "*", "db": "d", "table": "Raw_{topic}"}]', ("a", "b.c"), faults)

    assert faults.sentences == []
    assert [(route.topic, route.table) for route in routes] == [("a", "Raw_a"), ("b.c", "Raw_b.c")]
    assert [router_of((route,)).split([], LIMIT).parts[0].route for route in routes] == list(routes)


def test_a_batch_of_one_route_without_conditions_is_handed_on_as_it_is() -> None:
    """Whoever does not route pays nothing for it: not a list, not an object."""
    slices = slices_of(events_of([Sent(b"{", 0), Sent(None, 1), Sent(b"{}", 0, 3)]))

    (part,) = router_of(routes_of({"table": "A"})).split(slices, LIMIT).parts

    assert all(one is other for one, other in zip(part.slices, slices, strict=True))


def test_partitions_stay_apart_and_offsets_in_order() -> None:
    records = [Sent(json.dumps({"k": (p + o) % 2}).encode(), o, p) for p in (2, 0) for o in range(4)]

    odd, rest = routed([by_field("k", 1, "Odd"), {"table": "Rest"}], records).parts

    assert [(s.partition, s.offsets) for s in odd.slices] == [(0, [1, 3]), (2, [1, 3])]
    assert [(s.partition, s.offsets) for s in rest.slices] == [(0, [0, 2]), (2, [0, 2])]
    assert all(
        event.get_body() == value for s in odd.slices for event, value in zip(s.events, s.values, strict=True)
    )


def test_a_field_that_is_also_the_way_to_another_is_found() -> None:
    """One end cannot be both: such routes are matched a level at a time."""
    entries = [by_field("a", 7), by_field("a.b", 7, "B"), by_field("a.b.c", 7, "C")]

    assert end_of(entries, b'{"a":7}') == "A"
    assert end_of(entries, b'{"a":{"b":7}}') == "B"
    assert end_of(entries, b'{"a":{"b":{"c":7}}}') == "C"


def test_very_many_values_and_long_ones_are_decided_rightly_and_not_remembered() -> None:
    """An id among the fields must not fill the memory of a worker."""
    router = router_of(routes_of(by_field("id", 1), {"table": "Rest"}))
    records = [Sent(b'{"id":%d}' % n, n) for n in range(DECISIONS_KEPT + 10)]
    records.append(Sent(b'{"id":1.' + b"0" * 2 * REMEMBERED_MAX_BYTES + b"}", len(records)))

    found = ends_of(router.split(slices_of(events_of(records)), 1 << 20))

    assert Counter(found.values()) == {"A": 2, "Rest": DECISIONS_KEPT + 9}
    assert router._remembered.cache_info().currsize <= DECISIONS_KEPT
    router._remembered.cache_clear()
    router.split(slices_of(events_of(records[-1:])), 1 << 20)
    assert router._remembered.cache_info().currsize == 0


NAMES = ["a", "b", "c.d", "é"]
NUMBERS = [0, 1, -1, 10, Decimal("1.0"), Decimal("1E+1"), Decimal("0.5")]
SCALARS = st.sampled_from(["x", "y", "", "1", None, True, False, *NUMBERS])


class Pairs(list[tuple[str, Any]]):
    """An object as it is written: names may repeat."""


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


ANY: st.SearchStrategy[Any]
OBJECTS: st.SearchStrategy[Pairs] = st.deferred(
    lambda: st.lists(st.tuples(st.sampled_from(NAMES), ANY), max_size=4).map(Pairs)
)
ANY = st.deferred(lambda: SCALARS | SCALARS | st.lists(SCALARS, max_size=2) | OBJECTS)
VALUES = st.one_of(
    OBJECTS.map(written).map(str.encode),
    OBJECTS.map(written).map(str.encode),
    OBJECTS.map(written).map(str.encode),
    st.sampled_from([b"", b"[]", b"7", b"{", b'{"a":"x"}}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"NaN"]),
)
HEADER_LISTS = st.lists(
    st.tuples(st.sampled_from(["h", "g"]), st.sampled_from([b"x", b"y", b"", None, b"\xff"])), max_size=3
)
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
WHENS = st.one_of(
    st.none(),
    st.builds(lambda path, equals: {"field": path_text(path), "equals": equals}, PATHS, SCALARS),
    st.builds(
        lambda name, equals: {"header": name, "equals": equals},
        st.sampled_from(["h", "g"]),
        st.sampled_from(["x", "y", ""]),
    ),
)
TABLES = st.sampled_from(["A", "B", "T_{header:h}", "T_{field:a}", "T_{field:a.b}_{header:g}"])


def path_text(path: tuple[str, ...]) -> str:
    return ".".join(name.replace(".", r"\.") for name in path)


class Reference:
    """A matcher that parses every record whole, with the standard library, and asks one thing after the other."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.entries = entries

    def end(self, sent: Sent) -> str:
        for entry in self.entries:
            when = entry.get("when")
            if when is None or self.matches(when, sent):
                return self.table(entry, sent)
        return self.refusal(sent, "no_route")

    def matches(self, when: dict[str, Any], sent: Sent) -> bool:
        if "header" in when:
            return self.header(when["header"], sent) == str(when["equals"])
        found = self.field(when["field"], sent)
        return found is not MISSING and same(found, when["equals"])

    def header(self, name: str, sent: Sent) -> str | None:
        values = [value for each, value in sent.headers if each == name]
        try:
            return values[-1].decode() if values and values[-1] is not None else None
        except UnicodeDecodeError:
            return None

    def field(self, path: str, sent: Sent) -> Any:
        value: Any = as_object(sent.value or b"")
        for name in path.replace(r"\.", "\0").split("."):
            if not isinstance(value, dict) or name.replace("\0", ".") not in value:
                return MISSING
            value = value[name.replace("\0", ".")]
        return value

    def table(self, entry: dict[str, Any], sent: Sent) -> str:
        table = str(entry["table"])
        for placeholder, name in (
            ("{header:h}", self.header("h", sent)),
            ("{header:g}", self.header("g", sent)),
            ("{field:a}", named(self.field("a", sent))),
            ("{field:a.b}", named(self.field("a.b", sent))),
        ):
            if placeholder in table:
                if name is None:
                    return self.refusal(sent, "table_not_allowed")
                table = table.replace(placeholder, name)
        if "{" not in str(entry["table"]) or table in entry["tables"]:
            return table
        return self.refusal(sent, "table_not_allowed")

    def any_field(self) -> bool:
        return any("field" in (entry.get("when") or {}) or "{field" in entry["table"] for entry in self.entries)

    def refusal(self, sent: Sent, otherwise: str) -> str:
        asks = self.any_field()
        if not sent.value:
            # Every route of these tests skips tombstones.
            return "skipped" if asks or otherwise == "table_not_allowed" else otherwise
        if asks and not isinstance(parsed(sent.value), dict):
            return "invalid_json" if parsed(sent.value) is MISSING else "not_an_object"
        return otherwise


MISSING = object()


def parsed(value: bytes) -> Any:
    """The value by the standard library, the last of repeated names winning; MISSING if it is no JSON."""
    try:
        strictly(value)
        return json.loads(value, parse_float=Decimal, parse_int=Decimal)
    except (NotJsonError, ValueError, InvalidOperation):
        return MISSING


def as_object(value: bytes) -> Any:
    found = parsed(value)
    return found if isinstance(found, dict) else MISSING


def same(found: Any, wanted: Any) -> bool:
    if isinstance(found, Decimal):
        return isinstance(wanted, int | Decimal) and not isinstance(wanted, bool) and found == wanted
    return type(found) is type(wanted) and bool(found == wanted)


def named(found: Any) -> str | None:
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found) if isinstance(found, str | Decimal) else None


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_every_record_ends_where_a_slow_matcher_puts_it(data: st.DataObject) -> None:
    """Random routes and records; whatever the shape, each record is in exactly one place, and in the right one."""
    entries = []
    for table, when in data.draw(st.lists(st.tuples(TABLES, WHENS), min_size=1, max_size=4)):
        entry: dict[str, Any] = {"table": table} | ({} if when is None else {"when": when})
        if "{" in table:
            chars = ["x", "y", "", "1", "true", "10", "0.5"]
            names = [re.sub("{h.+?}", a, re.sub("{f.+?}", b, table)) for a in ("x", "") for b in chars]
            entry["tables"] = list(dict.fromkeys(names))
        entries.append(entry)
    faults = Faults()
    routes = read_routes("[" + ",".join(text_of(BASE | entry) for entry in entries) + "]", (), faults)
    if faults.sentences:
        assert all("can never match" in sentence or "lead to" in sentence for sentence in faults.sentences)
        return
    drawn = data.draw(st.lists(st.tuples(VALUES, HEADER_LISTS), min_size=1, max_size=12))
    records = [Sent(value, n // 2, n % 2, headers=tuple(headers)) for n, (value, headers) in enumerate(drawn)]

    found = ends_of(router_of(routes).split(slices_of(events_of(records)), LIMIT))

    reference = Reference(entries)
    plain = len(entries) == 1 and "when" not in entries[0] and "{" not in entries[0]["table"]
    for record in records:
        expected = entries[0]["table"] if plain else reference.end(record)
        assert found.get((record.partition, record.offset), "skipped") == expected, record


def text_of(value: Any) -> str:
    """JSON with decimals as they are."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{text_of(inner)}" for name, inner in value.items()) + "}"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


@settings(max_examples=200, deadline=None)
@given(values=st.lists(VALUES, max_size=6), paths=st.lists(PATHS, min_size=1, max_size=4, unique=True))
@example(values=[b'{"a":null}', b'{"a":{"b":1}}'], paths=[("a", "b")])
def test_fields_are_found_together_as_they_are_one_by_one(
    values: list[bytes], paths: list[tuple[str, ...]]
) -> None:
    """One value of an odd shape must not change what is found in its neighbours."""
    together = Finder(paths).columns(values)

    assert together == [[Finder([path]).columns([value])[0][0] for value in values] for path in paths]


def test_the_finder_takes_chunks_of_any_length() -> None:
    chance = random.Random(1)
    values = [b'{"a":%d}' % n if chance.random() < 0.9 else b"{" for n in range(1000)]

    (found,) = Finder([("a",)]).columns(values)

    assert found == [b"%d" % n if value != b"{" else b"" for n, value in enumerate(values)]
