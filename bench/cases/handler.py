"""From `list[KafkaEvent]` to staged bytes, against the floor, the decode before it, and the incumbent's gzip."""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterator

import azure.functions as func
import msgspec
from isal import igzip_lib

from bench.cases import Options
from bench.data import SIZES, TOPIC, payload, records
from bench.measure import Result, cpu_us
from sinkcore.conditions import TEXT, Field, When
from sinkcore.encode import Encoded, encode
from sinkcore.encode.bodies import BodyWriter
from sinkcore.records import slices_of
from sinkcore.routes import Route
from sinkcore.routing import router_of

Events = list[func.KafkaEvent]

PLAIN = Route(TOPIC, "db", "Flights")
# A third of the records go elsewhere, so that there are two bodies.
BY_FIELD = {
    "origin": (Route(TOPIC, "db", "Newark", when=When(Field(("origin",)), TEXT + "EWR")), PLAIN),
    "from.faa": (Route(TOPIC, "db", "Newark", when=When(Field(("from", "faa")), TEXT + "EWR")), PLAIN),
}
WITH_METADATA = Route(TOPIC, "db", "Flights", metadata="_kafka")
_SEGMENT_ID = "00000000000000000000000000"  # as long as a real one
_BURST_RECORDS = 5000  # small batches run several times in a row: a cold start says more of the machine
_E_ROUNDS_MAX = 5  # zlib is slow and steady
_MARKS_B = {"256 B": 1.6, "1 KB": 1.25, "10 KB": 1.25}
_MARKS_BC = {"256 B": 0.37, "1 KB": 0.22, "10 KB": 0.22}


class _Anything(msgspec.Struct, gc=False):
    """Validates an object and keeps nothing of it."""


_decode = msgspec.json.Decoder(_Anything).decode
_decode_lines = msgspec.json.Decoder(_Anything).decode_lines
_decode_raw_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines


def handler(events: list[func.KafkaEvent], route: Route) -> Encoded:
    """What an invocation does between its arguments and its first request."""
    return encode(
        slices_of(events), route, segment_id=_SEGMENT_ID, record_max_bytes=1 << 25, blob_max_bytes=1 << 28
    )


def routed(events: list[func.KafkaEvent], routes: tuple[Route, ...]) -> list[Encoded]:
    """The same, over several routes."""
    return [
        encode(part.slices, part.route, segment_id=_SEGMENT_ID, record_max_bytes=1 << 25, blob_max_bytes=1 << 28)
        for part in router_of(routes).split(slices_of(events), 1 << 25).parts
    ]


def run(options: Options) -> Iterator[Result]:
    """All sizes and batches; every ratio within one round-robin."""
    for size in SIZES[:2] if options.quick else SIZES:
        for batch in options.batches:
            yield from _measure(options, size, batch)


def _floors(values: list[bytes]) -> dict[str, Callable[[], object]]:
    """Three ways to do no more than validate and compress; the quickest is the floor."""

    def lines() -> bytes:
        joined = b"\n".join(values)
        _decode_lines(joined)
        return igzip_lib.compress(joined, 2, igzip_lib.COMP_GZIP)

    def raw_lines() -> bytes:
        joined = b"\n".join(values)
        _decode_raw_lines(joined)
        return igzip_lib.compress(joined, 2, igzip_lib.COMP_GZIP)

    def one_by_one() -> bytes:
        deque(map(_decode, values), maxlen=0)
        return igzip_lib.compress(b"\n".join(values), 2, igzip_lib.COMP_GZIP)

    return {"a lines": lines, "a raw lines": raw_lines, "a one by one": one_by_one}


def _measure(options: Options, size: str, batch: int) -> Iterator[Result]:
    values = records(size, batch)
    joined = b"\n".join([*values, b""])
    common, distinct = payload(values), payload(values, distinct=True)
    events, distinct_events = common.decode(), distinct.decode()
    rows = {name: _text(handler(given, WITH_METADATA)) for name, given in _both(events, distinct_events)}

    work: dict[str, Callable[[], object]] = _floors(values)
    work["b"] = lambda: handler(events, PLAIN)
    work["c"] = common.decode
    work["e"] = lambda: zlib.compress(joined, 6)
    work["gzip"] = lambda: _compress(joined)
    for name, given in _both(events, distinct_events):
        work[f"b {name}"] = lambda given=given: handler(given, WITH_METADATA)  # type: ignore[misc]
        work[f"gzip {name}"] = lambda name=name: _compress(rows[name])  # type: ignore[misc]
    by_field = {} if size == "10 KB" else BY_FIELD  # whose records are arrays of the others
    for path, routes in by_field.items():
        work[f"route {path}"] = lambda routes=routes: routed(events, routes)  # type: ignore[misc]
    rounds = dict.fromkeys(work, options.rounds(len(joined)))
    rounds["e"] = min(rounds["e"], _E_ROUNDS_MAX)
    took = cpu_us(work, rounds=rounds, burst=max(1, _BURST_RECORDS // batch))

    a = min(took[name] for name in work if name.startswith("a "))

    def result(what: str, value: float, unit: str, mark: float | None = None) -> Result:
        return Result("handler", size, batch, what, value, unit, mark)

    yield result("mean record", len(joined) / batch - 1, "B")
    for what, value in (
        ("(a) floor", a),
        ("(b) handler", took["b"]),
        ("(c) decode", took["c"]),
        ("(e) zlib 6", took["e"]),
    ):
        yield result(what, value / batch, "us/record")
    yield result("(b) / (a)", took["b"] / a, "", _MARKS_B[size])
    yield result("((b) + (c)) / (e)", (took["b"] + took["c"]) / took["e"], "", _MARKS_BC[size])
    yield result("least: ((a) + (c)) / (e)", (a + took["c"]) / took["e"], "")
    for path in by_field:
        extra = took[f"route {path}"] - took["b"]
        yield result(f"routing by {path}", extra / batch, "us/record")
        yield result(f"routing by {path} / (a)", extra / a, "", 1.0 if size == "1 KB" else None)
    stored = len(handler(events, PLAIN).bodies[0].data)
    yield result("stored", stored / len(joined), "of raw")
    yield result("stored / (e)'s", stored / len(zlib.compress(joined, 6)), "", 1.25)
    for name in rows:
        extra = (took[f"b {name}"] - took[f"gzip {name}"]) - (took["b"] - took["gzip"])
        yield result(f"metadata, {name}", extra / batch, "us/record")
        yield result(f"metadata, {name} / (a)", extra / a, "", 1.5 if size == "256 B" else None)


def _both(common: Events, distinct: Events) -> tuple[tuple[str, Events], tuple[str, Events]]:
    return ("keys repeat", common), ("keys distinct", distinct)


def _text(encoded: Encoded) -> bytes:
    return gzip.decompress(encoded.bodies[0].data)


def _compress(text: bytes) -> object:
    """The handler's share of gzip: the same writer, in pieces of the same size."""
    writer = BodyWriter(1 << 28)
    view = memoryview(text)
    for start in range(0, len(text), 1 << 16):
        writer.add(view[start : start + (1 << 16)], 1)  # type: ignore[arg-type]
    return writer.finish()
