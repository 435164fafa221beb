"""What counts as a JSON record: by hand-written answers, and by another parser."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinkcore.encode import Encoded, encode
from sinkcore.encode.jsoncheck import decoder_of, object_fault
from sinkcore.encode.jsontext import DEPTH_MAX, depth_of, invalid_utf8_at, too_deep
from sinkcore.encode.rows import Fault
from sinkcore.records import slices_of
from sinkcore.routes import Route
from tests.support.events import Sent, events_of
from tests.support.strictjson import NotJsonError, is_object, parse

ROUTE = Route("flights", "db", "Flights")

any_pace = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""


def encoded(values: list[bytes], route: Route = ROUTE, record_max_bytes: int = 1 << 25) -> Encoded:
    """What becomes of records with these values at offsets 0, 1, ..."""
    events = events_of(Sent(value, offset) for offset, value in enumerate(values))
    return encode(
        slices_of(events),
        route,
        segment_id="segment",
        record_max_bytes=record_max_bytes,
        blob_max_bytes=1 << 28,
    )


def lines_of(result: Encoded) -> list[bytes]:
    """The rows of all bodies, in order, without their line feeds."""
    text = b"".join(gzip.decompress(body.data) for body in result.bodies)
    assert text.endswith(b"\n") or not text
    return text.split(b"\n")[:-1]


def reason_of(value: bytes) -> str | None:
    """The verdict on one record between two good ones, which must come through."""
    result = encoded([b'{"before":1}', value, b'{"after":1}'])
    rows = lines_of(result)
    assert rows[0] == b'{"before":1}'
    assert rows[-1] == b'{"after":1}'
    assert len(rows) + len(result.refused) == 3
    return result.refused[0].reason if result.refused else None


ACCEPTED = {
    "empty object": b"{}",
    "spaces in an empty object": b"{ }",
    "all kinds of white space": b'\r\n\t {\r"a"\n:\t1 } ',
    "null, true, false": b'{"a":null,"b":true,"c":false}',
    "empty name": b'{"":0}',
    "repeated names": b'{"a":1,"a":2}',
    "all escapes": b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u00e9"}',
    "escaped name": b'{"\\u0061\\n":1}',
    "escaped surrogate pair": b'{"a":"\\ud83d\\ude00"}',
    "four-byte character": '{"a":"\U0001f600"}'.encode(),
    "noncharacter U+FFFF": b'{"a":"\xef\xbf\xbf"}',
    "line separator U+2028": '{"a":"\u2028"}'.encode(),
    "delete U+007F": b'{"a":"\x7f"}',
    "byte order mark inside a string": '{"a":"\ufeff"}'.encode(),
    "minus zero": b'{"a":-0}',
    "minus zero point zero": b'{"a":-0.0}',
    "exponents": b'{"a":[1e5,1E5,1e+5,1E-5,0e0,0.0e-0,1.5e300]}',
    "beyond a double": b'{"a":1e999}',
    "far beyond a double": b'{"a":1e99999999999999999999}',
    "400 digits": b'{"a":' + b"9" * 400 + b"}",
    "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "400 digits of fraction": b'{"a":0.' + b"9" * 400 + b"}",
    "17 digits": b'{"a":10.357019999999999}',
    "above 64 bits": b'{"a":18446744073709551616,"b":-9223372036854775809}',
    "empty array": b'{"a":[]}',
    "nested": b'{"a":[[{"b":{"c":[[]]}}]]}',
    "quotes and brackets in strings": b'{"a":"}],[{\\"","b":"//"}',
}

REFUSED = {
    "white space alone": (b" \n", "invalid_json"),
    "text": (b"hello", "invalid_json"),
    "cut off": (b'{"a":', "invalid_json"),
    "cut off in a string": (b'{"a":"b', "invalid_json"),
    "cut off in an escape": (b'{"a":"b\\', "invalid_json"),
    "cut off in a name": (b'{"a', "invalid_json"),
    "bracket left open": (b'{"a":[1', "invalid_json"),
    "wrong bracket": (b'{"a":[1}', "invalid_json"),
    "two objects": (b'{"a":1}{"b":2}', "invalid_json"),
    "two objects on two lines": (b'{"a":1}\n{"b":2}', "invalid_json"),
    "trailing text": (b'{"a":1} x', "invalid_json"),
    "trailing comma after it": (b'{"a":1},', "invalid_json"),
    "NUL after it": (b'{"a":1}\x00', "invalid_json"),
    "form feed after it": (b'{"a":1}\x0c', "invalid_json"),
    "vertical tab before it": (b'\x0b{"a":1}', "invalid_json"),
    "no-break space after it": (b'{"a":1}\xc2\xa0', "invalid_json"),
    "byte order mark": (b'\xef\xbb\xbf{"a":1}', "invalid_json"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "invalid_json"),
    "UTF-16 without a mark": ('{"a":1}'.encode("utf-16-le"), "invalid_json"),
    "Confluent frame": (b'\x00\x00\x00\x00\x07{"a":1}', "invalid_json"),
    "gzip": (gzip.compress(b'{"a":1}'), "invalid_json"),
    "NaN": (b'{"a":NaN}', "invalid_json"),
    "Infinity": (b'{"a":Infinity}', "invalid_json"),
    "minus Infinity": (b'{"a":-Infinity}', "invalid_json"),
    "leading zero": (b'{"a":01}', "invalid_json"),
    "minus leading zero": (b'{"a":-01}', "invalid_json"),
    "plus": (b'{"a":+1}', "invalid_json"),
    "minus alone": (b'{"a":-}', "invalid_json"),
    "no digit before the point": (b'{"a":.5}', "invalid_json"),
    "no digit after the point": (b'{"a":1.}', "invalid_json"),
    "point and exponent": (b'{"a":1.e5}', "invalid_json"),
    "no exponent": (b'{"a":1e}', "invalid_json"),
    "no exponent after the sign": (b'{"a":1e+}', "invalid_json"),
    "hexadecimal": (b'{"a":0x1F}', "invalid_json"),
    "underscore": (b'{"a":1_000}', "invalid_json"),
    "digit of another script": ('{"a":\u0661}'.encode(), "invalid_json"),
    "raw line feed in a string": (b'{"a":"b\nc"}', "invalid_json"),
    "raw tab in a string": (b'{"a":"b\tc"}', "invalid_json"),
    "raw NUL in a string": (b'{"a":"\x00"}', "invalid_json"),
    "raw line feed in a name": (b'{"a\nb":1}', "invalid_json"),
    "raw unit separator in a name": (b'{"\x1f":1}', "invalid_json"),
    "unknown escape": (b'{"a":"\\x41"}', "invalid_json"),
    "escaped apostrophe": (b'{"a":"\\\'"}', "invalid_json"),
    "short unicode escape": (b'{"a":"\\u12"}', "invalid_json"),
    "odd unicode escape": (b'{"a":"\\u12G4"}', "invalid_json"),
    "spaced unicode escape": (b'{"a":"\\u 123"}', "invalid_json"),
    "unknown escape in a name": (b'{"\\x":1}', "invalid_json"),
    "high surrogate alone": (b'{"a":"\\ud800"}', "invalid_json"),
    "high surrogate before text": (b'{"a":"\\ud800 and more text"}', "invalid_json"),
    "two high surrogates": (b'{"a":"\\ud800\\ud800"}', "invalid_json"),
    "low surrogate alone": (b'{"a":"\\udc00 and more text"}', "invalid_json"),
    "surrogates in the wrong order": (b'{"a":"\\ude00\\ud83d"}', "invalid_json"),
    "surrogate alone in a name": (b'{"\\ud800":1}', "invalid_json"),
    "byte FF": (b'{"a":"\xff"}', "invalid_json"),
    "byte FF in a name": (b'{"\xff":1}', "invalid_json"),
    "Latin-1": (b'{"a":"caf\xe9"}', "invalid_json"),
    "cut-off character": (b'{"a":"\xe2\x82"}', "invalid_json"),
    "overlong slash": (b'{"a":"\xc0\xaf"}', "invalid_json"),
    "surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', "invalid_json"),
    "above U+10FFFF": (b'{"a":"\xf4\x90\x80\x80"}', "invalid_json"),
    "comment": (b'{"a":1/**/}', "invalid_json"),
    "line comment": (b'{"a":1}//', "invalid_json"),
    "apostrophes": (b"{'a':1}", "invalid_json"),
    "name without quotes": (b"{a:1}", "invalid_json"),
    "name that is a number": (b"{1:1}", "invalid_json"),
    "no colon": (b'{"a" 1}', "invalid_json"),
    "two colons": (b'{"a"::1}', "invalid_json"),
    "no value": (b'{"a"}', "invalid_json"),
    "comma at the end of an object": (b'{"a":1,}', "invalid_json"),
    "comma alone": (b"{,}", "invalid_json"),
    "two commas": (b'{"a":1,,"b":2}', "invalid_json"),
    "comma at the end of an array": (b'{"a":[1,]}', "invalid_json"),
    "comma at the start of an array": (b'{"a":[,1]}', "invalid_json"),
    "capital True": (b'{"a":True}', "invalid_json"),
    "half a literal": (b'{"a":tru}', "invalid_json"),
    "literal and more": (b'{"a":truex}', "invalid_json"),
    "array": (b'[{"a":1}]', "not_an_object"),
    "empty array": (b"[]", "not_an_object"),
    "number": (b"17", "not_an_object"),
    "negative number": (b"-1.5e3", "not_an_object"),
    "string": (b'"{}"', "not_an_object"),
    "true": (b"true", "not_an_object"),
    "false": (b" false", "not_an_object"),
    "null": (b"null\n", "not_an_object"),
    "100,000 arrays deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    "100,000 objects deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    "100,000 deep and cut off": (b'{"a":' * 100_000, "too_deep"),
    "a level too deep": (b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1), "too_deep"),
}


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_good_json_passes_with_its_own_bytes(value: bytes) -> None:
    """But for line breaks, of which only the white space between tokens can have any."""
    result = encoded([value])

    assert not result.refused
    assert lines_of(result) == [value.strip(b"\r\n").replace(b"\n", b" ").replace(b"\r", b" ")]


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_adx_would_drop_is_refused_alone(value: bytes, reason: str) -> None:
    """ADX drops a malformed line without a word; its neighbours must not go with it."""
    assert reason_of(value) == reason


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_the_other_parser_agrees_with_what_is_accepted(value: bytes) -> None:
    """Otherwise the table of answers itself is wrong."""
    assert is_object(parse(value))


@pytest.mark.parametrize(
    "value",
    [value for value, reason in REFUSED.values() if reason == "invalid_json"],
    ids=[name for name, (_, reason) in REFUSED.items() if reason == "invalid_json"],
)
def test_the_other_parser_agrees_with_what_is_refused(value: bytes) -> None:
    with pytest.raises(NotJsonError):
        parse(value)


names = st.text(st.characters(codec="utf-8"), max_size=5)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(names, children, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(names, json_values, max_size=5)


@st.composite
def written_objects(draw: st.DrawFn) -> bytes:
    """A JSON object in one of the many ways to write it."""
    value = draw(json_objects)
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, None, 1, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\n:")])),
    )
    return (
        draw(st.sampled_from(["", " ", "\n", "\r\n\t"])).encode()
        + text.encode()
        + draw(st.sampled_from(["", " ", "\n", "\r\n"])).encode()
    )


@st.composite
def damaged_objects(draw: st.DrawFn) -> bytes:
    """A JSON object with a few bytes cut, put in or exchanged; by chance some are good again."""
    data = bytearray(draw(written_objects()))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 2)))
        data[start:end] = draw(
            st.sampled_from([b"", b",", b'"', b"\\", b"{", b"}", b"[", b"]", b":", b"0", b"-", b".", b"e", b"\n"])
            | st.sampled_from([b"\\u", b"\\ud800", b"\\udc00", b"NaN", b"null", b"\x00", b"\x1f", b"\x0c"])
            | st.binary(min_size=1, max_size=2)
        )
    return bytes(data)


@settings(any_pace, max_examples=150)
@given(st.lists(written_objects() | damaged_objects(), min_size=1, max_size=8))
def test_both_parsers_come_to_the_same_verdict_and_the_same_values(values: list[bytes]) -> None:
    """Count, order, every digit and every repeated name included; a bad neighbour changes nothing."""
    good = []
    bad = []
    for offset, value in enumerate(values):
        try:
            parsed = parse(value)
        except NotJsonError:
            bad.append((offset, {"invalid_json"}))
            continue
        if is_object(parsed):
            good.append(parsed)
        else:
            bad.append((offset, {"not_an_object"}))
    if b"" in values:
        bad = [(offset, reasons) for offset, reasons in bad if values[offset]]

    result = encoded(values)

    assert [parse(line) for line in lines_of(result)] == good
    assert [(refused.record.offset, {refused.reason}) for refused in result.refused] == bad
    assert [refused.record.value for refused in result.refused] == [values[offset] for offset, _ in bad]
    assert result.tombstones == values.count(b"")
    assert sum(body.rows for body in result.bodies) == len(good)


def test_two_bad_neighbours_do_not_make_a_good_one() -> None:
    """Checks over many records at once must not be fooled by records that complete each other."""
    pairs = [
        (b'{"a":1', b',"b":2}'),
        (b'{"a":"', b'"}'),
        (b'{"a":"\xe2\x82', b'\xac"}'),
        (b'{"a":"\xe2\x82"}', b'\xac{"a":1}'),
        (b'{"a":1}{"b":2}', b" "),
        (b'{"a":1}\n{"b":2}', b"\n"),
    ]
    for first, second in pairs:
        result = encoded([b'{"before":1}', first, second, b'{"after":1}'])

        assert [refused.record.value for refused in result.refused] == [first, second]
        assert lines_of(result) == [b'{"before":1}', b'{"after":1}']


def test_one_line_stays_byte_for_byte_and_several_become_one() -> None:
    spaced = b'  {"a" :  [1 , 2.50],\t"b":"c  d"}  '
    pretty = b'{\r\n  "a": 10.357019999999999,\n  "a": 12345678901234567890123\r}\n'

    assert lines_of(encoded([spaced])) == [spaced]
    assert lines_of(encoded([b'{"a":\r1}'])) == [b'{"a": 1}']
    assert lines_of(encoded([pretty])) == [b'{    "a": 10.357019999999999,   "a": 12345678901234567890123 }']


def test_the_limit_of_a_record_is_its_last_good_size() -> None:
    value = b'{"a":"0123456789"}'

    assert not encoded([value], record_max_bytes=len(value)).refused
    result = encoded([value, value + b" ", value], record_max_bytes=len(value))

    assert [(r.reason, r.detail) for r in result.refused] == [("too_large", "19 bytes; at most 18")]
    assert lines_of(result) == [value, value]


def test_thirty_megabytes_pass_and_are_counted_as_large() -> None:
    """ADX truncates strings and drops dynamic values of 1 MiB and more: the caller warns by this count."""
    large = b'{"a":"' + "\U0001f600".encode() * 7_500_000 + b'"}'
    megabyte = b'{"a":"' + b"x" * ((1 << 20) - 8) + b'"}'

    result = encoded([b"{}", large, megabyte, megabyte[:-3] + b'"}'])

    assert not result.refused
    assert result.large_records == 2
    assert lines_of(result)[1] == large


def test_a_bad_byte_late_in_a_large_record_is_found() -> None:
    """UTF-8 is looked at in steps; a character across a step is no fault, and a fault has its true position."""
    good = b"x" * ((1 << 20) - 1) + "\u20ac".encode() + b"y" * (1 << 20)

    assert invalid_utf8_at(good) is None
    assert invalid_utf8_at(good + b"\xff") == len(good)
    assert invalid_utf8_at(good + b"\xe2\x82") == len(good)
    assert invalid_utf8_at(good[: 1 << 20] + b"\x82 ") == (1 << 20) - 1


@pytest.mark.parametrize("levels", [1, 2, 699, 700])
@pytest.mark.parametrize("shape", [(b'{"a":', b"1", b"}"), (b"[", b"", b"]")])
def test_seven_hundred_levels_pass_on_every_interpreter(levels: int, shape: tuple[bytes, bytes, bytes]) -> None:
    """The parser stops at the interpreter's own limit, which is the lowest on Python 3.11."""
    opening, inner, closing = shape
    value = b'{"x":' + opening * (levels - 1) + (inner or b"0") + closing * (levels - 1) + b"}"

    assert object_fault(value, decoder_of(None)) is None


def test_depth_is_counted_outside_strings() -> None:
    """Brackets in strings, whatever is escaped around them, are text."""
    assert depth_of(b"{}") == 1
    assert depth_of(b'{"[[[{{":"\\"[[[","b":"\\\\"}') == 1
    assert depth_of(b'{"a":[{"b":[[]]},[]],"c":{}}') == 5
    flat = b'{"a":[' + b",".join([b"{}"] * DEPTH_MAX) + b',"' + b"[" * DEPTH_MAX + b'"]}'
    assert not too_deep(flat)
    assert too_deep(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))
    assert not too_deep(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)


@any_pace
@given(json_objects)
def test_depth_is_what_a_walk_of_the_value_finds(value: dict[str, object]) -> None:
    def walk(inner: object) -> int:
        if isinstance(inner, dict):
            return 1 + max(map(walk, inner.values()), default=0)
        if isinstance(inner, list):
            return 1 + max(map(walk, inner), default=0)
        return 0

    assert depth_of(json.dumps(value).encode()) == walk(value)


DETAILS = {
    b'{"a":': "unexpected end of data at byte 5",
    b'{"a":secret}': "invalid character at byte 5",
    b'{"a":1} secret': "trailing characters at byte 8",
    b'{"a":"\\ud800"}': "an escaped surrogate without its partner",
    b'{"a":"\xff"}': "invalid UTF-8 at byte 6",
    b'["secret"]': "the top level is an array",
}


@pytest.mark.parametrize(("value", "detail"), DETAILS.items())
def test_a_detail_has_positions_and_no_content(value: bytes, detail: str) -> None:
    """Details reach logs, where nothing of a record may be. Positions count from zero."""
    fault = object_fault(value, decoder_of(None))

    assert isinstance(fault, Fault)
    assert fault.detail == detail
