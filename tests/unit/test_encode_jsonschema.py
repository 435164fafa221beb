"""JSON with a schema: what fits passes as it is, what does not fit says where and never what."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.schemas import Reference, Schema
from sinkcore.schemas.jsonparts import holds_itself
from tests.support.events import Sent, events_of
from tests.support.schemas import KnownSchemas, framed, schema_of
from tests.unit.test_encode_json import any_pace

FLIGHT = {
    "type": "object",
    "properties": {
        "number": {"type": "integer", "minimum": 0},
        "legs": {"type": "array", "items": {"$ref": "leg"}},
    },
    "required": ["number"],
}
LEG = {"type": "object", "properties": {"to": {"type": "string", "maxLength": 3}}}
REFERENCES = (Reference("leg", schema_of(LEG, "JSON")),)
KNOWN = KnownSchemas({7: Schema("JSON", json.dumps(FLIGHT), REFERENCES)})
SECRET = b"4111-1111"


def encoded(records: Sequence[bytes], known: KnownSchemas = KNOWN, **route: Any) -> Encoded:
    events = events_of([Sent(value, offset) for offset, value in enumerate(records)])
    return encode(
        slices_of(events),
        Route("flights", "db", "Flights", **{"decode": "registry", **route}),
        segment_id="S" * 26,
        record_max_bytes=1 << 24,
        blob_max_bytes=1 << 28,
        schemas=known,
    )


def lines_of(result: Encoded) -> list[bytes]:
    return [line for body in result.bodies for line in gzip.decompress(body.data).splitlines()]


def faults_of(result: Encoded) -> list[tuple[int, str]]:
    return [(r.record.offset, r.reason) for r in result.refused]


def test_what_fits_passes_byte_for_byte() -> None:
    value = b'{"number":1.0,  "legs": [{"to":"EWR"}], "more": 1e999}'

    assert lines_of(encoded([framed(7, value)])) == [value]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (b'{"number": "%b"}' % SECRET, "at /number: /properties/number/type"),
        (b'{"legs": []}', "at /: /required"),
        (b'{"number": 1, "legs": [{}, {"to": "%b"}]}' % SECRET, "at /legs/1/to: "),
        (b'{"number": -1e999}', "at /number: /properties/number/"),
    ],
)
def test_a_dead_letter_says_where_and_never_what(value: bytes, where: str) -> None:
    good = b'{"number":1}'

    result = encoded([framed(7, good), framed(7, value), framed(7, good)])

    (refused,) = result.refused
    assert (refused.record.offset, refused.reason) == (1, "validation_failed")
    assert refused.detail.startswith(where)
    assert SECRET.decode() not in refused.detail
    assert lines_of(result) == [good, good]


def test_without_validation_only_json_itself_is_asked_for() -> None:
    result = encoded([framed(7, b'{"number": "x"}'), framed(7, b'{"number":')], validate=False)

    assert lines_of(result) == [b'{"number": "x"}']
    assert faults_of(result) == [(1, "invalid_json")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (framed(7, b""), "invalid_json"),
        (framed(7, b'{"number": 1} 2'), "invalid_json"),
        (framed(7, b'{"number": 1, "x": "\xff"}'), "invalid_json"),
        (framed(7, b"[" * 100_000), "too_deep"),
        (framed(7, b'{"number": 1, "\\ud800": 1}'), "invalid_json"),
        (framed(7, b'{"number": ' + b"9" * 400 + b', "_kafka": 1}'), "metadata_conflict"),
        (framed(8, b"{}"), "unknown_schema"),
        (b"\x01" + framed(7, b"{}")[1:], "decode_failed"),
        (b"\x00\x00", "decode_failed"),
    ],
)
def test_bad_input(value: bytes, reason: str) -> None:
    good = framed(7, b'{"number":1}')

    result = encoded([good, value, good], metadata="_kafka")

    assert faults_of(result) == [(1, reason)]
    assert len(lines_of(result)) == 2


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "5", '{"type": 5}', '{"pattern": "("}', '{"$ref": "#/nope"}', '{"multipleOf": 0}'),
        *(
            '{"$ref": "http://127.0.0.1:1/x.json"}',
            '{"$ref": "file:///etc/passwd"}',
            '{"$schema": "http://nope/"}',
        ),
        *("[" * 5000, '{"not":' * 2000 + "{}" + "}" * 2000, '{"minLength": 1e400}'),
    ],
)
def test_a_schema_that_cannot_be_used_makes_dead_letters(text: str) -> None:
    """Nothing is ever fetched: what a schema refers to comes with it, or does not exist."""
    result = encoded([framed(1, b"{}")], KnownSchemas({1: Schema("JSON", text)}))

    assert faults_of(result) == [(0, "decode_failed")]


NAMED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "leg.json", "leg.json"),
    ({}, "common/leg.json", "common/leg.json"),
    ({}, "a%20leg.json", "a leg.json"),
    ({}, "./leg.json", "./leg.json"),
    ({}, "urn:leg:1", "urn:leg:1"),
    ({}, "https://example.com/leg.json", "https://example.com/leg.json"),
    ({"$id": "https://example.com/a/flight.json"}, "leg.json", "leg.json"),
    ({"$id": "https://example.com/a/flight.json"}, "common/leg.json", "common/leg.json"),
    ({"$id": "https://example.com/a/flight.json"}, "../leg.json", "../leg.json"),
    ({"$id": "https://example.com/a/flight.json"}, "/leg.json#/definitions/leg", "/leg.json"),
    (
        {"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://example.com/flight.json"},
        *("common/leg.json", "common/leg.json"),
    ),
]


@pytest.mark.parametrize(("about", "ref", "name"), NAMED)
def test_a_reference_is_found_by_the_name_that_the_registry_has_for_it(
    about: dict[str, Any], ref: str, name: str
) -> None:
    """Whatever the schema calls itself, and beside another one whose name ends alike."""
    leg = {"type": "string", "definitions": {"leg": {"type": "string"}}}
    root = {**about, "properties": {"leg": {"$ref": ref}}}
    others = [
        Reference(other, schema_of({"type": "integer"}, "JSON")) for other in ("g.json", "mon/leg.json", "1")
    ]
    known = KnownSchemas({1: Schema("JSON", json.dumps(root), (*others, Reference(name, schema_of(leg, "JSON"))))})

    result = encoded([framed(1, b'{"leg": "EWR"}'), framed(1, b'{"leg": 1}')], known)

    assert lines_of(result) == [b'{"leg": "EWR"}']
    assert faults_of(result) == [(1, "validation_failed")]


def test_references_of_references_are_found_and_may_be_shared() -> None:
    base = Reference("base.json", schema_of({"type": "string"}, "JSON"))
    sides = tuple(
        Reference(f"{side}.json", Schema("JSON", '{"properties": {"q": {"$ref": "base.json"}}}', (base,)))
        for side in ("left", "right")
    )
    root = json.dumps({"properties": {side: {"$ref": f"{side}.json"} for side in ("left", "right")}})

    result = encoded(
        [framed(1, value) for value in (b'{"left":{"q":"x"},"right":{"q":"y"}}', b'{"right":{"q":1}}')],
        KnownSchemas({1: Schema("JSON", root, sides)}),
    )

    assert faults_of(result) == [(1, "validation_failed")]
    assert result.refused[0].detail.startswith("at /right/q: ")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {
            "definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"$ref": "#/definitions/a"}},
            "$ref": "#/definitions/a",
        },
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"not": {"not": {"$ref": "#"}}}]},
        {"propertyNames": {"$ref": "#"}},
    ],
)
def test_a_schema_that_refers_to_itself_comes_to_an_end(schema: dict[str, Any]) -> None:
    result = encoded([framed(1, b'{"a":1}')] * 2, KnownSchemas({1: schema_of(schema, "JSON")}))

    assert len(lines_of(result)) + len(result.refused) == 2


def test_alternatives_within_alternatives_do_not_multiply() -> None:
    """Sixty levels of two alternatives would keep the library that names the fault until the end of days."""
    one = {"properties": {"c": {"$ref": "#/definitions/e"}, "t": {"const": "a"}}, "required": ["t"]}
    two = {"properties": {"c": {"$ref": "#/definitions/e"}, "t": {"const": "b"}}, "required": ["t"]}
    inner = {"definitions": {"e": {"oneOf": [one, two, {"type": "null"}]}}, "$ref": "#/definitions/e"}
    outer = Schema("JSON", '{"$ref": "inner"}', (Reference("inner", schema_of(inner, "JSON")),))
    known = KnownSchemas({1: schema_of(inner, "JSON"), 2: outer})
    values = [
        b'{"t":"b","c":' * depth + b'{"t":"%b"}' % end + b"}" * depth for depth in (1, 60) for end in (b"b", b"q")
    ]

    result = encoded([framed(number, value) for number in (1, 2) for value in values], known)

    assert lines_of(result) == values[::2] * 2
    assert faults_of(result) == [(offset, "validation_failed") for offset in (1, 3, 5, 7)]
    assert [r.detail.split(":")[0] for r in result.refused[:2]] == [
        "at /",
        "somewhere in more than 4 levels, by a schema within itself",
    ]


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_a_schema_that_doubles_at_each_level_is_refused(keyword: str) -> None:
    """Forty levels would keep a worker for hours at a value that fits, and one that does not, longer than that."""
    refs = [[{"$ref": f"#/definitions/d{level}"}] * 2 for level in range(40)]
    doubling = {f"d{level + 1}": {keyword: refs[level]} for level in range(40)}
    schema = {"definitions": {"d0": {}, **doubling}, "properties": {"a": {"$ref": "#/definitions/d40"}}}

    result = encoded([framed(1, b'{"a": 1}')], KnownSchemas({1: schema_of(schema, "JSON")}))

    assert faults_of(result) == [(0, "decode_failed")]
    assert result.refused[0].detail.endswith("it checks one value by more than 5000 of its parts")


def test_a_schema_of_a_thousand_alternatives_is_none_that_doubles() -> None:
    kinds = {f"k{n}": {"properties": {"kind": {"const": n}, "next": {"$ref": "#"}}} for n in range(1000)}
    schema = {"definitions": kinds, "anyOf": [{"$ref": f"#/definitions/{name}"} for name in kinds]}

    result = encoded(
        [framed(1, b'{"kind": 999}'), framed(1, b'{"kind": 1000}')], KnownSchemas({1: schema_of(schema, "JSON")})
    )

    assert lines_of(result) == [b'{"kind": 999}']
    assert faults_of(result) == [(1, "validation_failed")]


@pytest.mark.parametrize(
    ("schema", "itself"),
    [
        ({"$ref": "#"}, True),
        ({"definitions": {"a": {"$ref": "#/definitions/a"}}, "$ref": "#/definitions/a"}, True),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}}}, True),
        ({"$defs": {"a": {"$anchor": "x"}}, "$ref": "#x"}, True),  # not looked for
        ({"$dynamicRef": "#x"}, True),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {}}, "$ref": "#/$defs/a", "not": {"$ref": "#/$defs/b"}},
            False,
        ),
        ({"$defs": {"a/b": {}, "c": [{}]}, "allOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/c/0"}]}, False),
        ({"properties": {"a": {"$ref": "other.json"}}}, False),
        (True, False),
    ],
)
def test_a_schema_that_holds_itself_is_told_from_one_that_does_not(schema: Any, itself: bool) -> None:
    assert holds_itself(schema_of(schema, "JSON")) == itself


def test_a_schema_within_itself_is_followed_as_deep_as_a_value_goes() -> None:
    tree = KnownSchemas({1: schema_of({"properties": {"a": {"$ref": "#"}, "n": {"type": "integer"}}}, "JSON")})
    values = [
        b'{"a":' * depth + end + b"}" * depth for depth in (1, 100, 600) for end in (b'{"n":1}', b'{"n":""}')
    ]

    result = encoded([framed(1, value) for value in values], tree)

    assert lines_of(result) == values[::2]
    assert faults_of(result) == [(1, "validation_failed"), (3, "validation_failed"), (5, "validation_failed")]


def test_ten_thousand_columns() -> None:
    schema = {"properties": {f"c{n}": {"type": "integer"} for n in range(10_000)}, "additionalProperties": False}
    value = json.dumps({f"c{n}": n for n in range(10_000)}).encode()
    known = KnownSchemas({1: schema_of(schema, "JSON")})

    result = encoded([framed(1, value), framed(1, value.replace(b'"c9999"', b'"c"'))], known)

    assert lines_of(result) == [value]
    assert faults_of(result) == [(1, "validation_failed")]


@any_pace
@given(
    st.dictionaries(
        st.sampled_from(["number", "legs", "x"]),
        st.integers(-2, 2) | st.text(max_size=3) | st.lists(st.dictionaries(st.just("to"), st.text(max_size=5))),
    )
)
def test_what_fits_is_what_another_validator_lets_through(value: dict[str, Any]) -> None:
    whole = {**FLIGHT, "properties": {**FLIGHT["properties"], "legs": {"type": "array", "items": LEG}}}  # type: ignore[dict-item]

    result = encoded([framed(7, json.dumps(value).encode())])

    assert (not result.refused) == jsonschema.Draft202012Validator(whole).is_valid(value)


@any_pace
@given(st.data())
def test_cut_anywhere_a_value_is_a_row_or_a_dead_letter(data: st.DataObject) -> None:
    good = framed(7, b'{"number":1,"legs":[{"to":"EWR"}],"x":1e9}')
    pieces = [good[:end] for end in range(1, len(good))] + [framed(7, data.draw(st.binary())), good + b"\x00"]

    result = encoded([good, *pieces, good])

    assert len(lines_of(result)) + len(result.refused) == len(pieces) + 2
    assert lines_of(result)[0] == lines_of(result)[-1] == good[5:]


def test_a_schema_that_ships_with_the_app(tmp_path: Path) -> None:
    path = tmp_path / "flight.json"
    path.write_text(json.dumps(LEG))

    result = encoded([b'{"to":"EWR"}', b'{"to":"Newark"}'], decode=None, schema=str(path))

    assert lines_of(result) == [b'{"to":"EWR"}']
    assert faults_of(result) == [(1, "validation_failed")]
