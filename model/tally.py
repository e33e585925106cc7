"""Counting what becomes of an engine's requests.

In come finished generations and errors, out comes ``EngineStats``, everything since the engine
was made. Used by the engine's event loop alone.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from model.engine import Chunk, EngineError, Generation
from model.stats import PER_TOKEN, WAITS, Buckets, EngineState, EngineStats

ABANDONED = "abandoned"  # the caller went away


class _Distribution:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def now(self) -> Buckets:
        return Buckets(self._bounds, tuple(self._counts), self._total)


class Asked(Protocol):
    """A request on its way; it raises the error that it ended with."""

    async def next_chunk(self) -> Chunk: ...


class Tally:
    """Counts for one engine."""

    def __init__(self) -> None:
        self.restarts = 0
        self._requests: Counter[str] = Counter()
        self._prompt_tokens = self._cached_tokens = self._output_tokens = 0
        self._queue, self._first = _Distribution(WAITS), _Distribution(WAITS)
        self._total, self._per_token = _Distribution(WAITS), _Distribution(PER_TOKEN)

    def ended(self, generation: Generation) -> None:
        """Count a reply that came to an end. The time per output token is that of those after
        the first."""
        spent, count = generation.timings, len(generation.token_ids)
        self._requests[generation.finish_reason] += 1
        self._prompt_tokens += spent.prompt_tokens
        self._cached_tokens += spent.cached_tokens
        self._output_tokens += count
        self._queue.add(spent.queued_s)
        self._total.add(spent.total_s)
        if count:
            self._first.add(spent.first_token_s)
        if count > 1:
            self._per_token.add((spent.total_s - spent.first_token_s) / (count - 1))

    def failed(self, code: str) -> None:
        """Count a request that ended with this code."""
        self._requests[code] += 1

    @contextmanager
    def request(self) -> Iterator[Callable[[Generation], None]]:
        """Count one request, however it ends inside; call what is given when it is finished."""
        finished = False

        def finish(generation: Generation) -> None:
            nonlocal finished
            finished = True
            self.ended(generation)

        try:
            yield finish
        except EngineError as error:
            self.failed(error.code)
            raise
        except BaseException:  # a task that was cancelled, or a stream that was left
            if not finished:
                self.failed(ABANDONED)
            raise

    async def generate(self, asking: AbstractContextManager[Asked]) -> Generation:
        """Ask, wait for the whole reply and count it. ``asking`` lets go of it, however it ends."""
        with self.request() as finish, asking as asked:
            while True:
                if made := (await asked.next_chunk()).generation:
                    finish(made)
                    return made

    async def stream(self, asking: AbstractContextManager[Asked]) -> AsyncIterator[Chunk]:
        """The same, piece by piece; leaving the loop early lets go of it too."""
        with self.request() as finish, asking as asked:
            while True:
                chunk = await asked.next_chunk()
                if chunk.generation:
                    finish(chunk.generation)
                yield chunk
                if chunk.generation:
                    return

    def now(
        self,
        *,
        state: EngineState,
        running: int = 0,
        waiting: int = 0,
        cache_use: float = 0.0,
        steps: int | None = None,
        slowest_s: float = 0.0,
    ) -> EngineStats:
        """Everything counted so far, with what is so now."""
        return EngineStats(
            requests=dict(self._requests),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
            restarts=self.restarts,
            queue_s=self._queue.now(),
            first_token_s=self._first.now(),
            per_token_s=self._per_token.now(),
            total_s=self._total.now(),
            running=running,
            waiting=waiting,
            cache_use=cache_use,
            steps=steps,
            slowest_s=slowest_s,
            state=state,
        )
