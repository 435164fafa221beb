"""The messages of Microsoft's worker protocol that its Python runtime reads and makes, as plain classes.

The runtime is given this module in the place of the generated one, and takes classes from it by name. They have
what it touches and no more; an attribute that is missing here ends an invocation with an error that names it.

Source: azure-functions-language-worker-protobuf, FunctionRpc.proto; azure-functions-runtime 1.3.0 uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Any, ClassVar, Final, NamedTuple

NO_TIME: Final = timedelta()


class Bytes(NamedTuple):
    """`CollectionBytes`: one value a record."""

    bytes: Sequence[Any]


class Strings(NamedTuple):
    """`CollectionString`: one value a record."""

    string: Sequence[str]


class Sint64s(NamedTuple):
    """`CollectionSInt64`: one value a record."""

    sint64: Sequence[int]


class TypedData:
    """A value under the name of its kind, at most one."""

    http: RpcHttp
    string: str
    json: str
    bytes: Any

    def __init__(self, **data: Any) -> None:
        self._kind = next(iter(data), None)
        self.__dict__.update(data)

    def WhichOneof(self, _oneof: str) -> str | None:  # noqa: N802 -- protobuf's name
        """The name of the kind; None without a value."""
        return self._kind


@dataclass(frozen=True)
class ParameterBinding:
    """A parameter's value."""

    name: str
    data: TypedData

    def WhichOneof(self, _oneof: str) -> str:  # noqa: N802 -- protobuf's name
        """Values are never in shared memory."""
        return "data"


@dataclass(frozen=True)
class NullableString:
    """Text that may be absent."""

    value: str


@dataclass(frozen=True)
class NullableBool:
    """A flag that may be absent."""

    value: bool


@dataclass(frozen=True)
class NullableDouble:
    """A number that may be absent."""

    value: float


@dataclass(frozen=True)
class Timestamp:
    """A moment."""

    seconds: int


@dataclass(frozen=True)
class NullableTimestamp:
    """A moment that may be absent."""

    value: Timestamp


@dataclass(frozen=True)
class RpcHttpCookie:
    """A cookie of a response."""

    class SameSite(IntEnum):
        """To which requests it goes along."""

        Lax = 1
        Strict = 2
        ExplicitNone = 3

    name: str
    value: str
    domain: NullableString | None = None
    path: NullableString | None = None
    expires: NullableTimestamp | None = None
    secure: NullableBool | None = None
    http_only: NullableBool | None = None
    same_site: int = 0
    max_age: NullableDouble | None = None


# `None` is a name there that Python does not let a class define.
setattr(RpcHttpCookie.SameSite, "None", 0)


@dataclass(frozen=True)
class RpcHttp:
    """A request, or a response."""

    method: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: TypedData = field(default_factory=TypedData)
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    status_code: str = ""
    cookies: Sequence[RpcHttpCookie] | None = None
    enable_content_negotiation: bool = False


@dataclass(frozen=True)
class RpcException:
    """An exception, as text."""

    source: str = ""
    stack_trace: str = ""
    message: str = ""


@dataclass(frozen=True)
class StatusResult:
    """How a request ended."""

    Failure: ClassVar[int] = 0
    Success: ClassVar[int] = 1

    status: int = Failure
    exception: RpcException | None = None


@dataclass(frozen=True)
class WorkerMetadata:
    """What the runtime says of itself."""

    runtime_name: str
    runtime_version: str
    worker_version: str
    worker_bitness: str
    custom_properties: Mapping[str, str]


@dataclass(frozen=True)
class WorkerInitRequest:
    """Index the app."""

    function_app_directory: str
    capabilities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerInitResponse:
    """Whether the app could be indexed."""

    capabilities: Mapping[str, str]
    worker_metadata: WorkerMetadata
    result: StatusResult


@dataclass(frozen=True)
class BindingInfo:
    """A binding's type and direction, by the numbers that azure-functions has for them."""

    undefined: ClassVar[int] = 0
    out: ClassVar[int] = 1
    inout: ClassVar[int] = 2

    type: str
    data_type: Any = undefined
    direction: Any = 0


@dataclass(frozen=True)
class RpcRetryOptions:
    """A function's retry policy."""

    max_retry_count: int
    retry_strategy: str
    delay_interval: timedelta = NO_TIME
    minimum_interval: timedelta = NO_TIME
    maximum_interval: timedelta = NO_TIME


@dataclass(frozen=True)
class RpcFunctionMetadata:
    """An indexed function; `raw_bindings` holds a JSON object a binding."""

    name: str
    function_id: str
    directory: str
    script_file: str
    entry_point: str
    language: str
    raw_bindings: Sequence[str]
    bindings: Mapping[str, BindingInfo]
    properties: Mapping[str, str]
    managed_dependency_enabled: bool = False
    is_proxy: bool = False
    retry_options: RpcRetryOptions | None = None


@dataclass(frozen=True)
class FunctionMetadataResponse:
    """The functions of an app."""

    result: StatusResult
    use_default_metadata_indexing: bool = False
    function_metadata_results: Sequence[RpcFunctionMetadata] | None = None


@dataclass(frozen=True)
class FunctionLoadRequest:
    """Make a function ready."""

    function_id: str


@dataclass(frozen=True)
class FunctionLoadResponse:
    """Whether a function is ready."""

    function_id: str
    result: StatusResult


@dataclass(frozen=True)
class RpcTraceContext:
    """W3C trace context."""

    trace_parent: str
    trace_state: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RetryContext:
    """What the function's retry policy has done so far; all zero without a policy."""

    retry_count: int = 0
    max_retry_count: int = 0
    exception: RpcException = field(default_factory=RpcException)


@dataclass(frozen=True)
class InvocationRequest:
    """Run a function."""

    invocation_id: str
    function_id: str
    input_data: Sequence[ParameterBinding]
    trigger_metadata: Mapping[str, TypedData]
    trace_context: RpcTraceContext
    retry_context: RetryContext


@dataclass(frozen=True)
class InvocationResponse:
    """How an invocation ended, and what the function returned."""

    invocation_id: str
    result: StatusResult
    return_value: TypedData | None = None
    output_data: Sequence[ParameterBinding] = ()


@dataclass(frozen=True)
class StreamingMessage:
    """One request, under the name of its kind."""

    worker_init_request: WorkerInitRequest | None = None
    function_load_request: FunctionLoadRequest | None = None
    invocation_request: InvocationRequest | None = None


@dataclass(frozen=True)
class Request:
    """What the runtime's coroutines take."""

    request: StreamingMessage
    properties: Mapping[str, Any]
