"""The demo's records: flights as JSON, weather as Avro, keyed by airport, and forty that are broken on purpose."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import fastavro
import msgspec

from localrunner.flights import FLIGHTS, WEATHER, Row, flights, weather

# What a producer can do to a sink: each is a dead letter for another reason, or in another shape.
BROKEN = (
    b'{"year": 2013, "month": 1, "day":',
    b"not JSON at all",
    b'{"distance": NaN}',
    b'["EWR", "JFK", "LGA"]',
    b"42",
    b'{"origin": "EWR"} {"origin": "JFK"}',
    b'{"origin": "\xff\xfe"}',
    b'{"origin": "EWR", "_kafka": {"offset": 0}}',
    b"[" * 100_000,
    b"\xef\xbb\xbf{}",
)
WEATHER_ID = 1
"""A schema registry's first id."""
_TEXTS, _WHOLES = ("origin", "time_hour"), ("year", "month", "day", "hour", "wind_dir")
_COLUMNS = (
    "origin year month day hour temp dewp humid wind_dir wind_speed wind_gust precip pressure visib time_hour"
)
WEATHER_SCHEMA = {
    "type": "record",
    "name": "Weather",
    "fields": [
        {"name": n, "type": ["null", "string" if n in _TEXTS else "int" if n in _WHOLES else "double"]}
        for n in _COLUMNS.split()
    ],
}
BROKEN_FLIGHTS = 30
BROKEN_WEATHER = 10


@dataclass(frozen=True, slots=True)
class Feed:
    """One topic's records as (key, value), how many of them are sound, and what their rows must add up to.

    `total_column` is a column of whole numbers; `total` is its sum over the sound records.
    """

    topic: str
    table: str
    records: list[tuple[bytes, bytes]]
    rows: int
    broken: int
    total_column: str
    total: int
    avro: bool = False


def feeds(flights_topic: str, weather_topic: str, most: int | None = None) -> list[Feed]:
    """Both topics' records; `most` cuts each topic short, for a Kafka that cannot hold all of them."""
    return [
        _feed(
            flights_topic, "Flights", flights(), most or FLIGHTS, BROKEN_FLIGHTS, "distance", msgspec.json.encode
        ),
        _feed(weather_topic, "Weather", weather(), most or WEATHER, BROKEN_WEATHER, "hour", _as_avro, avro=True),
    ]


def _as_avro(row: Row) -> bytes:
    """The row in Confluent's wire format."""
    file = io.BytesIO()
    file.write(b"\x00" + WEATHER_ID.to_bytes(4, "big"))
    fastavro.schemaless_writer(file, _PARSED, row)
    return file.getvalue()


_PARSED = fastavro.parse_schema(WEATHER_SCHEMA)


def _feed(
    topic: str,
    table: str,
    rows: Iterable[Row],
    most: int,
    broken: int,
    total_column: str,
    encode: Callable[[Row], bytes],
    *,
    avro: bool = False,
) -> Feed:
    records, total, count = [], 0, 0
    for row in islice(rows, most):
        records.append((str(row["origin"]).encode(), encode(row)))
        total += int(row[total_column] or 0)
        count += 1
    return Feed(topic, table, list(_with_broken(records, broken)), count, broken, total_column, total, avro)


def _with_broken(records: list[tuple[bytes, bytes]], broken: int) -> Iterator[tuple[bytes, bytes]]:
    """The records with `broken` ones spread evenly among them."""
    every = len(records) // broken
    done = 0
    for number, record in enumerate(records):
        if number % every == every // 2 and done < broken:
            yield record[0], BROKEN[done % len(BROKEN)]
            done += 1
        yield record
