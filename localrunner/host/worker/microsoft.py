"""Microsoft's own Python runtime behind our host: the messages of the socket become its, and back.

Source: azure-functions-runtime 1.3.0, handle_event.py. It keeps global state, so it is one to a process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from email.utils import formatdate
from http.cookies import SimpleCookie
from typing import Any, Final

import azure_functions_runtime as runtime

from localrunner.host import wire
from localrunner.host.worker import messages

# What the host answers the worker's capabilities with; none of these would change what is sent here.
CAPABILITIES: Final[Mapping[str, str]] = {}
SAME_SITE: Final = {1: "Lax", 2: "Strict", 3: "None"}


class Microsoft:
    """An app in Microsoft's runtime."""

    def __init__(self) -> None:
        self._properties = {"protos": messages, "host": "127.0.0.1"}
        runtime.start_threadpool_executor()

    async def index(self) -> wire.FunctionMetadataResponse:
        """What the app registers, or the fault for which it registers nothing."""
        init = messages.WorkerInitRequest(os.getcwd(), CAPABILITIES)
        began = await runtime.worker_init_request(self._request(worker_init_request=init))
        fault = _fault(began.result)
        if fault is not None:
            return wire.FunctionMetadataResponse([], fault)
        found = await runtime.functions_metadata_request(self._request())
        functions = found.function_metadata_results or ()
        for function in functions:
            load = messages.FunctionLoadRequest(function.function_id)
            loaded = await runtime.function_load_request(self._request(function_load_request=load))
            fault = _fault(loaded.result)
            if fault is not None:
                return wire.FunctionMetadataResponse([], fault)
        return wire.FunctionMetadataResponse([_metadata(function) for function in functions])

    async def invoke(self, request: wire.InvocationRequest) -> wire.InvocationResponse:
        """The outcome of one invocation; whatever the function raises is its fault."""
        asked = self._request(invocation_request=_invocation(request))
        answer = await runtime.invocation_request(asked)
        reply = None if answer.return_value is None else _reply(answer.return_value)
        return wire.InvocationResponse(answer.invocation_id, _fault(answer.result), reply)

    def invocation_id(self) -> str | None:
        """The invocation that a function's thread works for; None elsewhere."""
        found: str | None = runtime.invocation_id_cv.get()
        return found

    def _request(self, **kind: Any) -> messages.Request:
        return messages.Request(messages.StreamingMessage(**kind), self._properties)


def _metadata(function: messages.RpcFunctionMetadata) -> wire.FunctionMetadata:
    return wire.FunctionMetadata(
        function.name, function.function_id, list(function.raw_bindings), _retry(function.retry_options)
    )


def _retry(options: messages.RpcRetryOptions | None) -> wire.RetryOptions | None:
    if options is None:
        return None
    return wire.RetryOptions(
        options.retry_strategy,
        options.max_retry_count,
        int(options.delay_interval.total_seconds()),
        int(options.minimum_interval.total_seconds()),
        int(options.maximum_interval.total_seconds()),
    )


def _invocation(request: wire.InvocationRequest) -> messages.InvocationRequest:
    retry = request.retry_context or wire.RetryContext(0, 0)
    fault = retry.fault or wire.Fault("", "")
    return messages.InvocationRequest(
        request.invocation_id,
        request.function_id,
        [
            messages.ParameterBinding(name, _typed(value))
            for name, value in wire.decode_payload(request.input_data).items()
        ],
        {name: _typed(value) for name, value in wire.decode_payload(request.trigger_metadata).items()},
        messages.RpcTraceContext(request.trace_parent),
        messages.RetryContext(
            retry.retry_count,
            retry.max_retry_count,
            messages.RpcException(fault.kind, fault.stack, fault.message),
        ),
    )


def _typed(value: wire.TypedData) -> messages.TypedData:
    match value:
        case wire.Json():
            return messages.TypedData(json=value.value)
        case wire.String():
            return messages.TypedData(string=value.value)
        case wire.Bytes():
            return messages.TypedData(bytes=value.value)
        case wire.Nothing():
            return messages.TypedData()
        case wire.CollectionBytes():
            return messages.TypedData(collection_bytes=messages.Bytes(value.values))
        case wire.CollectionString():
            return messages.TypedData(collection_string=messages.Strings(value.values))
        case wire.CollectionSint64():
            return messages.TypedData(collection_sint64=messages.Sint64s(value.values))
        case wire.Http():
            # Source: RpcHttpBodyOnly and RawHttpBodyBytes are among the runtime's capabilities, so the body comes
            # as bytes, and an empty one not at all.
            body = messages.TypedData(bytes=value.body) if value.body else messages.TypedData()
            return messages.TypedData(
                http=messages.RpcHttp(value.method, value.url, value.headers, body, value.params, value.query)
            )


def _fault(result: messages.StatusResult) -> wire.Fault | None:
    """Source: utils/tracing.py writes the exception's class before its text."""
    if result.status == messages.StatusResult.Success:
        return None
    exception = result.exception or messages.RpcException()
    kind, colon, text = exception.message.partition(": ")
    return wire.Fault(kind if colon else "Exception", text or exception.message, exception.stack_trace)


def _reply(value: messages.TypedData) -> wire.HttpReply:
    if value.WhichOneof("data") != "http":
        return wire.text_reply(value.string)
    http = value.http
    return wire.HttpReply(
        int(http.status_code), dict(http.headers), http.body.bytes, [_cookie(one) for one in http.cookies or ()]
    )


def _cookie(cookie: messages.RpcHttpCookie) -> str:
    morsel = SimpleCookie({cookie.name: cookie.value})[cookie.name]
    given: dict[str, Any] = {
        "domain": cookie.domain and cookie.domain.value,
        "path": cookie.path and cookie.path.value,
        "expires": cookie.expires and formatdate(cookie.expires.value.seconds, usegmt=True),
        "max-age": cookie.max_age and int(cookie.max_age.value),
        "secure": cookie.secure and cookie.secure.value,
        "httponly": cookie.http_only and cookie.http_only.value,
        "samesite": SAME_SITE.get(cookie.same_site),
    }
    for name, value in given.items():
        if value:
            morsel[name] = value
    return morsel.OutputString()
