"""Commands for stored functions: those that duckdb-kql can expand, from scalar parameters to rows.

Source: dataexplorer-docs, kusto/management/create-function.md, create-alter-function.md, show-function.md,
drop-function.md.
"""

from __future__ import annotations

from localrunner.adx import query
from localrunner.adx.csl import Reader
from localrunner.adx.errors import already_exists, not_found
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, command

_SHOWN = "Name,Parameters,Body,Folder,DocString"


def _shown(context: Context, *names: str) -> Result:
    parsed = query.stored_functions(tuple(context.database.functions.values())).get(None, {})
    rows = [parsed[name] for name in names]
    return result(_SHOWN, [(f.name, f.parameters, f.body, f.folder, f.docstring) for f in rows])


def _put(context: Context, reader: Reader, *, replace_it: bool, is_optional: bool = False) -> Result:
    definition = reader.rest().strip().rstrip(";")
    ((name, _),) = query.stored_functions((definition,))[None].items()
    if name in context.database.functions and not replace_it:
        if is_optional:
            return _shown(context, name)
        raise already_exists("ExpressionFunction", name)
    context.catalog.put_function(context.database.name, name, definition)
    return _shown(context, name)


@command(".create function")
def create_function(context: Context, reader: Reader, _: list[str]) -> Result:
    """The function exists; an error if it did before, unless `ifnotexists` is there."""
    return _put(context, reader, replace_it=False, is_optional=reader.accept("ifnotexists"))


@command(".create-or-alter function")
def put_function(context: Context, reader: Reader, _: list[str]) -> Result:
    """The function is this one."""
    return _put(context, reader, replace_it=True)


@command(".show functions")
def show_functions(context: Context, reader: Reader, _: list[str]) -> Result:
    """Every function of the database."""
    reader.end()
    return _shown(context, *context.database.functions)


@command(".show function <name>")
def show_function(context: Context, reader: Reader, found: list[str]) -> Result:
    """One function."""
    reader.end()
    if found[0] not in context.database.functions:
        raise not_found("ExpressionFunction", found[0])
    return _shown(context, found[0])


@command(".drop function <name>")
def drop_function(context: Context, reader: Reader, found: list[str]) -> Result:
    """The function is gone; an error if there was none, unless `ifexists` is there."""
    is_optional = reader.accept("ifexists")
    reader.end()
    if found[0] not in context.database.functions and not is_optional:
        raise not_found("ExpressionFunction", found[0])
    context.catalog.put_function(context.database.name, found[0], None)
    return result("Name", [(found[0],)])
