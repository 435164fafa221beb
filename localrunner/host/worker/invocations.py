"""Runs invocations as the real worker does: decoded on the event loop, sync functions in a thread pool."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import Executor
from types import SimpleNamespace
from typing import Any

from azure.functions.meta import Datum

from localrunner.host import wire
from localrunner.host.worker.context import InvocationIdStorage, context_of
from localrunner.host.worker.indexing import IndexedFunction, converters

current_invocation: contextvars.ContextVar[str | None] = contextvars.ContextVar("invocation", default=None)
storage = InvocationIdStorage()


def fault_of(error: BaseException) -> wire.Fault:
    """The exception as text for the host."""
    return wire.Fault(type(error).__name__, str(error), "".join(traceback.format_exception(error)))


async def invoke(
    request: wire.InvocationRequest, functions: Mapping[str, IndexedFunction], pool: Executor
) -> wire.InvocationResponse:
    """The outcome of one invocation; whatever the function raises is its fault.

    Source: azure-functions-python-worker, dispatcher.py, _handle__invocation_request.
    """
    current_invocation.set(request.invocation_id)
    try:
        function = functions.get(request.function_id)
        if function is None:
            raise RuntimeError(f"function {request.function_id} is not loaded by this worker")
        result = await _call(function, request, pool)
        if result is not None and function.returns is None:
            raise RuntimeError(
                f"function {function.metadata.name!r} without a $return binding returned a non-None value"
            )
        reply = None if function.returns is None else _reply(function.returns, result)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 -- whatever the app raises is the invocation's outcome
        return wire.InvocationResponse(request.invocation_id, fault_of(error))
    return wire.InvocationResponse(request.invocation_id, None, reply)


async def _call(function: IndexedFunction, request: wire.InvocationRequest, pool: Executor) -> Any:
    arguments = _arguments(function, request)
    context = context_of(request, function.metadata.name, function.directory, storage)
    if function.requires_context:
        arguments["context"] = context
    if function.is_async:
        return await function.call(**arguments)
    run = contextvars.copy_context().run

    def call() -> Any:
        storage.invocation_id = request.invocation_id
        try:
            return run(function.call, **arguments)
        finally:
            storage.invocation_id = None

    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _arguments(function: IndexedFunction, request: wire.InvocationRequest) -> dict[str, Any]:
    metadata = {name: _datum(value) for name, value in wire.decode_payload(request.trigger_metadata).items()}
    arguments: dict[str, Any] = {}
    for name, value in wire.decode_payload(request.input_data).items():
        converter = converters.get(function.binding_types[name])
        arguments[name] = converter.decode(_datum(value), trigger_metadata=metadata)
    return arguments


def _reply(binding_type: str, result: Any) -> wire.HttpReply:
    """Source: bindings/meta.py, to_outgoing_proto: what no converter takes, such as None, fails the invocation."""
    try:
        datum = converters.get(binding_type).encode(result, expected_type=None)
    except NotImplementedError:
        raise TypeError(
            f'unable to encode outgoing TypedData: unsupported type "{binding_type}" for Python type '
            f'"{type(result).__name__}"'
        ) from None
    if datum.type != "http":
        return wire.text_reply(str(datum.value))
    fields = datum.value
    return wire.HttpReply(
        int(fields["status_code"].value),
        {name: header.value for name, header in fields["headers"].items()},
        fields["body"].value,
        [morsel.OutputString() for cookie in fields["cookies"] or () for morsel in cookie.values()],
    )


def _strings(values: Mapping[str, str]) -> dict[str, Datum]:
    return {name: Datum(value, "string") for name, value in values.items()}


def _datum(value: wire.TypedData) -> Datum | None:
    """The value in the shape in which the converters know it, which is that of the protobuf messages."""
    match value:
        case wire.Json():
            return Datum(value.value, "json")
        case wire.String():
            return Datum(value.value, "string")
        case wire.Bytes():
            return Datum(value.value, "bytes")
        case wire.Nothing():
            return None
        case wire.Http():
            return Datum(
                {
                    "method": Datum(value.method, "string"),
                    "url": Datum(value.url, "string"),
                    "headers": _strings(value.headers),
                    "query": _strings(value.query),
                    "params": _strings(value.params),
                    "body": Datum(value.body, "bytes"),
                },
                "http",
            )
        case wire.CollectionBytes():
            return Datum(SimpleNamespace(bytes=value.values), "collection_bytes")
        case wire.CollectionString():
            return Datum(SimpleNamespace(string=value.values), "collection_string")
        case wire.CollectionSint64():
            return Datum(SimpleNamespace(sint64=value.values), "collection_sint64")
