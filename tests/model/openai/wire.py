"""A small HTTP/1.1 server over asyncio, for servers that tests talk to over real connections.

A handler gets a request and a ``Reply`` to write to. Keep-alive is kept; a client that goes away
cancels its handler, as a model server does.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` without its query; ``body`` as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    """What goes back, in order: one of ``json``, ``raw``, or ``start`` and events."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.close = False

    async def json(
        self, value: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        await self.body(json.dumps(value).encode(), "application/json", status, headers)

    async def body(
        self,
        body: bytes,
        kind: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """A body of a known length."""
        await self._head(
            status, {"Content-Type": kind, "Content-Length": len(body)} | (headers or {})
        )
        await self.raw(body)

    async def start(self, kind: str = "text/event-stream", **headers: str) -> None:
        """A body in chunks."""
        await self._head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"} | headers)

    async def event(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        await self.chunk(f"data: {text}\n\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def _head(self, status: int, headers: dict[str, Any]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.raw(f"HTTP/1.1 {status} Test\r\n{lines}\r\n".encode())


Handler = Callable[[Request, Reply], Awaitable[None]]


class Listening:
    """A server that listens, and its connections."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self.accepted = 0
        self._connections: dict[asyncio.Future[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, port: int = 0) -> None:
        """Listen on localhost; port 0: any free one."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=2**22)

    async def close(self) -> None:
        """Nobody can connect any more, and whoever is connected is cut off."""
        if self._server:
            self._server.close()
        for _ in range(16):  # turns of the loop, more than a connection takes from accept to end
            connections, self._connections = self._connections, {}
            for task, writer in connections.items():
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*connections, return_exceptions=True)
            await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.ensure_future(self._talk(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await _connection(self._handler, reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _connection(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    first = await reader.read(1)
    while first:
        request = await _read(first, reader)
        reply = Reply(writer)
        handling = asyncio.ensure_future(handler(request, reply))
        next_byte = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((handling, next_byte), return_when=asyncio.FIRST_COMPLETED)
        finally:  # it has answered, or the client has gone away, or the server is closed
            if not handling.done():
                handling.cancel()
            await asyncio.gather(handling, return_exceptions=True)
            if handling.cancelled() or handling.exception() or reply.close:
                next_byte.cancel()
                return  # noqa: B012 - a server that is closed ends here as well
        first = await next_byte


async def _read(first: bytes, reader: asyncio.StreamReader) -> Request:
    head = first + await reader.readuntil(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    method, path, _ = line.split(" ")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (header.partition(":") for header in rest if header)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path.split("?")[0], headers, body)
