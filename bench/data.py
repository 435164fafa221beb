"""What is measured: real flights as JSON records of three sizes, in batches as the trigger delivers them."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import msgspec
from azure.functions import meta
from azure.functions.kafka import KafkaTriggerConverter

from localrunner.flights import FLIGHTS, Row, airports, flights, planes, weather

SEED = 2013
SIZES = ("256 B", "1 KB", "10 KB")
PARTITIONS = 4
TOPIC = "flights"

_DROPPED = ("year", "month", "day")  # `time_hour` says it again
_RUN_RECORDS = 100  # a batch holds the partitions in runs, not interleaved
_RECORDS_PER_MS = 20


@cache
def records(size: str, count: int) -> list[bytes]:
    """`count` flights of a pinned sample as JSON records of about `size`."""
    if size == "256 B":
        return [
            msgspec.json.encode({name: row[name] for name in row if name not in _DROPPED})
            for row in _sample(count)
        ]
    if size == "1 KB":
        return [msgspec.json.encode(row) for row in _joined(count)]
    joined = _joined(10 * count)
    return [msgspec.json.encode({"flights": joined[start : start + 10]}) for start in range(0, 10 * count, 10)]


@cache
def _joined(count: int) -> list[dict[str, Any]]:
    """Flights with what is known of the hour's weather, the plane and both airports."""
    hours = {(row["origin"], row["time_hour"]): row for row in weather()}
    tails = {row["tailnum"]: row for row in planes()}
    places = {row["faa"]: row for row in airports()}
    return [
        {
            **row,
            "weather": hours.get((row["origin"], row["time_hour"])),
            "plane": tails.get(row["tailnum"]),
            "from": places.get(row["origin"]),
            "to": places.get(row["dest"]),
        }
        for row in _sample(count)
    ]


@cache
def _sample(count: int) -> list[Row]:
    """Flights of the whole year in random order: in the file's own, neighbours share their hour's weather."""
    numbers = random.Random(SEED).sample(range(FLIGHTS), count)
    rows = dict(zip(sorted(numbers), flights(set(numbers)), strict=True))
    return [rows[number] for number in numbers]


@dataclass(frozen=True, slots=True)
class Payload:
    """A batch as the worker receives it, before azure-functions decodes it."""

    data: meta.Datum
    trigger_metadata: dict[str, meta.Datum]

    def decode(self) -> list[func.KafkaEvent]:
        """The batch as a function receives it."""
        events = KafkaTriggerConverter.decode(self.data, trigger_metadata=self.trigger_metadata)
        assert isinstance(events, list)
        return events


def payload(values: list[bytes], *, distinct: bool = False) -> Payload:
    """`values` with keys, timestamps and coordinates, without headers.

    Keys are the three airports and 20 records share a millisecond; with `distinct` no key or timestamp repeats.
    """
    chance = random.Random(SEED)
    next_offset = [1_000_000 + chance.randrange(1_000_000) for _ in range(PARTITIONS)]
    offsets, partitions, keys, timestamps = [], [], [], []
    for number in range(len(values)):
        partition = number // _RUN_RECORDS % PARTITIONS
        partitions.append(partition)
        offsets.append(next_offset[partition])
        next_offset[partition] += 1
        key = f"order-{number:08}" if distinct else chance.choice(["EWR", "JFK", "LGA"])
        keys.append(base64.b64encode(key.encode()).decode())
        timestamps.append(_timestamp(number * _RECORDS_PER_MS if distinct else number))
    return Payload(
        meta.Datum(SimpleNamespace(bytes=values), "collection_bytes"),
        {
            "OffsetArray": meta.Datum(SimpleNamespace(sint64=offsets), "collection_sint64"),
            "TopicArray": meta.Datum(SimpleNamespace(string=[TOPIC] * len(values)), "collection_string"),
            "PartitionArray": meta.Datum(json.dumps(partitions), "json"),
            "TimestampArray": meta.Datum(json.dumps(timestamps), "json"),
            "KeyArray": meta.Datum(json.dumps(keys), "json"),
            "HeadersArray": meta.Datum(json.dumps([[] for _ in values]), "json"),
        },
    )


def _timestamp(number: int) -> str:
    """The moment of a record, as the extension prints it: without the fraction's trailing zeros."""
    seconds, ms = divmod(number // _RECORDS_PER_MS, 1000)
    minutes, seconds = divmod(seconds, 60)
    text = f"2013-01-01T10:{minutes:02}:{seconds:02}"
    return f"{text}.{ms:03}".rstrip("0").rstrip(".") + "Z" if ms else f"{text}Z"
