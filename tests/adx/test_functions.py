"""Stored functions: those that can be expanded for certain, and an error for the rest."""

from __future__ import annotations

import uuid

import pytest
from azure.kusto.data.exceptions import KustoApiError

from tests.adx.support import Double


@pytest.fixture
def name() -> str:
    return f"F{uuid.uuid4().hex[:12]}"


@pytest.fixture
def table(double: Double) -> str:
    made = double.table("n: long")
    double.command(f".ingest inline into table {made} <| 1\n2\n3")
    return made


def test_a_function_is_called_with_arguments_and_defaults(double: Double, table: str, name: str) -> None:
    body = f"{name}(least: long, most: long = 100) {{ {table} | where n >= least and n <= most | sort by n asc }}"
    double.command(f".create-or-alter function with (folder='f', docstring='d | e') {body}")

    assert double.query(f"{name}(2)") == [[2], [3]]
    assert double.query(f"{name}(1, 2) | summarize sum(n)") == [[3]]
    (shown,) = double.command(f".show function {name}")
    assert (shown["Name"], shown["Parameters"], shown["Folder"], shown["DocString"]) == (
        *(name, "(least:long, most:long=100)"),
        *("f", "d | e"),
    )
    assert name in [row["Name"] for row in double.command(".show functions")]


def test_a_function_is_altered_and_dropped(double: Double, table: str, name: str) -> None:
    double.command(f".create function {name}() {{ {table} | count }}")
    with pytest.raises(KustoApiError, match="already exists"):
        double.command(f".create function {name}() {{ {table} }}")
    double.command(f".create function ifnotexists {name}() {{ {table} }}")
    assert double.query(f"{name}()") == [[3]]

    double.command(f".create-or-alter function {name}() {{ {table} | where n > 2 }}")
    assert double.query(f"{name}()") == [[3]]

    double.command(f".drop function {name}")
    with pytest.raises(KustoApiError, match=name):
        double.query(f"{name}()")
    with pytest.raises(KustoApiError, match="not found"):
        double.command(f".drop function {name}")
    double.command(f".drop function {name} ifexists")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("(T: (n: long)) { T }", "tabular parameter"),
        ("(x: long) { x + 1 }", "scalar stored function"),
        ("() { T | wher n }", "does not parse"),
        ("no body", "cannot read"),
    ],
)
def test_what_cannot_be_expanded_for_certain_is_refused(double: Double, name: str, body: str, why: str) -> None:
    with pytest.raises(KustoApiError, match=why):
        double.command(f".create function {name}{body}")


def test_a_let_may_name_an_earlier_one_inside_another(double: Double, table: str) -> None:
    query = f"let a = {table} | where n > 1; let b = a | join kind=leftanti (a | where n > 2) on n; b | project n"

    assert double.query(query) == [[2]]


def test_an_array_is_sorted_by_value_and_not_by_text(double: Double) -> None:
    """Numbers come first, then text, then null; neighbours above 2^53 are told apart."""
    asked = "print array_sort_asc(dynamic([9, 1, null, 10, 'b', 2.5, 'a', 9007199254740993, 9007199254740992]))"

    assert double.query(asked) == [[[1, 2.5, 9, 10, 9007199254740992, 9007199254740993, "a", "b", None]]]
    assert double.query("print array_sort_desc(dynamic([9, 10, 1]))") == [[[10, 9, 1]]]
