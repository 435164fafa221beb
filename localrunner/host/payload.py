"""A batch of consumed records as the typed data that the extension hands to a worker.

Source: Kafka extension 4.3.2, KafkaTriggerBindingStrategy.cs and KafkaEventDataConvertManager.cs;
azure-functions-host, GrpcMessageConversionExtensions.cs. A record costs about two microseconds here, so the
columns are built by comprehensions and C functions, never by a Python call a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from localrunner.host.triggers import KafkaTrigger
from localrunner.host.wire import (
    Bytes,
    CollectionBytes,
    CollectionSint64,
    CollectionString,
    Json,
    Nothing,
    Payload,
    String,
    TypedData,
    encode_payload,
)

_FRACTIONS: Final = [f".{ms:03d}".rstrip("0").rstrip(".") for ms in range(1000)]
_INT_BYTES: Final = {"int": 4, "long": 8}
_json = msgspec.json.encode
# confluent_kafka.Message; its type hints allow None everywhere, which a consumed record has not.
Messages = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order in which they were consumed, ready to be sent.

    `positions` holds `(partition, next offset)` of each partition's last record *in the list*, the list's last
    one first; `first` is where the list begins.
    """

    count: int
    first: tuple[int, int]
    positions: list[tuple[int, int]]
    input_data: msgspec.Raw
    trigger_metadata: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Record:
    """One record, ready to be sent."""

    partition: int
    offset: int
    input_data: msgspec.Raw
    trigger_metadata: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Records:
    """Records that go one an invocation; `first` is where the list of them begins."""

    first: tuple[int, int]
    records: list[Record]


def records_of(messages: Messages, trigger: KafkaTrigger) -> Records:
    """Each record's payload; at least one record."""
    first = (messages[0].partition(), messages[0].offset())
    return Records(
        first,
        [
            Record(
                message.partition(),
                message.offset(),
                encode_payload(_single_input(message, trigger)),
                encode_payload(_single_metadata(message, trigger.key_type)),
            )
            for message in messages
        ],
    )


def _single_input(message: Any, trigger: KafkaTrigger) -> Payload:
    many = input_data([message], trigger.parameter, trigger.data_type, trigger.key_type)[trigger.parameter]
    if isinstance(many, CollectionBytes):
        return {trigger.parameter: Bytes(many.values[0])}
    assert isinstance(many, CollectionString)
    return {trigger.parameter: String(many.values[0])}


def _single_metadata(message: Any, key_type: str) -> Payload:
    """Source: ToRpc in GrpcMessageConversionExtensions.cs: text and bytes go as they are, null as nothing, the
    rest as JSON. A binary key is therefore bytes here, which azure-functions refuses to decode."""
    epoch = message.leader_epoch()
    return {
        "Key": _single(_keys([message], key_type)[0]),
        "Partition": Json(str(message.partition())),
        "Topic": String(message.topic()),
        "Timestamp": _as_json(_timestamps([message])[0]),
        "Offset": Json(str(message.offset())),
        "Headers": _as_json(_headers(message)),
        "LeaderEpoch": Nothing() if epoch is None else Json(str(epoch)),
        "IsPartitionEOF": Json("false"),
    }


def _single(key: bytes | str | int | None) -> TypedData:
    match key:
        case None:
            return Nothing()
        case bytes():
            return Bytes(key)
        case str():
            return String(key)
        case _:
            return Json(str(key))


def batch_of(messages: Messages, trigger: KafkaTrigger) -> Batch:
    """The payload and the offsets of consumed records; at least one."""
    return Batch(
        count=len(messages),
        first=(messages[0].partition(), messages[0].offset()),
        positions=_positions(messages),
        input_data=encode_payload(input_data(messages, trigger.parameter, trigger.data_type, trigger.key_type)),
        trigger_metadata=encode_payload(trigger_metadata(messages, trigger.key_type)),
    )


def _positions(messages: Messages) -> list[tuple[int, int]]:
    """Source: MultipleItemFunctionExecutor.cs walks the list from its end. After a rebalance the list can run
    backwards, and then so does the stored offset."""
    partitions = [message.partition() for message in messages]
    last = dict(zip(partitions, [message.offset() for message in messages], strict=True))
    order: dict[int, None] = {}
    for partition in reversed(partitions):
        order[partition] = None
        if len(order) == len(last):
            break
    return [(partition, last[partition] + 1) for partition in order]


def input_data(messages: Messages, parameter: str, data_type: str, key_type: str) -> Payload:
    """The trigger's own parameter: raw values, or one JSON envelope a record."""
    values: list[bytes | None] = [message.value() for message in messages]
    if data_type == "binary":
        return {parameter: CollectionBytes([value or b"" for value in values])}
    keys = _keys(messages, key_type)
    stamps = _timestamps(messages)
    envelopes = [
        _json(
            {
                "Offset": message.offset(),
                "Partition": message.partition(),
                "Topic": message.topic(),
                "Timestamp": stamp,
                "Value": _text(value),
                "LeaderEpoch": message.leader_epoch(),
                "IsPartitionEOF": False,
                "Key": key,
                "Headers": _headers(message),
            }
        ).decode()
        for message, value, key, stamp in zip(messages, values, keys, stamps, strict=True)
    ]
    return {parameter: CollectionString(envelopes)}


def trigger_metadata(messages: Messages, key_type: str) -> Payload:
    """The arrays that describe the records, one entry a record."""
    return {
        "OffsetArray": CollectionSint64([message.offset() for message in messages]),
        "TopicArray": CollectionString([message.topic() for message in messages]),
        "PartitionArray": _as_json([message.partition() for message in messages]),
        "TimestampArray": _as_json(_timestamps(messages)),
        "KeyArray": _as_json(_keys(messages, key_type)),
        "HeadersArray": _as_json([_headers(message) for message in messages]),
        "LeaderEpochArray": _as_json([message.leader_epoch() for message in messages]),
        "IsPartitionEOFArray": _as_json([False] * len(messages)),
    }


def readable(key_type: str) -> Callable[[Any], bool] | None:
    """Whether the extension can read a record's key; None where it can read any.

    Source: Confluent.Kafka's deserializers of int and long refuse null and other lengths; the record is then
    logged as a consume error and left out.
    """
    length = _INT_BYTES.get(key_type)
    if length is None:
        return None
    return lambda message: message.key() is not None and len(message.key()) == length


def _as_json(values: Any) -> Json:
    return Json(_json(values).decode())


class _Header(msgspec.Struct, gc=False):
    """One header; bytes become base64 when it is encoded, None becomes null."""

    Key: str
    Value: bytes | None


def _headers(message: Any) -> list[_Header]:
    return [_Header(name, value) for name, value in message.headers() or ()]


def _keys(messages: Messages, key_type: str) -> list[Any]:
    keys: list[bytes | None] = [message.key() for message in messages]
    match key_type:
        case "binary":
            return keys
        case "string":
            return [_text(key) for key in keys]
        case _:
            return [int.from_bytes(key or b"", "big", signed=True) for key in keys]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _timestamps(messages: Messages) -> list[str]:
    """ISO text in UTC; trailing zeros of the fraction are trimmed, and the point with them.

    Source: Newtonsoft.Json prints DateTime so; a record without a timestamp has -1, the last millisecond of 1969.
    """
    texts: dict[int, str] = {}
    result = []
    for _, stamp_ms in [message.timestamp() for message in messages]:
        text = texts.get(stamp_ms)
        if text is None:
            seconds, ms = divmod(stamp_ms, 1000)
            moment = datetime.fromtimestamp(seconds, UTC)
            text = texts[stamp_ms] = f"{moment:%Y-%m-%dT%H:%M:%S}{_FRACTIONS[ms]}Z"
        result.append(text)
    return result
