"""What runs an app's functions inside the worker process: either of two, behind the same few calls."""

from __future__ import annotations

from typing import Protocol

from localrunner.host import wire


class Runtime(Protocol):
    """An app, indexed once and then invoked on the event loop that asks."""

    async def index(self) -> wire.FunctionMetadataResponse:
        """What the app registers, or the fault for which it registers nothing."""

    async def invoke(self, request: wire.InvocationRequest) -> wire.InvocationResponse:
        """The outcome of one invocation; whatever the function raises is its fault."""

    def invocation_id(self) -> str | None:
        """The invocation for which the calling thread or task works; None where there is none."""
