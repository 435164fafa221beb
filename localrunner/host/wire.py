"""What host and worker say to each other: the messages of Microsoft's worker protocol, by their own names,
framed over a socket instead of gRPC. Another worker can be put behind the host by translating these.

Source: azure-functions-language-worker-protobuf, FunctionRpc.proto (names and fields).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

import msgspec

FRAME_MAX_BYTES: Final = 2**31 - 1  # the limit of a gRPC message between Azure's host and worker
_LENGTH_BYTES: Final = 4


class Json(msgspec.Struct, tag="json", frozen=True):
    """A value as JSON text."""

    value: str


class String(msgspec.Struct, tag="string", frozen=True):
    """A value as text."""

    value: str


class Bytes(msgspec.Struct, tag="bytes", frozen=True):
    """A value as bytes."""

    value: bytes


class Nothing(msgspec.Struct, tag="nothing", frozen=True):
    """No value: the protocol's TypedData with no field set."""


class Http(msgspec.Struct, tag="http", frozen=True):
    """A request; names of headers are in lower case, `params` are those of the route."""

    method: str
    url: str
    headers: dict[str, str]
    params: dict[str, str]
    query: dict[str, str]
    body: bytes


class CollectionBytes(msgspec.Struct, tag="collection_bytes", frozen=True):
    """One `bytes` a record."""

    values: list[bytes]


class CollectionString(msgspec.Struct, tag="collection_string", frozen=True):
    """One `str` a record."""

    values: list[str]


class CollectionSint64(msgspec.Struct, tag="collection_sint64", frozen=True):
    """One signed 64-bit integer a record."""

    values: list[int]


TypedData = Json | String | Bytes | Nothing | Http | CollectionBytes | CollectionString | CollectionSint64
Payload = dict[str, TypedData]


class Fault(msgspec.Struct, frozen=True):
    """An exception, as text: `kind` is the class, `stack` the traceback."""

    kind: str
    message: str
    stack: str = ""


class RetryContext(msgspec.Struct, frozen=True):
    """How often the function's retry policy has retried this invocation; -1 as a maximum is unlimited."""

    retry_count: int
    max_retry_count: int
    fault: Fault | None = None


class InvocationRequest(msgspec.Struct, tag="invocation_request", frozen=True):
    """Run a function; `input_data` and `trigger_metadata` are encoded `Payload`s."""

    invocation_id: str
    function_id: str
    input_data: msgspec.Raw
    trigger_metadata: msgspec.Raw
    trace_parent: str
    retry_context: RetryContext | None = None


class WorkerTerminate(msgspec.Struct, tag="worker_terminate", frozen=True):
    """End by yourself; the host kills what is left after the grace period."""

    grace_period_s: float


class RetryOptions(msgspec.Struct, frozen=True):
    """A function's retry policy; delays in whole seconds."""

    strategy: str
    max_retry_count: int
    delay_interval_s: int = 0
    minimum_interval_s: int = 0
    maximum_interval_s: int = 0


class FunctionMetadata(msgspec.Struct, frozen=True):
    """One indexed function; `raw_bindings` holds a JSON object a binding, as function.json would."""

    name: str
    function_id: str
    raw_bindings: list[str]
    retry_options: RetryOptions | None = None


class FunctionMetadataResponse(msgspec.Struct, tag="function_metadata_response", frozen=True):
    """What the app registers, or why it could not be indexed (then nothing is registered at all)."""

    functions: list[FunctionMetadata]
    fault: Fault | None = None


class HttpReply(msgspec.Struct, frozen=True):
    """What a function with an HTTP trigger returned; each cookie is a `Set-Cookie` line's text."""

    status_code: int
    headers: dict[str, str]
    body: bytes
    cookies: list[str] = []


def text_reply(text: str) -> HttpReply:
    """The reply for a function that returned text."""
    return HttpReply(200, {"content-type": "text/plain; charset=utf-8"}, text.encode())


class InvocationResponse(msgspec.Struct, tag="invocation_response", frozen=True):
    """The end of an invocation: `fault` is None where it succeeded."""

    invocation_id: str
    fault: Fault | None = None
    reply: HttpReply | None = None


class RpcLog(msgspec.Struct, tag="rpc_log", frozen=True):
    """One log record of the worker."""

    level: str
    category: str
    message: str
    invocation_id: str | None = None


HostMessage = InvocationRequest | WorkerTerminate
WorkerMessage = FunctionMetadataResponse | InvocationResponse | RpcLog

_encoder = msgspec.msgpack.Encoder()
_host_messages: msgspec.msgpack.Decoder[HostMessage] = msgspec.msgpack.Decoder(HostMessage)
_worker_messages: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)
_payloads: msgspec.msgpack.Decoder[Payload] = msgspec.msgpack.Decoder(Payload)


def encode_payload(payload: Payload) -> msgspec.Raw:
    """The payload, encoded once for all the attempts that send it."""
    return msgspec.Raw(_encoder.encode(payload))


def decode_payload(raw: msgspec.Raw) -> Payload:
    """The payload that `encode_payload` was given."""
    return _payloads.decode(raw)


class ClosedError(Exception):
    """The other side is gone."""


class Line:
    """One end of the socket between host and worker; many threads may send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    def send(self, message: HostMessage | WorkerMessage) -> None:
        """The other side will receive `message`, unless it goes away first.

        Raises:
            ClosedError: it is gone already.
            ValueError: the message is larger than a gRPC message may be.
        """
        body = _encoder.encode(message)
        if len(body) > FRAME_MAX_BYTES:
            raise ValueError(
                f"invocation: {len(body)} bytes exceed the {FRAME_MAX_BYTES} of one message; lower maxBatchSize"
            )
        try:
            with self._sending:
                self._socket.sendall(len(body).to_bytes(_LENGTH_BYTES, "big"))
                self._socket.sendall(body)
        except OSError as gone:
            raise ClosedError("the other side of the worker channel is gone") from gone

    def receive_from_host(self) -> HostMessage:
        """The next message of the host. Raises: ClosedError: there will be none."""
        return _host_messages.decode(self._frame())

    def receive_from_worker(self) -> WorkerMessage:
        """The next message of the worker. Raises: ClosedError: there will be none."""
        return _worker_messages.decode(self._frame())

    def close(self) -> None:
        """Neither side can send any more."""
        with contextlib.suppress(OSError):  # the other side may have been faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _frame(self) -> bytearray:
        length = int.from_bytes(self._exactly(_LENGTH_BYTES), "big")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytearray:
        frame = bytearray(length)
        view = memoryview(frame)
        filled = 0
        while filled < length:
            try:
                count = self._socket.recv_into(view[filled:])
            except OSError as gone:
                raise ClosedError("the worker channel was closed") from gone
            if count == 0:
                raise ClosedError("the worker channel reached its end")
            filled += count
        return frame
