"""KQL to rows: the one file that knows duckdb-kql.

duckdb-kql translates KQL's own tree (its `ir`) to SQL and refuses what it cannot. Before that happens here:
tables become the views of this double, every name is checked with its case, and `ingestion_time()`, `extent_id()`
and `extent_tags()`, which duckdb-kql does not know, become hidden columns that travel with the rows until the last
use of one.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import duckdb
from duckdb_kql import ir
from duckdb_kql.errors import KqlError, KqlSyntaxError, KqlUnsupportedError
from duckdb_kql.lower import lower
from duckdb_kql.params import bind
from duckdb_kql.schema import output_columns
from duckdb_kql.stored_functions import ResolvedFunctions, parse_functions
from duckdb_kql.translate import CLOCK_SLOT, clock, to_sql
from duckdb_kql.translate.functions import SCALAR_FUNCTIONS
from duckdb_kql.types import kusto_type

from localrunner.adx import properties as request_properties
from localrunner.adx.catalog import EXTENT_ID, EXTENT_TAGS, INGESTION_TIME, Catalog
from localrunner.adx.columns import DUCKDB_TYPES, Column, quoted
from localrunner.adx.counters import LITERAL
from localrunner.adx.errors import KustoError, semantic_error, syntax_error
from localrunner.adx.frames import Result

_PIPED_ROWS = 200
_RANGE_MAX_ROWS = 10_000_000
# duckdb-kql 1.1.2 makes a real of such a literal, and so a value that is not what was written.
_DECIMAL_LITERAL = re.compile(r"\bdecimal\s*\(")

# What clients send where they mean no database of their own.
_NO_DATABASE = "netdefaultdb"

# Functions of a row's place rather than of its columns, and the hidden column that answers each.
# Source: ingestion-time-function.md, extent-id-function.md (with its deprecated alias), extent-tags-function.md.
_HIDDEN = {
    "ingestion_time": INGESTION_TIME,
    "extent_id": EXTENT_ID,
    "extentid": EXTENT_ID,
    "extent_tags": EXTENT_TAGS,
}
# The views of a table by their letter, with their hidden columns.
_VIEWS = {"v": (), "i": (INGESTION_TIME,), "x": (INGESTION_TIME, EXTENT_ID, EXTENT_TAGS)}

# duckdb-kql 1.1.2 sorts numbers as text: 10 before 9. Numbers come first here, then text, then null.
_SORTED = (
    "to_json(list_transform(list_{0}sort(list_transform(CAST(to_json({{0}}) AS JSON[]), lambda x: {{{{"
    "'real': TRY_CAST(CASE WHEN json_type(x) <> 'VARCHAR' THEN x END AS DOUBLE),"
    " 'long': TRY_CAST(CASE WHEN json_type(x) <> 'VARCHAR' THEN x END AS HUGEINT), 'text': x}}}})),"
    " lambda s: s.text))"
)
for _name, _order in (("array_sort_asc", ""), ("array_sort_desc", "reverse_")):
    SCALAR_FUNCTIONS[_name] = dataclasses.replace(SCALAR_FUNCTIONS[_name], template=_SORTED.format(_order))

# The lets that a query may name, in their order.
Lets = tuple[tuple[str, Any], ...]

# Operators that hand every row on, so that a hidden column can pass through them.
_ROW_BY_ROW = (
    ir.Where,
    ir.Extend,
    ir.Take,
    ir.Sort,
    ir.Top,
    ir.ProjectAway,
    ir.ProjectRename,
    ir.Project,
    ir.Parse,
    ir.MvExpand,
)


def run(
    catalog: Catalog,
    database: str,
    text: str,
    properties: Mapping[str, Any],
    piped: tuple[str, Result] | None = None,
) -> Result:
    """The rows of the query `text`; `piped` is a result that the query may read under a name.

    Raises:
        KustoError: the query, a name in it or a request property is not what this double can answer for certain.
    """
    options = properties.get("Options") or {}
    parameters = properties.get("Parameters") or {}
    if not isinstance(options, dict) or not isinstance(parameters, dict):
        raise KustoError("The request properties 'Options' and 'Parameters' are JSON objects")
    request_properties.check(options)
    with catalog.store.reading() as cursor:
        # One transaction, so that the schema that was checked is the schema that is read.
        cursor.execute("BEGIN")
        scope = _Scope(catalog, database)
        if piped is not None:
            _create_piped(cursor, piped[1])
            scope.views[piped[0]] = ("piped", "piped")
            scope.schema["piped"] = [column.name for column in piped[1].columns]
        sql, bound = _translate(scope, text, parameters, request_properties.now(options))
        # DuckDB has no deadline of its own; another thread stops it.
        timer = threading.Timer(request_properties.timeout_s(options), cursor.interrupt)
        timer.start()
        try:
            return _execute(cursor, sql, bound)
        finally:
            timer.cancel()


def _translate(
    scope: _Scope, text: str, parameters: dict[str, Any], now: datetime | None
) -> tuple[str, dict[str, Any]]:
    if _DECIMAL_LITERAL.search(LITERAL.sub("''", text)):
        raise semantic_error("literals of type decimal are not known to this double")
    try:
        with clock(now) as active:
            functions = stored_functions(tuple(scope.functions))
            resolved = scope.resolve(lower(text, {}, functions, scope.name, None), ())
            translated = to_sql(resolved, scope.schema)
            kinds = {declared.name: declared.type for declared in resolved.parameters}
            values = {
                name: request_properties.parameter(value, kinds.get(name, "string"))
                for name, value in parameters.items()
            }
            bound, unbound = bind(resolved.parameters, values)
            if unbound:
                raise semantic_error(f"query parameter '{unbound[0]}' has no value")
            bound = {slot: value for slot, value in bound.items() if slot in translated.slots}
            if active.used:
                bound[CLOCK_SLOT] = active.moment
    except KqlSyntaxError as error:
        raise syntax_error(str(error)) from None
    except KqlUnsupportedError as error:
        raise semantic_error(f"this double does not support {error.construct}: {error}") from None
    except KqlError as error:
        raise semantic_error(str(error)) from None
    except RecursionError:
        raise syntax_error("the query is nested too deeply") from None
    return str(translated), bound


@lru_cache(maxsize=16)
def stored_functions(definitions: tuple[str, ...]) -> ResolvedFunctions:
    """The functions of a database by what `.create function` was given, such as `F(x: long) { T | where n > x }`.

    Raises:
        KustoError: one is not a function that this double can expand for certain.
    """
    try:
        return parse_functions([f"function {text}" for text in definitions]) or {}
    except (ValueError, TypeError, KqlError) as error:
        raise semantic_error(str(error)) from None


def _create_piped(cursor: duckdb.DuckDBPyConnection, table: Result) -> None:
    columns = ", ".join(f"{quoted(c.name)} {DUCKDB_TYPES[c.type]}" for c in table.columns)
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE piped ({columns})")
    places = f"({', '.join('?' * len(table.columns))})"
    for start in range(0, len(table.rows), _PIPED_ROWS):
        rows = table.rows[start : start + _PIPED_ROWS]
        values = [value for row in rows for value in row]
        cursor.execute(f"INSERT INTO piped VALUES {', '.join([places] * len(rows))}", values)  # noqa: S608 - placeholders


def _execute(cursor: duckdb.DuckDBPyConnection, sql: str, bound: dict[str, Any]) -> Result:
    try:
        described = cursor.execute(f"DESCRIBE {sql}", bound or None).fetchall()
        columns = tuple(Column(row[0], kusto_type(row[1])) for row in described)
        # Lists and structs (make_list, pack) are dynamic to Kusto, and must come out as JSON text.
        select = ", ".join(
            f"to_json({quoted(row[0])})::VARCHAR AS {quoted(row[0])}"
            if column.type == "dynamic" and row[1] != "JSON"
            else quoted(row[0])
            for row, column in zip(described, columns, strict=True)
        )
        rows = cursor.execute(f"SELECT {select} FROM ({sql})", bound or None).fetchall()  # noqa: S608 - quoted names
    except duckdb.BinderException as error:
        raise semantic_error(str(error).split("\n")[0]) from None
    except duckdb.InterruptException:
        raise KustoError(
            "Request timed out: the query took longer than its servertimeout.",
            code="Timeout",
            kind="Kusto.Data.Exceptions.KustoServiceTimeoutException",
            status=504,
            permanent=False,
        ) from None
    except duckdb.Error as error:
        # The text may quote a value; its kind and first words say what went wrong.
        raise KustoError(f"The query failed: {type(error).__name__}: {str(error)[:120]}") from None
    return Result(columns, rows)


class _Scope:
    """The names that a query may use: the tables of its database, and tabular lets."""

    def __init__(self, catalog: Catalog, database: str) -> None:
        self.catalog = catalog
        self.name = database
        self.functions: list[str] = []
        if database.lower() != _NO_DATABASE:
            self.functions = list(catalog.database(database).functions.values())
        self.schema: dict[str, list[str]] = {}
        self.views: dict[str, tuple[str, str]] = {}

    def _view(self, source: ir.TableRef, view: str) -> ir.TableRef:
        if source.cluster is not None:
            raise semantic_error("cluster() is not known to this double")
        if source.database is None and source.name in self.views:
            return ir.TableRef(self.views[source.name][0])
        owner = self.catalog.database(source.database or self.name)
        table = owner.tables.get(source.name)
        if table is None:
            raise semantic_error(
                f"SEM0100: 'table' operator: Failed to resolve table expression named '{source.name}'"
            )
        columns = [column.name for column in table.columns]
        self.schema[f"{view}{table.id}"] = [*columns, *_VIEWS[view]]
        return ir.TableRef(f"{view}{table.id}")

    def resolve(self, query: ir.Query, outer: Lets) -> ir.Query:
        """`query` over this double's views, every name known with its case; `outer` are the lets around it."""
        lets: list[tuple[str, Any]] = []
        for name, value in query.lets:
            around = (*outer, *lets)
            inner = self.resolve(value, around) if isinstance(value, ir.Query) else self._nested(value, around)
            lets.append((name, inner))
        scope = (*outer, *lets)
        bound = {name for name, value in scope if isinstance(value, ir.Query)}
        uses = [index for index, operator in enumerate(query.operators) if _uses_hidden(operator)]
        used = {_HIDDEN[name] for operator in query.operators for name in _hidden_names(operator)}
        view = "v" if not used else "i" if used == {INGESTION_TIME} else "x"
        is_table = isinstance(query.source, ir.TableRef) and not (
            query.source.database is None and query.source.name in bound
        )
        if uses and not is_table:
            raise _only_on_a_table(query.operators)
        source: Any = query.source
        if isinstance(source, ir.TableRef):
            source = self._view(source, view) if is_table else source
        elif isinstance(source, (ir.GraphSource, ir.WildcardTableRef, ir.CommandSource)):
            raise semantic_error(f"{type(source).__name__} is not known to this double")
        else:
            if isinstance(source, ir.RangeSource):
                _check_range(source)
            if _uses_hidden(source):
                raise _only_on_a_table(source)
            source = self._nested(source, scope)
        operators = [self._nested(operator, scope) for operator in query.operators]
        if uses:
            operators = _carry(operators, uses[-1], _VIEWS[view])
        resolved = ir.Query(source, operators, lets, query.parameters)
        self._check(resolved, outer)
        return resolved

    def _nested(self, node: Any, scope: Lets) -> Any:
        return _rebuilt(node, lambda inner: self.resolve(inner, scope) if isinstance(inner, ir.Query) else None)

    def _check(self, query: ir.Query, outer: Lets) -> None:
        """Every column that an operator names is among its input columns, in that case.

        DuckDB finds `Name` where `name` was meant; Kusto does not.
        """
        lets = [*outer, *query.lets]
        for index, operator in enumerate(query.operators):
            before = ir.Query(query.source, list(query.operators[:index]), lets, query.parameters)
            known = set(self._columns(before))
            wanted = {node.name for node in _walk(operator) if isinstance(node, ir.ColumnRef)}
            if isinstance(operator, (ir.Join, ir.Lookup)):
                wanted |= {key.left for key in operator.keys}
                right = ir.Query(
                    operator.right.source,
                    operator.right.operators,
                    [*lets, *operator.right.lets],
                    operator.right.parameters,
                )
                _require({key.right for key in operator.keys}, set(self._columns(right)), operator)
            elif isinstance(operator, ir.Union) and operator.with_source is not None:
                raise semantic_error("union withsource= is not known to this double")
            elif isinstance(operator, ir.ProjectAway):
                wanted |= {name for name in operator.columns if "*" not in name}
            elif isinstance(operator, ir.ProjectRename):
                wanted |= {old for old, _ in operator.renames}
            elif isinstance(operator, ir.MvExpand):
                wanted |= {target.column for target in operator.targets}
            _require(wanted, known, operator)

    def _columns(self, query: ir.Query) -> list[str]:
        return output_columns(query, self.schema)


def _check_range(source: ir.RangeSource) -> None:
    """A range of numbers is short enough: DuckDB makes all of it at once, and cannot be stopped meanwhile."""
    start, stop, step = (
        part.value if isinstance(part, ir.Literal) and isinstance(part.value, int | float) else None
        for part in (source.start, source.stop, source.step)
    )
    if start is None or stop is None or not step:
        return
    if (stop - start) / step > _RANGE_MAX_ROWS:
        raise semantic_error(f"a range of more than {_RANGE_MAX_ROWS} rows is not known to this double")


def _require(wanted: set[str], known: set[str], operator: ir.Operator) -> None:
    missing = sorted(wanted - known)
    if missing:
        name = type(operator).__name__.lower()
        raise semantic_error(
            f"SEM0100: '{name}' operator: Failed to resolve column or scalar expression named '{missing[0]}'"
        )


def _carry(operators: list[Any], last: int, hidden: Sequence[str]) -> list[Any]:
    """The operators with the functions of a row's place read from `hidden` columns, gone after the last use."""
    carried: list[Any] = []
    for index, operator in enumerate(operators[: last + 1]):
        changed = _rebuilt(operator, lambda node: ir.ColumnRef(_HIDDEN[node.name]) if _is_hidden(node) else None)
        for named in _walk(operator):
            if isinstance(named, ir.NamedExpr) and named.name is None and _uses_hidden(named):
                raise semantic_error(f"give the expression with {_hidden_names(named)[0]}() a name")
        if index < last:
            if not isinstance(operator, _ROW_BY_ROW):
                function, name = _hidden_names(operators[last])[0], type(operator).__name__.lower()
                raise semantic_error(f"{function}() after '{name}' is not known to this double")
            if isinstance(operator, ir.Project):
                kept = [ir.NamedExpr(ir.ColumnRef(column), column) for column in hidden]
                changed = dataclasses.replace(changed, expressions=(*changed.expressions, *kept))
        carried.append(changed)
    if isinstance(operators[last], ir.Summarize) and any(
        isinstance(n, ir.Wildcard) for n in _walk(operators[last])
    ):
        function = _hidden_names(operators[last])[0]
        raise semantic_error(f"{function}() together with '*' in summarize is not known to this double")
    if isinstance(operators[last], _ROW_BY_ROW) and not isinstance(operators[last], ir.Project):
        carried.append(ir.ProjectAway(tuple(hidden)))
    return carried + operators[last + 1 :]


def _only_on_a_table(node: Any) -> KustoError:
    return semantic_error(f"{_hidden_names(node)[0]}() is known to this double directly on a table only")


def _is_hidden(node: Any) -> bool:
    return isinstance(node, ir.FunctionCall) and node.name in _HIDDEN


def _hidden_names(node: Any) -> list[str]:
    return [inner.name for inner in _walk(node) if _is_hidden(inner)]


def _uses_hidden(node: Any) -> bool:
    return bool(_hidden_names(node))


def _walk(node: Any) -> Iterator[Any]:
    """`node` and everything inside it, but for nested queries, which have columns of their own."""
    if isinstance(node, ir.Query):
        return
    if isinstance(node, (tuple, list)):
        for item in node:
            yield from _walk(item)
    elif dataclasses.is_dataclass(node):
        yield node
        for part in dataclasses.fields(node):
            yield from _walk(getattr(node, part.name))


def _rebuilt(node: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of `node` in which each inner node is `change(node)`, or itself where that is None."""
    if isinstance(node, (tuple, list)):
        return type(node)(_rebuilt(item, change) for item in node)
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        return node
    changed = change(node)
    if changed is not None:
        return changed
    parts = {part.name: _rebuilt(getattr(node, part.name), change) for part in dataclasses.fields(node)}
    if all(parts[name] is getattr(node, name) for name in parts):
        return node
    return dataclasses.replace(node, **parts)
