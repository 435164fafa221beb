"""The HTTP protocol underneath: connections that can be dropped on purpose, and JSON even for what is no HTTP."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import h11
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from localrunner.adx.errors import of_status
from localrunner.adx.faults import Fault

HANG_MAX_S = 3600.0
_LOOK_S = 0.1
_LINGER_S = 0.5
_TRANSPORT = "adx.transport"


class Protocol(H11Protocol):
    """uvicorn's own protocol, whose requests know their connection."""

    _refused = False

    def data_received(self, data: bytes) -> None:
        """The data is read; what follows something that is no HTTP is not."""
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        """Requests are handed on, each with the connection it came by."""
        super().handle_events()
        if self.scope is not None:
            scope: Any = self.scope
            scope[_TRANSPORT] = self.transport

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered as any other bad request, and its connection closed."""
        body = msgspec.json.encode(of_status(400, msg).body(str(uuid.uuid4()), ""))
        headers = [
            (b"content-type", b"application/json; charset=UTF-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._refused = True
        # A connection that is closed with data unread is reset, and the client may lose the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.close)
        else:
            self.transport.close()


class Dropped(Response):
    """No response: the connection is cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """The connection is gone."""
        scope[_TRANSPORT].abort()
        # The protocol learns of it in the next round of the loop; until then it would answer by itself.
        await asyncio.sleep(0)


async def delayed(fault: Fault) -> None:
    """The fault's delay is over, or the fault was taken back."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + fault.delay_s
    while not fault.released.is_set() and (left_s := deadline - loop.time()) > 0:
        await asyncio.sleep(min(left_s, _LOOK_S))


class Hanging(Dropped):
    """No response for as long as the client waits; the connection is cut once the fault is taken back."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The client is gone, or its connection is."""
        deadline = asyncio.get_running_loop().time() + HANG_MAX_S
        while not self._fault.released.is_set() and asyncio.get_running_loop().time() < deadline:
            try:
                async with asyncio.timeout(_LOOK_S):
                    if (await receive())["type"] == "http.disconnect":
                        return
            except TimeoutError:
                continue
        await super().__call__(scope, receive, send)
