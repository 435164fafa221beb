"""Management commands that a person needs to set up a table, and that everything else is refused by name."""

from __future__ import annotations

import json

import pytest
from azure.kusto.data.exceptions import KustoApiError
from hypothesis import given, settings
from hypothesis import strategies as st

from localrunner.adx.csl import Reader, split_pipeline
from localrunner.adx.errors import KustoError
from tests.adx.support import Double, table_name

ALL_TYPES = "a:bool, b:boolean, c:datetime, d:date, e:decimal, f:dynamic, g:guid, h:uuid, i:int, j:int32, k:long"
ALL_TYPES += ", l:int64, m:real, n:double, o:string, p:timespan, q:time, r:System.String"


def test_a_table_has_the_schema_it_was_created_with(double: Double) -> None:
    """Aliases are shown by Kusto's own names, and odd names can be written in brackets."""
    name = table_name()
    (created,) = double.command(
        f".create table ['{name}'] ({ALL_TYPES}, ['odd name-1']:long) with (folder='f', docstring=\"d\")"
    )

    schema = json.loads(created["Schema"])
    assert schema["Name"] == name
    assert [c["CslType"] for c in schema["OrderedColumns"]] == [
        "bool", "bool", "datetime", "datetime", "decimal", "dynamic", "guid", "guid", "int", "int", "long",
        "long", "real", "real", "string", "timespan", "timespan", "string", "long",
    ]  # fmt: skip
    assert double.command(f".show table {name} schema as json") == [created]
    (listed,) = double.command(f".show tables ({name})")
    assert listed == {"TableName": name, "DatabaseName": "db", "Folder": "f", "DocString": "d"}
    again = double.command(f".show table {name} cslschema")[0]["Schema"]
    assert again.endswith("r:string, ['odd name-1']:long")
    double.command(f".create table {name}_2 ({again})")


@pytest.mark.parametrize("before", ["// which | tables\n", "\n  // one\n\n// .drop two\n  "])
def test_a_command_may_have_comments_before_it_and_in_it(double: Double, before: str) -> None:
    """management/index.md wants a dot first, and shows its own commands below comments, as files have them."""
    name = table_name()

    double.command(f"{before}.create table {name} // named | by us\n (a: long)")

    text = f"{before}.show tables ({name}) // its | bar\n| project TableName // the end"
    assert double.command(text) == [{"TableName": name}]


def test_comments_alone_and_a_query_below_one_are_no_command(double: Double) -> None:
    for text in ("// .show tables", "// first\nprint 1"):
        with pytest.raises(KustoApiError, match=r"begins with '\.', after comments at most"):
            double.command(text)


def test_creating_a_table_that_exists_changes_nothing(double: Double) -> None:
    """create-table-command.md: success, whatever the schema."""
    name = double.table("a: long")

    double.command(f".create tables {name} (z: string), {name}x (b: string)")

    assert double.command(f".show table {name} cslschema")[0]["Schema"] == "a:long"
    assert double.command(f".show table {name}x cslschema")[0]["Schema"] == "b:string"


def test_altering_a_table_keeps_the_data_of_the_columns_that_stay(double: Double) -> None:
    """New columns are null (empty in a string column), dropped ones are gone, the order is the given one."""
    name = double.table("a: long, b: string")
    double.command(f".ingest inline into table {name} <|1,x\n2,y")

    double.command(f".alter table {name} (s: string, b: string, c: long)")
    assert double.query(f"{name} | sort by b asc") == [["", "x", None], ["", "y", None]]
    double.command(f".alter-merge table {name} (d: long)")
    double.command(f".create-merge table {name} (d: long, e: long)")
    assert (
        double.command(f".show table {name} cslschema")[0]["Schema"]
        == "s:string, b:string, c:long, d:long, e:long"
    )
    double.command(f".ingest inline into table {name} <|s,z,3,4,5")
    assert double.query(f"{name} | where b == 'z'") == [["s", "z", 3, 4, 5]]

    for command in (f".alter table {name} (b: long)", f".create-merge table {name} (b: long)"):
        with pytest.raises(KustoApiError, match=r"'b'.* is of type string"):
            double.command(command)


def test_dropping_and_clearing_tables(double: Double) -> None:
    """A dropped table is unknown at once; its name can be used again and has no rows, mappings or policies."""
    name = double.table("a: long")
    double.command(f".ingest inline into table {name} <|1")
    double.command(f".clear table {name} data")
    assert double.count(name) == 0
    assert double.command(f".show table {name} extents") == []
    double.command(f'.create table {name} ingestion json mapping \'M\' \'[{{"column":"a","path":"$.a"}}]\'')

    remaining = double.command(f".drop table {name}")

    assert name not in [row["TableName"] for row in remaining]
    with pytest.raises(KustoApiError, match="was not found"):
        double.command(f".drop table {name}")
    double.command(f".drop table {name} ifexists")
    with pytest.raises(KustoApiError, match=name):
        double.query(name)
    double.command(f".create table {name} (z: string)")
    assert double.command(f".show table {name} ingestion mappings") == []


def test_names_are_case_sensitive_but_for_databases(double: Double) -> None:
    """entity-names.md; two tables may differ in case only."""
    name = double.table("a: long")
    double.command(f".create table {name.lower()} (b: string)", database="DB")

    assert double.query(f"{name.lower()} | count", database="dB") == [[0]]
    with pytest.raises(KustoApiError, match="was not found"):
        double.command(f".show table {name.upper()}")


def test_a_mapping_s_text_may_be_any_kind_of_literal(double: Double) -> None:
    """Single and double quotes, verbatim, several pieces one after another, and backticks over lines."""
    table = double.table("a: long")
    body = '[{"column":"a","path":"$.a"}]'
    literals = [
        f"'{body}'",
        '"' + body.replace('"', '\\"') + '"',
        f"@'{body}'",
        '@"' + body.replace('"', '""') + '"',
        "```" + body.replace(",", ",\n") + "```",
        "'['\n'" + body[1:-1] + "' // a comment\n']'",
    ]
    for number, literal in enumerate(literals):
        double.command(f'.create table {table} ingestion json mapping "M{number}" {literal}')

    shown = double.command(f".show table {table} ingestion json mappings | project Name, Kind, Mapping")

    assert [(row["Name"], row["Kind"], json.loads(row["Mapping"])) for row in shown] == [
        (f"M{number}", "Json", json.loads(body)) for number in range(len(literals))
    ]


def test_mappings_are_created_once_altered_and_dropped(double: Double) -> None:
    """`.create` of an existing name fails; `.create-or-alter` replaces it."""
    table = double.table("a: long")
    double.command(f'.create table {table} ingestion json mapping \'M\' \'[{{"column":"a","path":"$.a"}}]\'')
    with pytest.raises(KustoApiError, match="already exists"):
        double.command(f'.create table {table} ingestion json mapping \'M\' \'[{{"column":"a","path":"$.b"}}]\'')
    double.command(
        f'.create-or-alter table {table} ingestion json mapping \'M\' \'[{{"column":"a","path":"$.c"}}]\''
    )
    assert "$.c" in double.command(f".show table {table} ingestion json mapping 'M'")[0]["Mapping"]

    assert double.command(f".drop table {table} ingestion json mapping 'M'") == []
    for command in (".drop", ".show"):
        with pytest.raises(KustoApiError, match="was not found"):
            double.command(f"{command} table {table} ingestion json mapping 'M'")


def test_policies_fall_back_to_the_defaults_that_they_leave_out(double: Double) -> None:
    """`.alter` resets what it does not name, `.alter-merge` keeps it, `.delete` removes the policy."""
    table = double.table("a: long")

    def policy() -> object:
        return json.loads(double.command(f".show table {table} policy ingestionbatching")[0]["Policy"])

    assert policy() is None
    double.command(f'.alter table {table} policy ingestionbatching ```{{"MaximumNumberOfItems": 20}}```')
    double.command(
        f'.alter-merge table db.{table} policy ingestionbatching \'{{"MaximumBatchingTimeSpan": "00:00:30"}}\''
    )
    assert policy() == {
        "MaximumBatchingTimeSpan": "00:00:30",
        "MaximumNumberOfItems": 20,
        "MaximumRawDataSizeMB": 1024,
    }
    double.command(f".alter tables ({table}) policy ingestionbatching '{{\"MaximumRawDataSizeMB\": 300}}'")
    assert policy() == {
        "MaximumBatchingTimeSpan": "00:05:00",
        "MaximumNumberOfItems": 500,
        "MaximumRawDataSizeMB": 300,
    }
    double.command(f".delete table {table} policy ingestionbatching")
    assert policy() is None


@pytest.mark.parametrize(
    "policy",
    ['{"MaximumBatchingTimeSpan": "00:00:01"}', '{"MaximumNumberOfItems": 0}', '{"Maximum": 1}', "[]", "{"],
)
def test_a_policy_outside_kusto_s_limits_is_refused(double: Double, policy: str) -> None:
    """batching-policy.md, "Defaults and limits"."""
    table = double.table("a: long")

    with pytest.raises(KustoApiError, match="policy is not valid"):
        double.command(f".alter table {table} policy ingestionbatching '{policy}'")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (".show the moon", ".show the moon"),
        (".create materialized-view V on table T { T }", ".create materialized-view V"),
        (".alter table T policy retention '{}'", "expected"),
        (".create table X (a: complex)", "'complex' is not a column type"),
        (".create table X (a: long) with (colour='red')", "property 'colour' is not known"),
        (".create table X (a: long, A: long)", "differ only in case"),
        (".create table X (a: long) and more", "nothing more is expected"),
        (".create table __X (a: long)", "not a valid table name"),
        (".show table NoSuch", "'NoSuch' of kind 'Table'"),
        (".ingest inline into table NoSuch <| 1", "'NoSuch' of kind 'Table'"),
    ],
)
def test_what_the_double_does_not_know_is_an_error_that_names_it(double: Double, command: str, named: str) -> None:
    """Never an empty result."""
    with pytest.raises(KustoApiError) as caught:
        double.command(command)

    assert named in str(caught.value)
    assert caught.value.error.permanent is True


def test_the_result_of_a_command_can_be_piped_through_a_query(double: Double) -> None:
    """`.show tables | where ...` is how people look for a table; a bar inside a literal is no pipe."""
    name = double.table("a: long")

    assert double.command(f".show tables | where TableName == '{name}' | project TableName | count") == [
        {"Count": 1}
    ]
    elsewhere = double.kusto.execute_mgmt("NetDefaultDB", ".show databases | where DatabaseName == 'db' | count")
    assert elsewhere.primary_results[0][0].to_list() == [1]
    assert split_pipeline(".show table T | where x == 'a|b' | take 1") == (
        ".show table T",
        "where x == 'a|b' | take 1",
    )
    assert split_pipeline(".create table T ingestion json mapping 'a|b' '[]'")[1] == ""
    assert split_pipeline(".ingest inline into table T <| a|b")[1] == ""


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    """The reader raises nothing but Kusto's error, and always comes to an end."""
    reader = Reader(text)
    for read in (reader.string, reader.name, reader.columns, lambda: reader.properties(frozenset())):
        try:
            read()
        except KustoError:
            continue
    split_pipeline(text)


@given(st.text())
def test_a_quoted_text_is_read_back(text: str) -> None:
    """Verbatim literals hold everything; only their quote is doubled."""
    assert Reader("@'" + text.replace("'", "''") + "'").string() == text
