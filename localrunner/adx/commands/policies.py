"""Commands for the ingestion batching policy of a table or a database.

Source: dataexplorer-docs, kusto/management/alter-table-ingestion-batching-policy.md,
alter-merge-table-ingestion-batching-policy.md, show-table-ingestion-batching-policy.md,
delete-table-ingestion-batching-policy.md, and the same for databases.
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


def _set(context: Context, database: str, table: str) -> str | None:
    owner = context.catalog.database(database)
    return (owner.table(table).policies if table else owner.policies).get(policy.KIND)


def _shown(context: Context, database: str, table: str) -> Result:
    entity = f"[{database}].[{table}]" if table else f"[{database}]"
    body = _set(context, database, table) or "null"
    return result(_SHOWN, [(policy.NAME, entity, body, "", "Table" if table else "Database")])


def _alter(context: Context, reader: Reader, scope: str, names: list[str], *, merge: bool) -> Result:
    owners = [_owner(context, scope, name) for name in names]
    body = reader.string()
    reader.end()
    try:
        policies = [policy.parse(body, (_set(context, *owner) if merge else None)) for owner in owners]
    except ValueError as error:
        raise KustoError(f"The policy is not valid: {error}") from None
    for owner, one in zip(owners, policies, strict=True):
        context.catalog.put_policy(*owner, policy.KIND, policy.as_json(one))
    shown = [_shown(context, *owner) for owner in owners]
    return Result(shown[0].columns, [row for one in shown for row in one.rows])


@command(".alter table <table> policy ingestionbatching")
def alter_table_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's policy is this one; what it leaves out has Kusto's defaults."""
    return _alter(context, reader, "table", found, merge=False)


@command(".alter-merge table <table> policy ingestionbatching")
def alter_merge_table_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's policy is this one; what it leaves out is as before."""
    return _alter(context, reader, "table", found, merge=True)


def _tables(context: Context, reader: Reader, *, merge: bool) -> Result:
    names = reader.names()
    if not reader.accept("policy", "ingestionbatching"):
        raise reader.error("'policy ingestionbatching' is expected")
    return _alter(context, reader, "table", names, merge=merge)


@command(".alter tables")
def alter_tables_policy(context: Context, reader: Reader, _: list[str]) -> Result:
    """The policy of each named table is this one."""
    return _tables(context, reader, merge=False)


@command(".alter-merge tables")
def alter_merge_tables_policy(context: Context, reader: Reader, _: list[str]) -> Result:
    """The policy of each named table is this one; what it leaves out is as before."""
    return _tables(context, reader, merge=True)


@command(".alter database <name> policy ingestionbatching")
def alter_database_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The database's policy is this one; what it leaves out has Kusto's defaults."""
    return _alter(context, reader, "database", found, merge=False)


@command(".alter-merge database <name> policy ingestionbatching")
def alter_merge_database_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The database's policy is this one; what it leaves out is as before."""
    return _alter(context, reader, "database", found, merge=True)


@command(".show table <table> policy ingestionbatching")
def show_table_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table's own policy, `null` if it has none."""
    reader.end()
    return _shown(context, *_owner(context, "table", found[0]))


@command(".show database <name> policy ingestionbatching")
def show_database_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The database's own policy, `null` if it has none."""
    reader.end()
    return _shown(context, *_owner(context, "database", found[0]))


@command(".delete table <table> policy ingestionbatching")
def delete_table_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The table has no policy of its own."""
    reader.end()
    owner = _owner(context, "table", found[0])
    context.catalog.put_policy(*owner, policy.KIND, None)
    return _shown(context, *owner)


@command(".delete database <name> policy ingestionbatching")
def delete_database_policy(context: Context, reader: Reader, found: list[str]) -> Result:
    """The database has no policy of its own."""
    reader.end()
    owner = _owner(context, "database", found[0])
    context.catalog.put_policy(*owner, policy.KIND, None)
    return _shown(context, *owner)
