"""An engine in a process of its own, as an ``Engine``: nobody here notices the difference.

Requests come in and are checked here, before the other process hears of them; its loop and ours
never share an interpreter lock, and no torch is loaded here. That process is looked after: when it
dies, is killed or stands still, whatever was in flight ends as ``EngineUnavailable`` (the same
request may work later), nothing is taken in meanwhile, and it is started again after a pause.
Used from the event loop that it was started in.
"""

import asyncio
import contextlib
import random
import time
from asyncio import FIRST_COMPLETED
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
    EngineError,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
)
from model.hosted.calls import Call, Calls
from model.hosted.child import COMMAND, Child, launch
from model.hosted.messages import (
    Ask,
    Cancel,
    Done,
    Failed,
    Forget,
    FromEngine,
    Judge,
    Judged,
    Logged,
    Piece,
    Progress,
    Pulse,
    Ready,
    Start,
    error_of,
    frame,
)
from model.hosted.restarts import RestartPolicy, Restarts
from model.hosted.watch import Watch
from model.stats import EngineState, EngineStats
from model.tally import Tally

log = structlog.get_logger(__name__)


class HostedEngine:
    """The engine called ``engine`` with these ``settings`` (see ``model.loader``), elsewhere.

    ``max_queued``: requests that wait for a slot at most. ``hang_s``: seconds without a sign of
    life, or with work and without a step of the model, after which the process is killed;
    ``restart_s``: those that it may take to be there again, or five times as long as at first.
    ``environment``: variables for it. ``progress`` is called with a line per stage of a start.
    """

    def __init__(
        self,
        engine: str,
        settings: Mapping[str, Any],
        *,
        max_queued: int = 1024,
        hang_s: float = 60.0,
        restart_s: float = 120.0,
        restarts: RestartPolicy | None = None,
        environment: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda line: None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._start = Start(engine, dict(settings), min(0.5, hang_s / 12))
        self._max_queued, self._hang_s, self._restart_s = max_queued, hang_s, restart_s
        self._took_s = 0.0
        self._restarts = Restarts(restarts or RestartPolicy())
        self._environment, self._command = environment, command
        self._progress = progress
        self._state: EngineState = "stopped"
        self._why = "it has not been started"
        self._ready: Ready | None = None
        self._tokenizer: ChatTokenizer | None = None
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._starts = asyncio.Lock()
        self._starting: asyncio.Future[Ready] | None = None
        self._pulse: Pulse | None = None
        self._watch = Watch(hang_s)
        self._calls = Calls(self._send)
        self._tally = Tally()

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
        return self._child.pid if self._child else None

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
        up, pulse = self._state == "up", self._pulse
        there, slots = self._calls.requests, self._slots()
        return self._tally.now(
            running=min(there, slots) if up else 0,
            waiting=max(0, there - slots) if up else 0,
            cache_use=pulse.cache_use if up and pulse else 0.0,
            steps=pulse.steps if pulse else None,
            state=self._state,
        )

    async def start(self) -> None:
        """Start the process and wait until it answers; raises ``ModelNotFound`` or
        ``EngineError``."""
        async with self._starts:
            if self._keeper and not self._keeper.done():
                return
            await self._launch()
            self._keeper = asyncio.create_task(self._keep(), name="keep the engine's process")

    async def stop(self) -> None:
        """End the process for sure; requests in flight end as ``EngineUnavailable``."""
        self._down("stopped", "it was stopped")
        keeper, self._keeper = self._keeper, None
        if keeper:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._end_child()

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole reply; raises ``RequestRefused`` or ``EngineUnavailable``."""
        with self._tally.request() as finish, self._asked(request, streamed=False) as call:
            while True:
                if made := (await call.chunk()).generation:
                    finish(made)
                    return made

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply piece by piece; leaving the loop early cancels the request."""
        with self._tally.request() as finish, self._asked(request, streamed=True) as call:
            while True:
                chunk = await call.chunk()
                if chunk.generation:
                    finish(chunk.generation)
                yield chunk
                if chunk.generation:
                    return

    async def cancel(self, request_id: str) -> None:
        """The request finishes as ``cancelled`` at the next step, with what it has by then."""
        number = self._calls.cancelled(request_id)
        if number is not None and self._child:
            self._child.say(Cancel(number))

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
        if self._calls.leave(call, request_id) and self._child:
            self._child.say(Forget(call.number))

    def _require_up(self) -> None:
        if self._state != "up":
            raise EngineUnavailable(f"The engine's process is not there now: {self._why}.")

    def _send(self, data: bytes) -> None:
        if self._child:
            self._child.send(data)

    def _told(self) -> Ready:
        if self._ready is None:
            raise EngineUnavailable("The engine has not been started yet.")
        return self._ready

    def _slots(self) -> int:
        if self._state != "up" or self._ready is None:
            return 0
        return self._pulse.slots if self._pulse else self._ready.slots

    # --- what the process says --------------------------------------------------------------------

    def _hear(self, message: FromEngine) -> None:
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
                self._hear_failure(number, error_of(code, text))
            case Pulse():
                self._pulse = message
                self._watch.pulse(message.steps)
            case Ready():
                self._settle(message)
            case Progress(line):
                self._progress(line)
            case Logged(level, event, fields):
                getattr(log, level, log.warning)(event, **fields)

    def _hear_failure(self, number: int, error: EngineError) -> None:
        if number == 0:
            self._settle(error)
        elif call := self._calls.end(number):
            call.fail(error)

    def _settle(self, how: Ready | EngineError) -> None:
        """The start has come to its end."""
        starting = self._starting
        if starting is None or starting.done():
            return
        if isinstance(how, EngineError):
            starting.set_exception(how)
        else:
            starting.set_result(how)

    # --- looking after the process ----------------------------------------------------------------

    async def _launch(self) -> None:
        """A process that can answer, or none. Raises ``EngineError``."""
        self._starting = asyncio.get_running_loop().create_future()
        self._pulse, self._watch = None, Watch(self._hang_s)
        try:
            child = self._child = await launch(
                self._hear, command=self._command, environment=self._environment
            )
            child.say(self._start)
            began = time.monotonic()
            ready = await self._unless_it_ends(child, self._starting)
            self._took_s = self._took_s or time.monotonic() - began
            await self._take(ready)
            self._state, self._why = "up", ""
            self._calls.opened()
        except OSError as error:
            await self._end_child()
            raise EngineError(f"The engine's process cannot be started: {error}.") from error
        except BaseException:
            await self._end_child()
            raise

    async def _unless_it_ends(self, child: Child, starting: "asyncio.Future[Ready]") -> Ready:
        await asyncio.wait(
            (child.ended, starting), timeout=self._patience_s(), return_when=FIRST_COMPLETED
        )
        if not (starting.done() or child.ended.done()):
            raise EngineError(f"The engine was not ready again after {self._patience_s():.0f} s.")
        if not starting.done():
            raise EngineError(
                f"The engine's process ended while it started: {child.ended.result()}."
            )
        return starting.result()

    def _patience_s(self) -> float | None:
        """How long a start may take: the first one may have gigabytes to fetch, the others
        nothing."""
        return max(self._restart_s, 5 * self._took_s) if self._took_s else None

    async def _take(self, ready: Ready) -> None:
        """Believe what a new process says of its model. To make the tokenizer takes a while, so
        it is made anew only where it is another one."""
        before = self._ready
        if self._tokenizer is None or before is None or ready.tokenizer != before.tokenizer:
            self._tokenizer = await asyncio.to_thread(_tokenizer, ready)
        if before is not None and ready.description != before.description:
            log.warning("engine_is_another_one", model=ready.description.model)
        self._ready = ready

    async def _keep(self) -> None:
        """As long as the engine runs: wait for the end of its process, start it again."""
        while True:
            assert self._child  # noqa: S101 - there is one whenever the engine is up
            why = await self._end_of(self._child)
            await self._end_child()
            self._tally.restarts += 1
            log.error("engine_process_ended", why=why, in_flight=self._calls.requests)
            self._down("restarting", why)
            await self._start_again(why)

    async def _end_of(self, child: Child) -> str:
        """Wait until it dies by itself or stands still, and is killed for that."""
        while True:
            await asyncio.wait((child.ended,), timeout=self._watch.interval_s)
            if child.ended.done():
                return child.ended.result()
            if fault := self._watch.look(at_work=self._calls.at_work):
                child.kill(fault)
                return fault

    async def _start_again(self, why: str) -> None:
        """Try until it is there; the more it failed lately, the less often."""
        while True:
            pause = self._restarts.after(time.monotonic(), random.random())  # noqa: S311
            self._down("failing" if pause.keeps_failing else "restarting", why)
            await asyncio.sleep(pause.seconds)
            try:
                await self._launch()
                log.info("engine_process_started_again", pid=self.pid)
                return
            except EngineError as error:
                why = str(error)
                log.error("engine_process_failed_to_start", why=why)

    def _down(self, state: EngineState, why: str) -> None:
        """Nobody gets in, and whoever was there hears of it; whoever was not sent yet waits for
        the next process, unless that is far away."""
        self._state, self._why = state, why.rstrip(".")
        error = EngineUnavailable(f"The engine's process is gone: {self._why}.")
        self._calls.died(error)
        if state != "restarting":
            self._calls.give_up(error)

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child:
            await child.gone()


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
