"""The lane table: what becomes of a record by its route's format and by how its value is framed.

It stands below the settings, which refuse whatever it does not hold, so that a start pays for no encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Framing = Literal["none", "registry", "schema"]
"""How a value is framed: not at all, by a schema registry's id, or not at all but with the route's own schema."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What one format and framing come to.

    `kind` is `bytes` where the value passes through (checked, joined, framed anew, metadata put in), `objects`
    where it is decoded and leaves as a JSON line. Whatever must look inside takes the second.
    `codec` names the module of `sinkcore.encode`. `stored` is the blob's format as ADX names it, and
    `stored_with_metadata` the same for a route with metadata.
    `fields` says that `when` can ask for a field, because the value is JSON as it arrives; for a header it can ask
    in every lane. `validates` says that `validate: false` means something. `kinds` are the kinds of schema that it
    takes, as a registry names them.
    """

    kind: Literal["bytes", "objects"]
    codec: str
    stored: str
    stored_with_metadata: str
    fields: bool = False
    validates: bool = False
    kinds: tuple[str, ...] = ()


# Every kind of JSON leaves as one object a line, metadata as its last member.
_JSON = Lane("bytes", "jsonlines", "json", "json", fields=True)
# Protobuf is decoded; JSON that has a schema passes through, but which of the two comes only the schema says.
_DECODED = Lane("objects", "decoded", "json", "json", validates=True, kinds=("PROTOBUF", "JSON"))


def _text(format_: str) -> Lane:
    # What has no columns is stored as CSV where it needs some: `raw` would be one value a blob, not one a record.
    with_metadata = "csv" if format_ in ("txt", "raw") else format_
    return Lane("bytes", "text", "csv" if format_ == "raw" else format_, with_metadata)


TEXT_FORMATS = ("csv", "tsv", "scsv", "sohsv", "psv", "tsve", "txt", "raw")


def _avro(format_: str) -> Lane:
    return Lane("bytes", "avro", format_, format_, validates=True, kinds=("AVRO",))


LANES: Mapping[tuple[str, Framing], Lane] = {
    ("json", "none"): _JSON,
    ("json", "registry"): _DECODED,
    ("json", "schema"): _DECODED,
    ("multijson", "none"): _JSON,
    ("singlejson", "none"): _JSON,
    **{(name, "none"): _text(name) for name in TEXT_FORMATS},
    ("avro", "registry"): _avro("avro"),
    ("avro", "schema"): _avro("avro"),
    ("apacheavro", "registry"): _avro("apacheavro"),
    ("apacheavro", "schema"): _avro("apacheavro"),
}
"""What works. An envelope or a transform, when they come, decode the value and so take an `objects` lane."""

SUFFIXES: Mapping[str, str] = {
    "json": ".json.gz",
    **{name: f".{name}.gz" for name in TEXT_FORMATS if name != "raw"},
    "avro": ".avro",
    "apacheavro": ".avro",
}
"""How a blob's name ends, by its stored format; `.gz` tells ADX that it is gzip as a whole."""

TEXT_METADATA: Mapping[str, str] = {
    "topic": "string",
    "partition": "int",
    "offset": "long",
    "timestamp": "datetime",
    "segment": "string",
    "key": "string",
    "headers": "dynamic",
}
"""Columns that come first in a row of text with metadata, in this order, and ADX's types for them.

`headers` is JSON; so is a key that is no text. What Kafka has not got is empty.
"""
