"""One life of the engine's process, from its start to its certain end.

In come messages to send; out come the messages it sends, handed to ``on_message`` in the event
loop, and once, when it is over, ``ended`` with what happened. It is started in a session of its
own, so that Ctrl-C in a terminal does not reach it; the socket between us tells either side of
the other's end.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import model
from model.hosted.messages import BrokenFrame, Frames, FromEngine, ToEngine, frame, from_engine
from model.threads import ENVIRONMENT

_LINGER_S = 2.0
COMMAND = (sys.executable, "-P", "-m", "model.host")


class Child(asyncio.Protocol):
    """A process that runs an engine. Made by ``launch``; used in one event loop."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", on_message: Callable[[FromEngine], None]
    ) -> None:
        self._process = process
        self._on_message = on_message
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._why = ""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, data: bytes) -> None:
        """Send a frame; lost where the process is gone, and ``ended`` tells of that."""
        if self._transport is not None:
            self._transport.write(data)

    def say(self, message: ToEngine) -> None:
        """Send a message that is known to be sound."""
        self.send(frame(message))

    def kill(self, why: str) -> None:
        """End it at once; ``why`` is what ``ended`` then tells."""
        self._why = self._why or why
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        """Kill it, and wait until it is gone for sure; idempotent."""
        self.kill("it was stopped")
        await asyncio.shield(asyncio.to_thread(self._process.wait))
        if self._transport is not None:
            self._transport.abort()

    # --- what the transport calls -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data, from_engine):
                self._on_message(message)
        except BrokenFrame as error:
            self.kill(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Its end of the socket is closed, which it only is when it dies."""
        reaping = asyncio.get_running_loop().run_in_executor(None, self._reap)
        reaping.add_done_callback(lambda done: self._tell(done.result()))

    def _reap(self) -> int:
        """In a thread: wait for its end. The status is its own, unless it lingers."""
        try:
            return self._process.wait(_LINGER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _tell(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(self._why or _told(status))


async def launch(
    on_message: Callable[[FromEngine], None],
    *,
    command: Sequence[str] = COMMAND,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Start a process and connect to it. Raises ``OSError`` where that is impossible.

    ``environment``: variables on top of our own and of ``model.threads``.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_variables(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        child = Child(process, on_message)
    except BaseException:
        ours.close()
        raise
    await asyncio.get_running_loop().create_connection(lambda: child, sock=ours)
    return child


def _variables(more: Mapping[str, str]) -> dict[str, str]:
    """Those of the process: it finds the same code as we do, wherever it is started."""
    root = str(Path(next(iter(model.__path__))).parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**ENVIRONMENT, **os.environ, **more, "PYTHONPATH": path}


def _told(status: int) -> str:
    """How it ended, with what that usually means."""
    if status == -signal.SIGKILL:
        return "it was killed, perhaps for want of memory"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"it crashed ({signal.Signals(-status).name})"
    return f"it ended by itself (status {status})"
