"""The engine's own process: ``python -m model.host FD``, where FD is one end of a socket pair.

In come the messages of ``model.hosted.messages``; the engine they name runs here, in a thread of
its own, and what it says goes back. This process lives for whoever holds the other end: when that
closes, it ends at once, and where Linux can do so the kernel ends it with its parent, also in the
middle of a step. It listens to no signal that a terminal or a service manager sends to the
whole group: its owner drains first and ends it then.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from model.chat import HfChatTokenizer
from model.engine import Engine, EngineError, EngineUnavailable, Generation
from model.hosted.messages import (
    Ask,
    BrokenFrame,
    Cancel,
    Done,
    Failed,
    Forget,
    Frames,
    FromEngine,
    Judge,
    Judged,
    Logged,
    Piece,
    Progress,
    Pulse,
    Ready,
    Start,
    ToEngine,
    frame,
    plain,
    to_engine,
)
from model.loader import build_engine
from model.portable import PortableTokenizer
from model.threads import configure_environment

_PR_SET_PDEATHSIG = 1
# Exit statuses: the engine's thread has ended by itself; a message made no sense.
_GIVEN_UP, _NOT_UNDERSTOOD = 3, 4


class Host(asyncio.Protocol):
    """One engine, served to whoever is at the other end of the connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._engine: Engine | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()  # of those, the ones that are to end early
        self._pulse: asyncio.Task[None] | None = None

    # --- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data, to_engine):
                self._handle(message)
        except BrokenFrame:  # the other side is of another version, or not itself
            os._exit(_NOT_UNDERSTOOD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is left to answer to: whatever the engine is doing, end."""
        os._exit(0)

    def say(self, message: FromEngine) -> None:
        """Send a message, in the event loop."""
        if self._transport is not None:
            self._transport.write(frame(message))

    def say_from_anywhere(self, message: FromEngine) -> None:
        """Send a message, from whichever thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.say, message)

    # --- what is asked ----------------------------------------------------------------------

    def _handle(self, message: ToEngine) -> None:
        match message:
            case Start():
                self._run(0, lambda: self._start(message))
            case Ask(number=number):
                self._run(number, lambda: self._answer(message))
            case Judge(number=number):
                self._run(number, lambda: self._judge(message))
            case Cancel(number=number) if number in self._tasks:
                self._cancelled.add(number)
                self._run(-number, lambda: self._cancel(number))
            case Forget(number=number) if task := self._tasks.get(number):
                task.cancel()

    def _run(self, number: int, work: Callable[[], Awaitable[None]]) -> None:
        task = self._tasks[number] = self._loop.create_task(self._guarded(number, work))
        task.add_done_callback(lambda _: self._forget(number))

    def _forget(self, number: int) -> None:
        self._tasks.pop(number, None)
        self._cancelled.discard(number)

    async def _guarded(self, number: int, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever comes of it, whoever asked hears."""
        try:
            await work()
        except EngineError as error:
            self.say(Failed(number, error.code, str(error)))
        except Exception as error:  # a fault of ours: only its kind, it may quote a prompt
            what = f"The engine's process failed: {type(error).__name__}."
            self.say(Failed(number, EngineUnavailable.code, what))

    async def _start(self, wanted: Start) -> None:
        settings = dict(wanted.settings)
        if wanted.engine != "echo":
            settings["progress"] = lambda line: self.say_from_anywhere(Progress(line))
        engine = build_engine(wanted.engine, **settings)
        await engine.start()
        self._engine = engine
        self.say(_ready(engine))
        self._pulse = self._loop.create_task(self._beat(engine, wanted.pulse_s))

    async def _answer(self, asked: Ask) -> None:
        """One request. A cancel may have come in before this had its first turn."""
        number, engine = asked.number, self._started()
        if number in self._cancelled:
            self.say(Done(number, Generation("", (), (), "cancelled")))
        elif not asked.streamed:
            self.say(Done(number, await engine.generate(asked.request)))
        else:
            async with contextlib.aclosing(engine.stream(asked.request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    if chunk.text:
                        self.say(Piece(number, chunk.text))
                    if chunk.generation:
                        self.say(Done(number, chunk.generation))

    async def _judge(self, asked: Judge) -> None:
        score = await self._started().score(
            asked.prompt, asked.output_ids, asked.sampling, asked.adapter
        )
        self.say(Judged(asked.number, score))

    async def _cancel(self, number: int) -> None:
        await self._started().cancel(str(number))

    def _started(self) -> Engine:
        if self._engine is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._engine

    async def _beat(self, engine: Engine, every_s: float) -> None:
        while True:
            now = engine.stats()
            slots = engine.capacity().slots
            self.say(
                Pulse(slots, now.running, now.waiting, now.cache_use, now.steps, now.slowest_s)
            )
            if now.state == "stopped":
                os._exit(_GIVEN_UP)
            await asyncio.sleep(every_s)


def _ready(engine: Engine) -> Ready:
    tokenizer = engine.tokenizer
    portable = None
    if isinstance(tokenizer, HfChatTokenizer):
        portable = PortableTokenizer.of(tokenizer.source)
    vocabulary = engine.vocabulary  # type: ignore[attr-defined]
    return Ready(engine.describe(), vocabulary, engine.capacity().slots, portable)


async def serve(connection: socket.socket) -> None:
    """Answer until the other end closes, which ends the process."""
    loop = asyncio.get_running_loop()
    _, host = await loop.create_connection(Host, sock=connection)
    _log_to(host)
    await asyncio.Event().wait()


def _log_to(host: Host) -> None:
    """What is logged here is logged there, where it gets its form and its place."""

    def pass_on(logger: Any, method: str, line: structlog.typing.EventDict) -> Any:
        event = str(line.pop("event", ""))
        fields = {name: plain(value) for name, value in line.items()}
        host.say_from_anywhere(Logged(method, event, fields))
        raise structlog.DropEvent

    structlog.configure(processors=[pass_on])
    logging.basicConfig(handlers=[logging.NullHandler()])  # the libraries say nothing


def _live_with_parent() -> None:
    """Linux: the kernel ends this process when its parent is gone, whatever it is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve on the socket whose number is the last argument."""
    _live_with_parent()
    faulthandler.enable()  # where a crash in native code was: places, no values
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    configure_environment()
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[-1]))))


if __name__ == "__main__":
    main()
