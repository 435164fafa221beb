"""Parquet and ORC files to rows of tokens; which type goes into which column is Microsoft's table.

Source: dataexplorer-docs, kusto/management/parquet-mapping.md, "Parquet type conversions". For ORC there is no
such page; the same table is used (docs/adx-double.md, "Formats").
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, BinaryIO, cast

import msgspec

from localrunner.adx.errors import IngestionError
from localrunner.adx.mapping import Path, Source
from localrunner.adx.records import Tokens, extractor

_ROWS_AT_ONCE = 2000
_PIECE_BYTES = 1024 * 1024
_NUMBERS = frozenset({"bool", "int", "long", "real", "decimal", "string"})
_TAKEN_BY: dict[str, frozenset[str]] = {
    "integer": _NUMBERS,
    "uint64": _NUMBERS - {"real"},
    "float": _NUMBERS,
    "boolean": frozenset({"bool", "decimal", "string"}),
    "decimal": _NUMBERS,
    "decimal in fixed bytes": frozenset({"long", "real", "decimal", "string"}),
    "decimal in bytes": frozenset({"bool", "long", "real", "decimal", "string", "dynamic"}),
    "time": frozenset({"datetime", "string"}),
    "string": frozenset({"int", "long", "real", "decimal", "string", "dynamic"}),
    "uuid": frozenset({"string", "guid"}),
    "nested": frozenset({"dynamic"}),
    "other": frozenset(),
}
_encode = msgspec.json.Encoder(decimal_format="number").encode
_ANY = msgspec.json.Decoder(msgspec.Raw)

Change = Callable[[bytes], bytes]


def rows(stream: BinaryIO, name: str, sources: Sequence[Source], kinds: Sequence[str]) -> Iterator[list[Tokens]]:
    """Rows of a Parquet or ORC file (`name` says which). Any fault refuses the whole blob."""
    import pyarrow as pa  # type: ignore[import-untyped]  # the import takes a third of a second

    extract = extractor([source.path for source in sources])
    try:
        schema, physical, batches = _opened(_seekable(stream), name)
        changes = [
            _change(_category(schema, physical, source.path), kind)
            if source.path is not None and not source.transform
            else _same
            for source, kind in zip(sources, kinds, strict=True)
        ]
        for batch in batches:
            plain = [_values(column) for column in batch.columns]
            names = batch.schema.names
            yield [
                [
                    change(bytes(token))
                    for change, token in zip(
                        changes, extract(_encode(dict(zip(names, values, strict=True)))), strict=True
                    )
                ]
                for values in zip(*plain, strict=True)
            ]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise IngestionError(
            "BadRequest_InvalidBlob", f"The blob is not a valid {name} file: {type(error).__name__}."
        ) from None


def _seekable(stream: BinaryIO) -> BinaryIO:
    """The stream, or what it holds on disk: these formats are read from their end, which compression hides."""
    if stream.seekable() and not hasattr(stream, "peek"):
        return stream
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it lives as long as what reads it
    shutil.copyfileobj(stream, file, _PIECE_BYTES)
    file.seek(0)
    return file


def _opened(stream: BinaryIO, name: str) -> tuple[Any, dict[str, str], Iterator[Any]]:
    """The schema, Parquet's physical type of each leaf, and the record batches."""
    if name == "parquet":
        from pyarrow import parquet

        file = parquet.ParquetFile(stream)
        leaves = [file.schema.column(place) for place in range(len(file.schema))]
        physical = {leaf.path: str(leaf.physical_type) for leaf in leaves}
        return file.schema_arrow, physical, file.iter_batches(batch_size=_ROWS_AT_ONCE)
    from pyarrow import orc

    stripes = orc.ORCFile(stream)

    def batches() -> Iterator[Any]:
        for number in range(stripes.nstripes):
            stripe = stripes.read_stripe(number)
            for start in range(0, stripe.num_rows, _ROWS_AT_ONCE):
                yield stripe.slice(start, _ROWS_AT_ONCE)

    return stripes.schema, {}, batches()


def _values(column: Any) -> list[Any]:
    """The column as Python's values, with objects for maps; time to the microsecond."""
    narrow = _in_microseconds(column.type)
    values: list[Any] = (column if narrow == column.type else column.cast(narrow, safe=False)).to_pylist()
    shape = _shaper(column.type)
    return values if shape is None else [shape(value) for value in values]


def _in_microseconds(kind: Any) -> Any:
    """The type with microseconds for nanoseconds, which Python's datetimes lack."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_struct(kind):
        return pa.struct([kind.field(i).with_type(_in_microseconds(kind.field(i).type)) for i in range(len(kind))])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    return kind


def _shaper(kind: Any) -> Callable[[Any], Any] | None:
    """What turns a value of the type into one that JSON can hold; None where it is one already."""
    import pyarrow as pa

    if pa.types.is_map(kind):
        inner = _shaper(kind.item_type) or (lambda value: value)
        return lambda pairs: None if pairs is None else {str(name): inner(value) for name, value in pairs}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = _shaper(kind.value_type)
        return item and (lambda values: None if values is None else [item(value) for value in values])
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: _shaper(kind.field(i).type) for i in range(len(kind))}
        shapers = {name: shaper for name, shaper in fields.items() if shaper is not None}
        if not shapers:
            return None
        return lambda value: (
            value and {name: shapers[name](one) if name in shapers else one for name, one in value.items()}
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda value: None if value is None else value.decode("utf-8", "replace")
    if pa.types.is_floating(kind):
        # JSON has no word for these; the columns take them as text.
        return lambda value: value if value is None or math.isfinite(value) else str(value)
    return None


def _category(schema: Any, physical: dict[str, str], path: Path) -> str:
    """The row of Microsoft's table that the type at `path` is in."""
    import pyarrow as pa

    kind: Any = None
    for depth, step in enumerate(path):
        if depth == 0:
            place = schema.get_field_index(step) if isinstance(step, str) else -1
            kind = schema.field(place).type if place >= 0 else None
        elif isinstance(step, int):
            kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
        elif pa.types.is_struct(kind):
            place = kind.get_field_index(step)
            kind = kind.field(place).type if place >= 0 else None
        else:
            kind = kind.item_type if pa.types.is_map(kind) else None
        if kind is None:
            # There is no such field, so that there is nothing to convert either.
            return "other"
    if kind is None:
        return "nested"
    return _named(kind, physical.get(".".join(map(str, path)), ""))


def _named(kind: Any, physical: str) -> str:
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.UuidType):
        return "uuid"
    if types.is_decimal(kind):
        return {"FIXED_LEN_BYTE_ARRAY": "decimal in fixed bytes", "BYTE_ARRAY": "decimal in bytes"}.get(
            physical, "decimal"
        )
    for name, belongs in (
        ("uint64", types.is_uint64),
        ("integer", types.is_integer),
        ("float", types.is_floating),
        ("boolean", types.is_boolean),
        ("time", lambda one: types.is_timestamp(one) or types.is_date(one)),
        ("string", lambda one: types.is_string(one) or types.is_large_string(one) or types.is_binary(one)),
        ("nested", types.is_nested),
    ):
        if belongs(kind):
            return name
    return "other"


def _change(category: str, kind: str) -> Change:
    """From the token of a value in `category` to one that a column of type `kind` takes, or to nothing."""
    if kind not in _TAKEN_BY[category]:
        return _nothing
    if kind == "bool" and category != "boolean":
        return _truth
    if kind in ("int", "long") and category in ("float", "decimal", "decimal in fixed bytes", "decimal in bytes"):
        return _whole
    if kind == "decimal" and category == "boolean":
        return lambda token: {b"true": b"1", b"false": b"0"}.get(token, b"")
    if kind == "dynamic" and category == "string":
        return _own_json
    return _same


def _same(token: bytes) -> bytes:
    return token


def _nothing(_token: bytes) -> bytes:
    return b""


def _truth(token: bytes) -> bytes:
    if token in (b"", b"null"):
        return b""
    return b"false" if Decimal(token.strip(b'"').decode()) == 0 else b"true"


def _whole(token: bytes) -> bytes:
    """A number without a fraction as an integer; nothing for any other."""
    if token in (b"", b"null") or token[:1] == b'"':
        return b""
    number = Decimal(token.decode())
    return str(int(number)).encode() if number == number.to_integral_value() else b""


def _own_json(token: bytes) -> bytes:
    """A string as the JSON that it holds, if it holds any."""
    if token[:1] != b'"':
        return token
    inner = msgspec.json.decode(token, type=str).encode()
    try:
        _ANY.decode(inner)
    except (msgspec.MsgspecError, RecursionError):
        return token
    return inner.strip().replace(b"\n", b" ").replace(b"\r", b" ")
