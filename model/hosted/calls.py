"""One request of ours to an engine in another process, from its submission to its end.

Pieces come in from the connection and wait here for whoever asked. It ends once: with a
generation or a score, an error, its deadline, or because the process is gone. All
in one event loop.
"""

import asyncio
from dataclasses import replace

from model.engine import Chunk, DeadlineExceeded, EngineError, Generation, Score


class Call:
    """``number`` is what the other side knows it by; ``tokens``: of its prompt."""

    def __init__(self, number: int, tokens: int, deadline: float | None) -> None:
        self.number, self.tokens = number, tokens
        self._loop = asyncio.get_running_loop()
        self._submitted = self._loop.time()
        self._items: asyncio.Queue[Chunk | Score | EngineError] = asyncio.Queue()
        self._timer = None if deadline is None else self._loop.call_later(deadline, self._expire)

    def piece(self, text: str) -> None:
        self._items.put_nowait(Chunk(text))

    def done(self, generation: Generation) -> None:
        """The reply is whole; its times are counted from our side of the pipe."""
        on_the_way = self._loop.time() - self._submitted - generation.timings.total_s
        self._items.put_nowait(Chunk("", _later(generation, max(0.0, on_the_way))))

    def judged(self, score: Score) -> None:
        self._items.put_nowait(score)

    def fail(self, error: EngineError) -> None:
        self._items.put_nowait(error)

    def leave(self) -> None:
        """The caller is gone, with its answer or without."""
        if self._timer:
            self._timer.cancel()

    async def chunk(self) -> Chunk:
        """The next piece of a reply. Raises the error that it ended with."""
        item = await self._items.get()
        if isinstance(item, Chunk):
            return item
        raise item if isinstance(item, EngineError) else EngineError("A score, and not a reply.")

    async def score(self) -> Score:
        """The score. Raises the error that it ended with."""
        item = await self._items.get()
        if isinstance(item, Score):
            return item
        raise item if isinstance(item, EngineError) else EngineError("A reply, and not a score.")

    def _expire(self) -> None:
        self.fail(DeadlineExceeded("The request's deadline passed."))


def _later(generation: Generation, seconds: float) -> Generation:
    """Add what the way to the process and back took to the time in the queue."""
    spent = generation.timings
    first = spent.first_token_s + seconds if generation.token_ids else 0.0
    return replace(
        generation,
        timings=replace(
            spent,
            queued_s=spent.queued_s + seconds,
            first_token_s=first,
            total_s=spent.total_s + seconds,
        ),
    )
