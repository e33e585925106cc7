"""Requests to an engine in another process, from their submission to their end.

In come requests and, later, what the other side says of them by their numbers; each is handed to
whoever asked. A call ends once: with a generation or a score, an error, its deadline, or because
the process died. Calls go over in the order in which they came, at once; only those that
may be what kills the process, or breaks its steps (``model.hosted.suspects``), wait until they are
alone with it, and the others behind them. All in one event loop.
"""

import asyncio
import itertools
from collections.abc import Callable, Hashable
from dataclasses import replace

from model.engine import Chunk, DeadlineExceeded, EngineError, Generation, RequestRefused, Score
from model.hosted.suspects import Suspects


class Call:
    """``number`` is what the other side knows it by, ``data`` the frame that asks; ``tokens``: of
    its prompt; ``key``: what tells the same request at its next try."""

    def __init__(
        self, number: int, data: bytes, key: Hashable, tokens: int, deadline: float | None = None
    ) -> None:
        self.number, self.data, self.key, self.tokens = number, data, key, tokens
        self._loop = asyncio.get_running_loop()
        self._submitted = self._loop.time()
        self._items: asyncio.Queue[Chunk | Score | EngineError] = asyncio.Queue()
        self._timer = None if deadline is None else self._loop.call_later(deadline, self._expire)

    def piece(self, text: str) -> None:
        self._items.put_nowait(Chunk(text))

    def done(self, generation: Generation) -> None:
        """The reply is whole; its times are counted from our side of the pipe."""
        before = self._loop.time() - self._submitted - generation.timings.total_s
        self._items.put_nowait(Chunk("", _later(generation, max(0.0, before))))

    def judged(self, score: Score) -> None:
        self._items.put_nowait(score)

    def fail(self, error: EngineError) -> None:
        self._items.put_nowait(error)

    async def next_chunk(self) -> Chunk:
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

    def leave(self) -> None:
        """The caller is gone, with its answer or without."""
        if self._timer:
            self._timer.cancel()

    def _expire(self) -> None:
        self.fail(DeadlineExceeded("The request's deadline passed."))


class Calls:
    """All calls of one engine. ``send`` brings a frame to the process."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._held: dict[int, Call] = {}  # not sent yet, in their order
        self._sent: dict[int, Call] = {}
        self._alone: int | None = None  # has the process to itself
        self._open = False  # there is a process
        self._by_id: dict[str, Call] = {}
        self._suspects = Suspects()

    def next_number(self) -> int:
        """One that was never used."""
        return next(self._numbers)

    def add(self, call: Call, request_id: str | None = None) -> None:
        """Take a call in, and send it as soon as may be. Raises ``RequestRefused`` for an id in
        flight."""
        if request_id is not None:
            self.require_new(request_id)
            self._by_id[request_id] = call
        self._held[call.number] = call
        self.pump()

    def require_new(self, request_id: str) -> None:
        """Raises ``RequestRefused`` for an id in flight."""
        if request_id in self._by_id:
            raise RequestRefused("A request with this id is in flight already.")

    def leave(self, call: Call, request_id: str | None = None) -> bool:
        """The caller is gone; tells whether the other side has to be told."""
        call.leave()
        if request_id is not None:
            self._by_id.pop(request_id, None)
        self._held.pop(call.number, None)
        return self._over(call.number) is not None

    def cancelled(self, request_id: str) -> int | None:
        """The number of a call to cancel on the other side; one that was not sent ends here."""
        call = self._by_id.get(request_id)
        if call and self._held.pop(call.number, None):
            call.done(Generation("", (), (), "cancelled"))
            self.pump()
            return None
        return call.number if call and call.number in self._sent else None

    def get(self, number: int) -> Call | None:
        """A call that is on the other side; None for one that nobody waits for."""
        return self._sent.get(number)

    def end(self, number: int) -> Call | None:
        """The same, and it is over there: it was answered."""
        if call := self._over(number):
            self._suspects.cleared(call.key)
        return call

    def broke(self, number: int) -> Call | None:
        """The same, but with a step of the model that raised: who was there may be why."""
        if call := self._over(number):
            self._suspects.died((call.key,))
        return call

    def died(self, error: EngineError) -> None:
        """The process is gone, and with it what it had; what was not sent waits for the next."""
        self._open = False
        sent, self._sent, self._alone = self._sent, {}, None
        self._suspects.died({call.key for call in sent.values()})
        for call in sent.values():
            call.fail(error)

    def opened(self) -> None:
        """There is a process."""
        self._open = True
        self.pump()

    def give_up(self, error: EngineError) -> None:
        """There will be no process soon: nobody waits for one."""
        held, self._held = self._held, {}
        for call in held.values():
            call.fail(error)

    def pump(self) -> None:
        """Send what may be sent now."""
        while self._open and self._held and self._alone is None:
            number, call = next(iter(self._held.items()))
            if call.key in self._suspects:
                if self._sent:
                    return
                self._alone = number
            del self._held[number]
            self._sent[number] = call
            self._send(call.data)

    @property
    def at_work(self) -> bool:
        """The process has something to do."""
        return bool(self._sent)

    @property
    def requests(self) -> int:
        """Requests in flight, sent or not."""
        return len(self._by_id)

    def tokens_beyond(self, slots: int) -> int:
        """Prompt tokens of the requests beyond the first so many."""
        return sum(call.tokens for call in itertools.islice(self._by_id.values(), slots, None))

    def _over(self, number: int) -> Call | None:
        call = self._sent.pop(number, None)
        if self._alone == number:
            self._alone = None
        self.pump()
        return call


def _later(generation: Generation, seconds: float) -> Generation:
    """Add what came before the process, and the way to it and back, to the time in the queue."""
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
