"""The worker's rules, done over: what runs an app where Microsoft's own runtime cannot be had."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from localrunner.host import wire
from localrunner.host.worker.indexing import IndexedFunction, index
from localrunner.host.worker.invocations import current_invocation, fault_of, invoke, storage


class Emulated:
    """An app in this Python, by the rules of azure-functions-python-worker."""

    def __init__(self) -> None:
        self._functions: dict[str, IndexedFunction] = {}
        count = os.environ.get("PYTHON_THREADPOOL_THREAD_COUNT", "")
        self._pool = ThreadPoolExecutor(int(count) if count.isdecimal() and int(count) > 0 else None)

    async def index(self) -> wire.FunctionMetadataResponse:
        """What the app registers, or the fault for which it registers nothing."""
        try:
            functions = index()
        except Exception as error:  # noqa: BLE001 -- whatever importing the app raises means no functions
            return wire.FunctionMetadataResponse([], fault_of(error))
        self._functions = {function.metadata.function_id: function for function in functions}
        return wire.FunctionMetadataResponse([function.metadata for function in functions])

    async def invoke(self, request: wire.InvocationRequest) -> wire.InvocationResponse:
        """The outcome of one invocation; whatever the function raises is its fault."""
        return await invoke(request, self._functions, self._pool)

    def invocation_id(self) -> str | None:
        """The invocation for which the calling thread or task works; None where there is none."""
        return current_invocation.get() or storage.invocation_id
