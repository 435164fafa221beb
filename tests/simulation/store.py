"""The containers, as the storage account has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sinkcore.errors import TransientError
from tests.support.memory import ManualClock, MemoryBlobs


@dataclass
class Store(MemoryBlobs):
    """Blobs with the time at which they were put."""

    clock: ManualClock = field(default_factory=ManualClock)
    put_at_ms: dict[tuple[str, str], int] = field(default_factory=dict)

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.put_at_ms = {}

    def put(self, container: str, path: str, data: bytes) -> None:
        super().put(container, path, data)
        self.put_at_ms.setdefault((container, path), self.clock.ms)

    def get(self, container: str, path: str) -> bytes:
        if (container, path) not in self.blobs:
            raise TransientError(f"blob container {container}: storage answered 404 BlobNotFound")
        return super().get(container, path)

    def sweep(self, container: str, older_than_ms: int, named: set[str]) -> list[str]:
        """What is older than that and not `named` is gone: what."""
        gone = [
            path
            for (name, path), at_ms in self.put_at_ms.items()
            if name == container and at_ms < self.clock.ms - older_than_ms and path not in named
        ]
        for path in gone:
            del self.blobs[container, path], self.put_at_ms[container, path]
        return gone
