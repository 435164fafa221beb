"""How the blobs of a batch become rows of one table: format, mapping, target columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from localrunner.adx import avro, columnar, delimited, mapping, multijson, records, transforms
from localrunner.adx.catalog import Catalog, Mapping, Table
from localrunner.adx.errors import IngestionError, KustoError
from localrunner.adx.messages import Request

Decode = Callable[[BinaryIO], Iterator[list[records.Tokens]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """`decode` turns a decompressed stream into rows, one token for each of `sources`, of type `kinds`."""

    table: Table
    format: str
    sources: tuple[mapping.Source, ...]
    kinds: tuple[str, ...]
    decode: Decode
    transform: transforms.Transform | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    format: str
    sources: tuple[mapping.Source, ...]
    kinds: tuple[str, ...]
    skip_first: bool = False
    even: bool = True


def _lines(wanted: _Wanted) -> Decode:
    extract = records.extractor([source.path for source in wanted.sources])
    return lambda stream: records.json_lines(stream, extract)


def _multi(wanted: _Wanted) -> Decode:
    extract = records.extractor([source.path for source in wanted.sources])
    return lambda stream: multijson.rows(stream, extract)


def _text(wanted: _Wanted) -> Decode:
    dynamic = [kind == "dynamic" for kind in wanted.kinds]
    shape = delimited.Shape(wanted.format, wanted.skip_first, wanted.even)
    return lambda stream: delimited.rows(stream, shape, wanted.sources, dynamic)


def _avro(wanted: _Wanted) -> Decode:
    extract = records.extractor([source.path for source in wanted.sources])
    return lambda stream: avro.rows(stream, extract)


def _columnar(wanted: _Wanted) -> Decode:
    return lambda stream: columnar.rows(stream, wanted.format, wanted.sources, wanted.kinds)


# Format -> the kind of mapping it takes, and what builds its decoder. Source: kusto/management/mappings.md,
# "Supported mapping types". `singlejson` is not on that page; the SDKs send it with JSON mappings.
FORMATS: dict[str, tuple[str, Callable[[_Wanted], Decode]]] = {
    **dict.fromkeys(delimited.FORMATS, ("csv", _text)),
    "json": ("json", _lines),
    "multijson": ("json", _multi),
    "singlejson": ("json", _multi),
    "avro": ("avro", _avro),
    "apacheavro": ("avro", _avro),
    "parquet": ("parquet", _columnar),
    "orc": ("orc", _columnar),
}
# The SDKs have a kind of their own for this format, the service does not.
_KINDS = {"apacheavro": "avro"}


def inline(table: Table) -> Plan:
    """The plan for CSV text that comes with a command."""
    sources = mapping.identity("csv", table.columns)
    kinds = tuple(column.type for column in table.columns)
    return Plan(table, "csv", sources, kinds, _text(_Wanted("csv", sources, kinds)))


def plan(catalog: Catalog, request: Request) -> Plan:
    """How the blobs of a batch are read; all share the properties of `request`.

    Raises:
        IngestionError: the target, the format or the mapping is not there or does not fit.
    """
    try:
        database = catalog.database(request.database)
    except KustoError:
        raise IngestionError(
            "BadRequest_DatabaseNotExist", f"Database '{request.database}' does not exist."
        ) from None
    table = database.tables.get(request.table)
    if table is None:
        raise IngestionError("BadRequest_TableNotExist", f"Table '{request.table}' does not exist.")
    if request.format not in FORMATS:
        raise IngestionError(
            "BadRequest_FormatNotSupported", f"Format '{request.format}' is not known to this double."
        )
    kind, build = FORMATS[request.format]
    if request.ignore_first_record and kind != "csv":
        raise IngestionError(
            "BadRequest_IngestionPropertyNotSupportedInThisContext",
            f"ignoreFirstRecord is not known to this double for format '{request.format}'.",
        )
    sources = _sources(request, kind, table, database.mappings)
    types = {column.name: column.type for column in table.columns}
    unknown = [source.column for source in sources if source.column not in types]
    if unknown:
        raise IngestionError(
            "BadRequest_InconsistentMapping",
            f"The mapping names column '{unknown[0]}', which table '{table.name}' does not have.",
        )
    kinds = tuple(types[source.column] for source in sources)
    wanted = _Wanted(request.format, sources, kinds, request.ignore_first_record, request.even_lines)
    return Plan(table, request.format, sources, kinds, build(wanted), transforms.built(sources))


def _sources(
    request: Request, kind: str, table: Table, shared: dict[tuple[str, str], Mapping]
) -> tuple[mapping.Source, ...]:
    if request.mapping_kind and _KINDS.get(request.mapping_kind, request.mapping_kind) != kind:
        raise IngestionError(
            "BadRequest_InvalidMappingReference",
            f"A mapping of kind '{request.mapping_kind}' does not go with format '{request.format}'.",
        )
    if request.inline_mapping:
        return mapping.parse(kind, request.inline_mapping)
    if not request.mapping_reference:
        return mapping.identity(kind, table.columns)
    key = (kind, request.mapping_reference)
    # A table's mapping comes before its database's. Source: create-ingestion-mapping-command.md.
    found = table.mappings.get(key) or shared.get(key)
    if found is None:
        raise IngestionError(
            "BadRequest_MappingReferenceWasNotFound",
            f"There is no {kind} mapping '{request.mapping_reference}' for table '{table.name}'.",
        )
    return mapping.parse(kind, found.body)
