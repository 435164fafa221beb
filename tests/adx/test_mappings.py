"""Ingestion mappings: by reference, by kind, by scope, and what they can point at."""

from __future__ import annotations

import json

import pytest
from azure.kusto.data.data_format import DataFormat, IngestionMappingKind
from azure.kusto.ingest import ColumnMapping

from tests.adx.support import Double


def create(double: Double, table: str, kind: str, name: str, *elements: object) -> None:
    body = json.dumps(list(elements)).replace("\\", "\\\\").replace("'", "\\'")
    double.command(f".create table {table} ingestion {kind} mapping '{name}' '{body}'")


def test_json_paths_reach_into_objects_arrays_and_odd_names(double: Double) -> None:
    """`$` is the record itself; brackets and quotes hold any name; a missing place gives nothing."""
    table = double.table(
        "whole: dynamic, a: long, deep: string, odd: string, item: long, none: string, fixed: long"
    )
    create(
        double,
        table,
        "json",
        "M",
        {"column": "whole", "Properties": {"Path": "$"}},
        {"column": "a", "path": "$.a"},
        {"Column": "deep", "Properties": {"path": "$.o.p.q"}},
        {"Column": "odd", "Properties": {"Path": "$['a b']['c.d']"}},
        {"Column": "item", "Properties": {"Path": "$.list[1].n"}},
        {"Column": "none", "Properties": {"Path": "$.a.b.c"}},
        {"Column": "fixed", "Properties": {"ConstValue": "42"}},
    )
    record = b'{"a":7,"o":{"p":{"q":"x"}},"a b":{"c.d":"y"},"list":[{"n":1},{"n":2}]}'

    outcome = double.ingest(
        table, [record, b"{}"], ingestion_mapping_reference="M", ingestion_mapping_kind=IngestionMappingKind.JSON
    )

    assert outcome == "Succeeded"
    assert double.query(f"{table} | sort by a desc") == [
        [json.loads(record), 7, "x", "y", 2, "", 42],
        [{}, None, "", "", None, "", 42],
    ]


def test_a_column_that_the_mapping_leaves_out_is_null_or_empty(double: Double) -> None:
    """With a mapping nothing is matched by name."""
    table = double.table("a: long, b: long, s: string")
    create(double, table, "json", "M", {"column": "a", "path": "$.b"})

    assert double.ingest(table, b'{"a":1,"b":2,"s":"x"}', ingestion_mapping_reference="M") == "Succeeded"
    assert double.query(table) == [[2, None, ""]]


def test_without_a_mapping_fields_are_matched_by_name_and_case(double: Double) -> None:
    """Identity mapping is case-sensitive (mappings.md)."""
    table = double.table("Name: string, n: long")

    assert double.ingest(table, b'{"name": "x", "Name": "y", "N": 1}') == "Succeeded"
    assert double.query(table) == [["y", None]]


def test_csv_mappings_go_by_ordinal(double: Double) -> None:
    """An ordinal beyond the line gives nothing."""
    table = double.table("a: long, b: string, c: string")
    create(
        double,
        table,
        "csv",
        "M",
        {"Column": "b", "Properties": {"Ordinal": "0"}},
        {"Column": "a", "Properties": {"Ordinal": 1}},
        {"Column": "c", "Properties": {"Ordinal": "9"}},
    )

    assert double.ingest(table, b"x,5\n", DataFormat.CSV, ingestion_mapping_reference="M") == "Succeeded"
    assert double.query(table) == [[5, "x", ""]]


def test_a_mapping_of_another_kind_or_name_is_not_found(double: Double) -> None:
    """The same name under `csv` is another mapping; the kind of the format decides."""
    table = double.table("a: long")
    create(double, table, "csv", "M", {"Column": "a", "Properties": {"Ordinal": "0"}})

    for reference in ("M", "m", "Other"):
        outcome = double.ingest(table, b'{"a": 1}', ingestion_mapping_reference=reference)
        assert outcome == "BadRequest_MappingReferenceWasNotFound"
    assert double.count(table) == 0


def test_a_table_s_mapping_comes_before_its_database_s(double: Double) -> None:
    """create-ingestion-mapping-command.md: the table scope has higher priority."""
    table = double.table("a: long")
    body = '[{"column": "a", "path": "$.db"}]'
    double.command(f".create-or-alter database db ingestion json mapping '{table}' '{body}'")

    assert double.ingest(table, b'{"db": 1, "t": 2}', ingestion_mapping_reference=table) == "Succeeded"
    create(double, table, "json", table, {"column": "a", "path": "$.t"})
    assert double.ingest(table, b'{"db": 1, "t": 2}', ingestion_mapping_reference=table) == "Succeeded"

    assert sorted(double.query(table)) == [[1], [2]]


def test_a_mapping_to_a_column_that_the_table_lacks_is_refused(double: Double) -> None:
    """BadRequest_InconsistentMapping; ADX might add the column, which this double does not guess at."""
    table = double.table("a: long")
    create(double, table, "json", "M", {"column": "zz", "path": "$.a"})

    assert double.ingest(table, b'{"a": 1}', ingestion_mapping_reference="M") == "BadRequest_InconsistentMapping"


@pytest.mark.parametrize("path", ["$.a[*]", "$..a", "$.a[0:2]", "$.['a", "$x"])
def test_a_path_outside_kusto_s_subset_is_refused_when_the_mapping_is_made(double: Double, path: str) -> None:
    """jsonpath.md: wildcards, recursion, unions and slices are not supported."""
    table = double.table("a: long")

    with pytest.raises(Exception, match=r"cannot be read|wildcard"):
        create(double, table, "json", "M", {"column": "a", "path": path})


def test_a_mapping_can_come_with_the_message(double: Double) -> None:
    """As the SDK builds it from column mappings."""
    table = double.table("a: long, s: string")
    columns = [ColumnMapping("a", "long", path="$.x.y"), ColumnMapping("s", "string", const_value="fixed")]

    outcome = double.ingest(
        table,
        b'{"x": {"y": 9}}',
        column_mappings=columns,
        ingestion_mapping_kind=IngestionMappingKind.JSON,
    )

    assert outcome == "Succeeded"
    assert double.query(table) == [[9, "fixed"]]


def test_a_transformation_is_refused_by_name(double: Double) -> None:
    """One that the SDKs know and no page explains; ignoring it would ingest something else."""
    table = double.table("a: long")

    with pytest.raises(Exception, match="GetPathElement"):
        create(double, table, "json", "M", {"column": "a", "Properties": {"Transform": "GetPathElement"}})


def test_a_property_of_a_mapping_that_the_double_does_not_know_is_refused(double: Double) -> None:
    """Leaving it out would ingest something else; the error names it."""
    table = double.table("a: long")

    with pytest.raises(Exception, match="'surprise' of column 'a'"):
        create(double, table, "json", "M", {"column": "a", "Properties": {"Path": "$.a", "Surprise": "x"}})


def test_a_mapping_in_the_java_client_s_spelling_is_understood(double: Double) -> None:
    """kusto-ingest for Java 7.0.5 writes `columnName` and `columnType`; seen in `make clients`."""
    table = double.table("a: long")
    column = '{"columnName": "a", "columnType": "long", "properties": {"Path": "$.x"}}'

    double.command(f".create table {table} ingestion json mapping 'M' '[{column}]'")

    assert double.ingest(table, b'{"x": 7}', ingestion_mapping_reference="M") == "Succeeded"
    assert double.query(table) == [[7]]
