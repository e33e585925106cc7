"""How a command that keeps running is stopped: gently once, at once the second time.

A coroutine comes in and runs to its end, or until SIGINT, SIGTERM or SIGHUP. The first signal
says "stopping…" and cancels it, and "stopped" is said when it has cleaned up behind itself.
Ctrl-C after that kills the processes that were started and ends this one.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import typer

from bot.cli.console import err, run

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def until_stopped(main: Coroutine[Any, Any, T]) -> T:
    """The result of ``main``; stopped by a signal, ``typer.Exit`` with 128 and its number."""
    caught: list[int] = []

    async def guarded() -> T:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, _on_signal, number, caught, task.cancel)
        return await task

    try:
        return run(guarded())
    except asyncio.CancelledError:
        if not caught:
            raise
        err.print("stopped")
        raise typer.Exit(128 + caught[0]) from None


def _on_signal(number: int, caught: list[int], stop: Callable[[], object]) -> None:
    caught.append(number)
    if len(caught) == 1:
        err.print("stopping… (Ctrl-C once more to stop at once)")
        stop()
    elif number == signal.SIGINT:  # a closed terminal sends several others, and needs no haste
        end_at_once(number)


def end_at_once(number: int) -> NoReturn:
    """Kill what was started, and end with the status of a signal.

    Each process that was started has a guard between it and us; the guards are left alone to
    remove temporary folders, which they do as soon as we are gone.
    """
    import psutil

    for guard in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            for process in guard.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
    err.show_cursor()
    err.print("stopped at once")
    os._exit(128 + number)
