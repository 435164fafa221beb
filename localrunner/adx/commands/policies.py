"""Commands for the policies of a table or a database: ingestion batching and streaming ingestion.

Source: dataexplorer-docs, kusto/management/alter-table-ingestion-batching-policy.md,
alter-table-streaming-ingestion-policy-command.md, and their like for alter-merge, show, delete and databases;
data-explorer/ingest-data-streaming.md (`policy streamingingestion enable`).
"""

from __future__ import annotations

from localrunner.adx import policy
from localrunner.adx.csl import Reader
from localrunner.adx.errors import KustoError
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, command

_SHOWN = "PolicyName,EntityName,Policy,ChildEntities,EntityType"


def _owner(context: Context, scope: str, name: str) -> tuple[str, str]:
    if scope == "database":
        return context.catalog.database(name).name, ""
    before, dot, after = name.partition(".")
    if dot and name not in context.database.tables:
        return context.catalog.database(before).name, context.catalog.database(before).table(after).name
    return context.database.name, context.table(name).name


def _set(context: Context, kind: str, database: str, table: str) -> str | None:
    owner = context.catalog.database(database)
    return (owner.table(table).policies if table else owner.policies).get(kind)


def _shown(context: Context, kind: str, database: str, table: str) -> Result:
    entity = f"[{database}].[{table}]" if table else f"[{database}]"
    body = _set(context, kind, database, table) or "null"
    return result(_SHOWN, [(policy.NAMES[kind], entity, body, "", "Table" if table else "Database")])


def _alter(context: Context, reader: Reader, kind: str, owners: list[tuple[str, str]], *, merge: bool) -> Result:
    word = reader.word() if kind == policy.STREAMING else None
    body = word or reader.string()
    reader.end()
    try:
        normal = [policy.normal(kind, body, _set(context, kind, *owner) if merge else None) for owner in owners]
    except ValueError as error:
        raise KustoError(f"The policy is not valid: {error}") from None
    for owner, one in zip(owners, normal, strict=True):
        context.catalog.put_policy(*owner, kind, one)
    shown = [_shown(context, kind, *owner) for owner in owners]
    return Result(shown[0].columns, [row for one in shown for row in one.rows])


def _register(scope: str, place: str, kind: str) -> None:
    """The four commands for one policy of tables or of databases."""

    def alter(context: Context, reader: Reader, found: list[str]) -> Result:
        """The policy is this one; what it leaves out has Kusto's defaults."""
        return _alter(context, reader, kind, [_owner(context, scope, found[0])], merge=False)

    def alter_merge(context: Context, reader: Reader, found: list[str]) -> Result:
        """The policy is this one; what it leaves out is as before."""
        return _alter(context, reader, kind, [_owner(context, scope, found[0])], merge=True)

    def show(context: Context, reader: Reader, found: list[str]) -> Result:
        """The owner's own policy, `null` if it has none."""
        reader.end()
        return _shown(context, kind, *_owner(context, scope, found[0]))

    def delete(context: Context, reader: Reader, found: list[str]) -> Result:
        """The owner has no policy of its own."""
        reader.end()
        owner = _owner(context, scope, found[0])
        context.catalog.put_policy(*owner, kind, None)
        return _shown(context, kind, *owner)

    for verb, function in (("alter", alter), ("alter-merge", alter_merge), ("show", show), ("delete", delete)):
        command(f".{verb} {scope} {place} policy {kind}")(function)


for _kind in policy.NAMES:
    _register("table", "<table>", _kind)
    _register("database", "<name>", _kind)


def _tables(context: Context, reader: Reader, *, merge: bool) -> Result:
    owners = [_owner(context, "table", name) for name in reader.names()]
    for kind in policy.NAMES:
        if reader.accept("policy", kind):
            return _alter(context, reader, kind, owners, merge=merge)
    raise reader.error(f"'policy {' or '.join(policy.NAMES)}' is expected")


@command(".alter tables")
def alter_tables_policy(context: Context, reader: Reader, _: list[str]) -> Result:
    """The policy of each named table is this one."""
    return _tables(context, reader, merge=False)


@command(".alter-merge tables")
def alter_merge_tables_policy(context: Context, reader: Reader, _: list[str]) -> Result:
    """The policy of each named table is this one; what it leaves out is as before."""
    return _tables(context, reader, merge=True)
