"""Commands about the cluster and its databases.

Source: dataexplorer-docs, kusto/management/show-databases.md, ingestion-failures.md.
"""

from __future__ import annotations

from localrunner.adx.csl import Reader
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, Role, command

_BOTH = frozenset({Role.ENGINE, Role.DM})


@command(".show databases", ".show cluster databases")
def show_databases(context: Context, reader: Reader, _: list[str]) -> Result:
    """Every database, or those named."""
    names = reader.names() if reader.text[reader.at : reader.at + 1] == "(" else list(context.catalog.databases)
    reader.end()
    rows = []
    for name in names:
        database = context.catalog.database(name)
        current = database.name.lower() == context.database_name.lower()
        rows.append((database.name, "", "v1.0", current, "ReadWrite", "", database.id, "", ""))
    return result(
        "DatabaseName,PersistentStorage,Version,IsCurrent:bool,DatabaseAccessMode,PrettyName,DatabaseId:guid,"
        "InTransitionTo,SuspensionState",
        rows,
    )


@command(".create database")
def create_database(context: Context, reader: Reader, _: list[str]) -> Result:
    """The database exists. In Azure the control plane does this; Kusto's emulator takes the command."""
    name = reader.name()
    for word in ("volatile", "persist", "ifnotexists"):
        reader.accept(word)
    reader.end()
    context.catalog.create_database(name)
    return result("DatabaseName", [(context.catalog.database(name).name,)])


@command(".show version", roles=_BOTH)
def show_version(context: Context, reader: Reader, _: list[str]) -> Result:
    """Which service answers: the engine or data management."""
    reader.end()
    service = "Engine" if context.role is Role.ENGINE else "DataManagement"
    return result(
        "BuildVersion,BuildTime:datetime,ServiceType,ProductVersion",
        [("local-adx-double", None, service, "local-adx-double")],
    )


@command(".show ingestion failures")
def show_failures(context: Context, reader: Reader, _: list[str]) -> Result:
    """Every blob that could not be ingested, newest last; the service keeps 14 days, this double all."""
    reader.end()
    with context.catalog.store.reading() as cursor:
        rows = cursor.execute(
            'SELECT operation_id::VARCHAR, "database", table_name, failed_at, source_path, details, status,'
            " operation_id::VARCHAR, 'DataIngestPull', false, code, '', '', '', 1, should_retry"
            " FROM meta.failures ORDER BY failed_at"
        ).fetchall()
    return result(
        "OperationId,Database,Table,FailedOn:datetime,IngestionSourcePath,Details,FailureKind,RootActivityId,"
        "OperationKind,OriginatesFromUpdatePolicy:bool,ErrorCode,Principal,User,IngestionProperties,"
        "NumberOfSources:int,ShouldRetry:bool",
        rows,
    )
