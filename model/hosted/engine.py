"""An engine in a process of its own, as an ``Engine``: nobody here notices the difference.

Requests come in and are checked here, before the other process hears of them; its loop and ours
never share an interpreter lock, and no torch is loaded here. That process is looked after: when it
dies, is killed or stands still, whatever was in flight ends as ``EngineUnavailable`` (the same
request may work later), nothing is taken in meanwhile, and it is started again after a pause.
Used from the event loop that it was started in.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from model.chat import HfChatTokenizer
from model.checks import check_request
from model.echo import ByteChatTokenizer
from model.engine import (
    Capacity,
    ChatTokenizer,
    Chunk,
    EngineDescription,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
    StepFailed,
)
from model.hosted.calls import Call, Calls
from model.hosted.keeper import Care, Keeper
from model.hosted.messages import (
    Ask,
    Cancel,
    Done,
    Failed,
    Forget,
    FromEngine,
    Judge,
    Judged,
    Piece,
    Ready,
    Start,
    error_of,
    frame,
)
from model.stats import EngineStats
from model.tally import Tally

log = structlog.get_logger(__name__)


class HostedEngine:
    """The engine called ``engine`` with these ``settings``, plain values (see ``model.loader``).

    ``max_queued``: requests that wait for a slot at most. ``care``: how the process is looked
    after. ``progress`` is called with a line per stage of a start.
    """

    def __init__(
        self,
        engine: str,
        settings: Mapping[str, Any],
        *,
        max_queued: int = 1024,
        care: Care | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        care = care or Care()
        self._max_queued = max_queued
        self._ready: Ready | None = None
        self._tokenizer: ChatTokenizer | None = None
        self._calls = Calls(self._send)
        self._tally = Tally()
        self._keeper = Keeper(
            Start(engine, dict(settings), min(0.5, care.hang_s / 12)),
            care,
            hear=self._hear,
            up=self._up,
            down=self._down,
            at_work=lambda: self._calls.at_work,
            progress=progress,
        )

    # --- what an engine promises --------------------------------------------------------------

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The model's tokenizer; ``EngineUnavailable`` before the first start."""
        if self._tokenizer is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._tokenizer

    @property
    def pid(self) -> int | None:
        """The engine's process; None while there is none."""
        child = self._keeper.child
        return child.pid if child else None

    def describe(self) -> EngineDescription:
        """Model, weights and versions; ``EngineUnavailable`` before the first start."""
        return self._told().description

    def capacity(self) -> Capacity:
        """Slots in all, slots that nobody holds or waits for, prompt tokens beyond the slots.
        None are there while the process is not."""
        slots = self._slots()
        free = max(0, slots - self._calls.requests)
        return Capacity(slots, free, self._calls.tokens_beyond(slots))

    def stats(self) -> EngineStats:
        """Counters from this side, and what the process last said of itself."""
        up, pulse = self._keeper.state == "up", self._keeper.pulse
        self._tally.restarts = self._keeper.restarts
        there, slots = self._calls.requests, self._slots()
        return self._tally.now(
            running=min(there, slots) if up else 0,
            waiting=max(0, there - slots) if up else 0,
            cache_use=pulse.cache_use if up and pulse else 0.0,
            steps=pulse.steps if pulse else None,
            slowest_s=pulse.slowest_s if pulse else 0.0,
            state=self._keeper.state,
        )

    async def start(self) -> None:
        """Start the process and wait until it answers; raises ``ModelNotFound`` or
        ``EngineError``."""
        await self._keeper.start()

    async def stop(self) -> None:
        """End the process for sure; requests in flight end as ``EngineUnavailable``."""
        await self._keeper.stop()

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole reply; raises ``RequestRefused`` or ``EngineUnavailable``."""
        return await self._tally.generate(self._asked(request, streamed=False))

    def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply piece by piece; leaving the loop early cancels the request."""
        return self._tally.stream(self._asked(request, streamed=True))

    async def cancel(self, request_id: str) -> None:
        """The request finishes as ``cancelled`` at the next step, with what it has by then."""
        number = self._calls.cancelled(request_id)
        if number is not None:
            self._send(frame(Cancel(number)))

    async def score(
        self,
        prompt: Prompt,
        output_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None = None,
    ) -> Score:
        """Would ``sampling`` draw ``output_ids`` behind ``prompt`` again?"""
        self._require_up()
        number, ids = self._calls.next_number(), prompt.token_ids
        judge = Judge(number, replace(prompt, messages=()), tuple(output_ids), sampling, adapter)
        call = Call(number, _frame(judge), hash((ids, *output_ids)), len(ids))
        self._calls.add(call)
        try:
            return await call.score()
        finally:
            self._leave(call)

    # --- requests -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asked(self, request: GenerationRequest, *, streamed: bool) -> Iterator[Call]:
        """Check the request and send it; at the end the other side hears if nobody waits."""
        self._require_up()
        told = self._told()
        length = told.description.context_length
        check_request(request, vocabulary=told.vocabulary, context_length=length)
        self._calls.require_new(request.id)
        if self._calls.requests >= self._slots() + self._max_queued:
            raise EngineUnavailable(f"The queue is full ({self._max_queued} requests wait).")
        number, ids = self._calls.next_number(), request.prompt.token_ids
        data = _frame(Ask(number, _bare(request, number), streamed))
        call = Call(number, data, hash(ids), len(ids), request.deadline)
        self._calls.add(call, request.id)
        try:
            yield call
        finally:
            self._leave(call, request.id)

    def _leave(self, call: Call, request_id: str | None = None) -> None:
        if self._calls.leave(call, request_id):
            self._send(frame(Forget(call.number)))

    def _require_up(self) -> None:
        if self._keeper.state != "up":
            raise EngineUnavailable(f"The engine's process is not there now: {self._keeper.why}.")

    def _send(self, data: bytes) -> None:
        if child := self._keeper.child:
            child.send(data)

    def _told(self) -> Ready:
        if self._ready is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._ready

    def _slots(self) -> int:
        if self._keeper.state != "up" or self._ready is None:
            return 0
        return self._keeper.pulse.slots if self._keeper.pulse else self._ready.slots

    # --- the process ------------------------------------------------------------------------------

    def _hear(self, message: FromEngine) -> None:
        """What it says of a request; of one that nobody waits for, it is forgotten."""
        match message:
            case Piece(number, text):
                if call := self._calls.get(number):
                    call.piece(text)
            case Done(number, generation):
                if call := self._calls.end(number):
                    call.done(generation)
            case Judged(number, score):
                if call := self._calls.end(number):
                    call.judged(score)
            case Failed(number, code, text):
                broke = code == StepFailed.code
                if call := self._calls.broke(number) if broke else self._calls.end(number):
                    call.fail(error_of(code, text))

    async def _up(self, ready: Ready) -> None:
        """Believe what a new process says of its model. To make the tokenizer takes a while, so
        it is made anew only where it is another one."""
        before = self._ready
        if self._tokenizer is None or before is None or ready.tokenizer != before.tokenizer:
            self._tokenizer = await asyncio.to_thread(_tokenizer, ready)
        if before is not None and ready.description != before.description:
            log.warning("engine_is_another_one", model=ready.description.model)
        self._ready = ready
        self._calls.opened()

    def _down(self) -> None:
        """Whoever was there hears of it; whoever was not sent yet waits for the next process,
        unless that is far away."""
        error = EngineUnavailable(f"The engine's process is gone: {self._keeper.why}.")
        self._calls.died(error)
        if self._keeper.state != "restarting":
            self._calls.give_up(error)


def _tokenizer(ready: Ready) -> ChatTokenizer:
    return HfChatTokenizer(ready.tokenizer) if ready.tokenizer else ByteChatTokenizer()


def _bare(request: GenerationRequest, number: int) -> GenerationRequest:
    """What the engine needs of it: ids and no text, under a name that is never used twice."""
    return replace(request, id=str(number), prompt=replace(request.prompt, messages=()))


def _frame(message: Ask | Judge) -> bytes:
    """As bytes; raises ``RequestRefused`` for what no engine can take."""
    try:
        return frame(message)
    except ValueError as error:
        raise RequestRefused(
            f"The request cannot be passed on ({type(error).__name__})."
        ) from error
