"""The `context` argument of a function, with the attributes of the real worker's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from localrunner.host import wire


@dataclass(frozen=True, slots=True)
class RpcException:
    """The exception of the attempt before this one."""

    source: str
    stack_trace: str
    message: str


@dataclass(frozen=True, slots=True)
class RetryContext:
    """What the function's retry policy has done so far; all zero without a policy.

    Source: azure-functions-python-worker, bindings/retrycontext.py has `rpc_exception`; the library's
    interface calls it `exception`.
    """

    retry_count: int
    max_retry_count: int
    rpc_exception: RpcException

    @property
    def exception(self) -> RpcException:
        """The exception of the attempt before this one."""
        return self.rpc_exception


@dataclass(frozen=True, slots=True)
class TraceContext:
    """W3C trace context."""

    trace_parent: str
    trace_state: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


class InvocationIdStorage(threading.local):
    """Which invocation a thread of the app logs for; the app may set it in threads of its own."""

    invocation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """An invocation, as the function sees it."""

    function_name: str
    function_directory: str
    invocation_id: str
    thread_local_storage: InvocationIdStorage
    trace_context: TraceContext
    retry_context: RetryContext


def context_of(
    request: wire.InvocationRequest, name: str, directory: str, storage: InvocationIdStorage
) -> Context:
    """The context of one invocation."""
    retry = request.retry_context or wire.RetryContext(0, 0)
    fault = retry.fault or wire.Fault("", "")
    return Context(
        function_name=name,
        function_directory=directory,
        invocation_id=request.invocation_id,
        thread_local_storage=storage,
        trace_context=TraceContext(request.trace_parent),
        retry_context=RetryContext(
            retry.retry_count, retry.max_retry_count, RpcException(fault.kind, fault.stack, fault.message)
        ),
    )
