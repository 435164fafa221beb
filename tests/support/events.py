"""Batches as the Kafka extension hands them over, made by azure-functions' own converter."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import azure.functions as func
from azure.functions import meta
from azure.functions.kafka import KafkaTriggerConverter


@dataclass(frozen=True)
class Sent:
    """One Kafka record as a test describes it."""

    value: bytes | None
    offset: int
    partition: int = 0
    key: bytes | None = None
    timestamp: str = "2013-01-01T10:00:00Z"
    headers: tuple[tuple[str, bytes | None], ...] = ()


def events_of(records: Iterable[Sent], topic: str = "flights") -> list[func.KafkaEvent]:
    """The records as the trigger's payload, decoded.

    Source: docs/functions-host.md has the payload's fields; a null value arrives as an empty one.
    """
    sent = list(records)

    def json_datum(values: list[Any]) -> meta.Datum:
        return meta.Datum(json.dumps(values), "json")

    metadata = {
        "OffsetArray": meta.Datum(SimpleNamespace(sint64=[r.offset for r in sent]), "collection_sint64"),
        "TopicArray": meta.Datum(SimpleNamespace(string=[topic] * len(sent)), "collection_string"),
        "PartitionArray": json_datum([r.partition for r in sent]),
        "TimestampArray": json_datum([r.timestamp for r in sent]),
        "KeyArray": json_datum([_base64(r.key) for r in sent]),
        "HeadersArray": json_datum(
            [[{"Key": name, "Value": _base64(value)} for name, value in r.headers] for r in sent]
        ),
    }
    data = meta.Datum(SimpleNamespace(bytes=[r.value or b"" for r in sent]), "collection_bytes")
    events = KafkaTriggerConverter.decode(data, trigger_metadata=metadata)
    assert isinstance(events, list)
    return events


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
