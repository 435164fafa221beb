"""Which blobs wait together, and when they are sealed. No I/O and no clock of its own.

Source: dataexplorer-docs, kusto/management/batching-policy.md, "Sealing a batch".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from localrunner.adx.errors import IngestionError
from localrunner.adx.ingest import Sealed
from localrunner.adx.messages import Request
from localrunner.adx.policy import BatchingPolicy

_MB = 1024 * 1024


@dataclass(slots=True)
class _Open:
    opened_at: datetime
    requests: list[Request] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    raw_bytes: int = 0


class Batches:
    """The open batches. `policy_of` gives the policy of a table; spans are scaled by `time_scale`."""

    def __init__(self, policy_of: Callable[[str, str], BatchingPolicy], time_scale: float) -> None:
        self._policy_of = policy_of
        self._time_scale = time_scale
        self._open: dict[tuple[object, ...], _Open] = {}

    def add(self, request: Request, now: datetime) -> list[Sealed]:
        """The batches that are sealed because this request came.

        Raises:
            IngestionError: BlobAlreadyReceived_BlobAlreadyFoundInBatch; the open batch has the blob already.
        """
        alone = _alone(request)
        if alone:
            return [Sealed((request,), alone, now, now)]
        batch = self._open.setdefault(request.batch_key, _Open(now))
        if request.path in batch.paths:
            raise IngestionError(
                "BlobAlreadyReceived_BlobAlreadyFoundInBatch",
                "The blob is already in the batch; it is ingested once.",
            )
        batch.requests.append(request)
        batch.paths.add(request.path)
        batch.raw_bytes += request.raw_bytes
        policy = self._policy_of(request.database, request.table)
        if request.flush_immediately:
            return [self._seal(request.batch_key, "FlushImmediately", now)]
        if len(batch.requests) >= policy.items:
            return [self._seal(request.batch_key, "Count", now)]
        if batch.raw_bytes >= policy.size_mb * _MB:
            return [self._seal(request.batch_key, "Size", now)]
        return []

    def due(self, now: datetime) -> list[Sealed]:
        """The batches whose time is over."""
        sealed = []
        for key, batch in list(self._open.items()):
            first = batch.requests[0]
            wait = timedelta(seconds=self._policy_of(first.database, first.table).time_s * self._time_scale)
            if now - batch.opened_at >= wait:
                sealed.append(self._seal(key, "Time", now))
        return sealed

    def _seal(self, key: tuple[object, ...], reason: str, now: datetime) -> Sealed:
        batch = self._open.pop(key)
        return Sealed(tuple(batch.requests), reason, batch.opened_at, now)


def _alone(request: Request) -> str | None:
    """Why the blob is ingested by itself, or None."""
    if request.ingest_if_not_exists:
        return "SingleBlob_IngestIfNotExists"
    if any(tag.startswith("ingest-by:") for tag in request.tags):
        return "SingleBlob_IngestByTag"
    if not request.raw_bytes:
        return "SingleBlob_SizeUnknown"
    return None
