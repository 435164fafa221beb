"""What an ingestion client asks the data-management endpoint for.

Source: azure-kusto-ingest 6.0.4, _resource_manager.py; the Java client says `.show ingestion resources`.
"""

from __future__ import annotations

from localrunner.adx.csl import Reader
from localrunner.adx.frames import Result, result
from localrunner.adx.mgmt import Context, Role, command

_DM = frozenset({Role.DM})


@command(".get ingestion resources", ".show ingestion resources", roles=_DM)
def ingestion_resources(context: Context, reader: Reader, _: list[str]) -> Result:
    """Queues, container and status table, each with a SAS of limited life."""
    reader.end()
    return result("ResourceTypeName,StorageRoot", context.resources.listed())


@command(".get kusto identity token", ".show kusto identity token", roles=_DM)
def identity_token(context: Context, reader: Reader, _: list[str]) -> Result:
    """A token that clients put into their messages; the double accepts any."""
    reader.end()
    return result("AuthorizationContext", [(context.resources.identity_token,)])
