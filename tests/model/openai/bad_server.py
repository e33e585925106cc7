"""A model server that misbehaves on demand: well at the engine's look, then by its ``fault``.

Each fault is a function over a real connection. Servers quote what they were sent: so do these,
where they say anything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from model.echo import EchoEngine
from tests.model.openai.echo_server import MODEL, EchoServer
from tests.model.openai.wire import Listening, Reply, Request

Fault = Callable[[Request, Reply], Awaitable[None]]


class BadServer:
    """Run it with ``async with``. ``fault`` None: it answers as the echo server does."""

    def __init__(self, *, slots: int = 64, latency_ms: float = 0) -> None:
        self.fault: Fault | None = None
        self.fault_of_pages: Fault | None = None
        self.fault_of_scores: Fault | None = None
        self.asked: list[Request] = []
        self.open = 0  # requests for replies that it works on now
        self.most = 0
        self.waiting: int | None = None  # what its metrics say instead of the truth
        self.engine = EchoEngine(latency_ms=latency_ms, slots=slots)
        self.echo = EchoServer(self.engine)
        self._listening: Listening | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many were made so far."""
        return self._listening.accepted if self._listening else 0

    async def __aenter__(self) -> "BadServer":
        await self.engine.start()
        await self.echo.at_once.start()
        await self.listen()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def listen(self) -> None:
        """Start, or start again at the same port."""
        self._listening = Listening(self)
        await self._listening.start(self.port)
        self.port = self._listening.port

    async def close(self) -> None:
        """Nobody can connect any more; open connections end."""
        if self._listening:
            await self._listening.close()
            self._listening = None

    async def __call__(self, request: Request, reply: Reply) -> None:
        if not request.path.endswith("completions"):
            if request.path == "/metrics" and self.waiting is not None:
                page = f"vllm:num_requests_waiting {self.waiting}\nvllm:num_requests_running 2\n"
                await reply.body(page.encode(), "text/plain")
            else:
                await (self.fault_of_pages or self.echo)(request, reply)
            return
        if self.fault_of_scores and request.json.keys() & {"prompt_logprobs", "echo"}:
            await self.fault_of_scores(request, reply)
            return
        is_look = request.json["max_tokens"] == 1
        if not is_look:
            self.asked.append(request)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await (self.echo if is_look or self.fault is None else self.fault)(request, reply)
        finally:
            self.open -= 1


def status(number: int, body: Any = None, **headers: str) -> Fault:
    """An error with the prompt in it, as servers like to write them."""

    async def fault(request: Request, reply: Reply) -> None:
        said = f"cannot do {request.body.decode()}" if body is None else body
        error = {"error": {"message": said, "type": "SomeError", "code": number}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await reply.json(error, number, named)

    return fault


def events(*values: Any, end: bool = True) -> Fault:
    """A stream of these events; strings are written as they are."""

    async def fault(request: Request, reply: Reply) -> None:
        await reply.start()
        for value in values:
            await reply.event(value)
        if end:
            await reply.end()
        else:
            reply.writer.transport.abort()

    return fault


def said(text: Any, ids: Any = None, **more: Any) -> dict[str, Any]:
    """An event with a piece of a reply."""
    choice = {"index": 0, "text": text, "token_ids": ids, "finish_reason": None, **more}
    return {"model": MODEL, "choices": [choice]}


def page(body: bytes, kind: str, **headers: str) -> Fault:
    """Status 200 with something else."""

    async def fault(request: Request, reply: Reply) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await reply.body(body, kind, 200, named)

    return fault


def for_ever(first: bytes, again: bytes, pause_s: float) -> Fault:
    """A stream that never comes to its point, nor to its end."""

    async def fault(request: Request, reply: Reply) -> None:
        await reply.start()
        await reply.chunk(first)
        while True:
            await reply.chunk(again)
            await asyncio.sleep(pause_s)

    return fault


async def silence(request: Request, reply: Reply) -> None:
    """Nothing for an hour."""
    await asyncio.sleep(3600)


async def silence_in_the_middle(request: Request, reply: Reply) -> None:
    """A token, and then nothing for an hour."""
    await reply.start()
    await reply.event(said("a ", [97, 32]))
    await asyncio.sleep(3600)


async def reset(request: Request, reply: Reply) -> None:
    """The connection is torn down instead of an answer."""
    reply.writer.transport.abort()


async def no_http(request: Request, reply: Reply) -> None:
    """Something else listens there."""
    await reply.raw(b"SSH-2.0-OpenSSH_9.9\r\n")
    reply.close = True


async def too_short(request: Request, reply: Reply) -> None:
    """It says how long its answer is, and stops before."""
    await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    await reply.raw(b"Content-Length: 1000\r\n\r\ndata: {")
    reply.close = True


def many_tokens(count: int, *, with_ids: bool) -> Fault:
    """More tokens than were asked for, without an end."""

    async def fault(request: Request, reply: Reply) -> None:
        await reply.start()
        for _ in range(count):
            await reply.event(said("x", [120] if with_ids else None))
        await asyncio.sleep(3600)

    return fault


def nested(levels: int) -> Fault:
    """JSON that exhausts a parser's stack."""
    return events("[" * levels + "]" * levels)
