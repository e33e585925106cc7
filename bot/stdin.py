"""Lines of standard input, without ever blocking the event loop or the end of the program.

They are read by a thread that nobody waits for: a blocked read cannot be cancelled, and Ctrl-C
must end the program at once. It reads the bare descriptor, since a thread that holds the lock
of ``sys.stdin`` would break the interpreter's exit.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator

_AHEAD = 1000  # lines read before somebody asks for them


async def stdin_lines() -> AsyncIterator[bytes]:
    """Each line without its end, until the input ends."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    arguments = (descriptor, loop, queue, room)
    threading.Thread(target=_pump, args=arguments, name="stdin", daemon=True).start()
    while (line := await queue.get()) is not None:
        room.release()
        yield line


def _pump(
    descriptor: int,
    loop: asyncio.AbstractEventLoop,
    queue: "asyncio.Queue[bytes | None]",
    room: threading.Semaphore,
) -> None:
    try:
        rest = b""
        while data := os.read(descriptor, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                room.acquire()
                loop.call_soon_threadsafe(queue.put_nowait, line)
        for line in [rest] if rest else []:
            loop.call_soon_threadsafe(queue.put_nowait, line)
        loop.call_soon_threadsafe(queue.put_nowait, None)
    except RuntimeError:
        return  # the loop is closed: the program ends
