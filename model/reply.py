"""One request on its way through an engine's batch: from its prompt to its last token.

Tokens come in one by one; text that is certain goes out to whoever waits for it, in the event
loop that they wait in. It ends at an end token, a stop string, its token limit, the end of the
context, a cancel, its deadline, or the engine's end; it ends once, and after that nothing more
goes out.
"""

import asyncio
import time
from collections.abc import Collection

from model.chat import StreamDecoder
from model.engine import (
    Chunk,
    DeadlineExceeded,
    EngineError,
    FinishReason,
    Generation,
    GenerationRequest,
    Timings,
)
from model.stopping import StopStrings


class Reply:
    """The state of one request. Made in the caller's event loop, then used by one thread.

    ``streamed``: the caller wants the pieces, not just the end. ``room``: tokens that fit into
    the context behind the prompt.
    """

    def __init__(
        self, request: GenerationRequest, decoder: StreamDecoder, *, room: int, streamed: bool
    ) -> None:
        self.request = request
        self.prompt_ids = request.prompt.token_ids
        self.read = 0  # prompt tokens that the model has seen
        self.cached = 0  # of those, the ones that were there from earlier prompts
        self.token_ids: list[int] = []
        self.wanted_end = False  # cancelled, or nobody listens; read by the engine's thread
        self._logprobs: list[float] = []
        self._text: list[str] = []
        self._decoder = decoder
        self._stops = StopStrings(request.sampling.stop)
        self._limit = min(request.sampling.max_tokens, room)
        self._streamed = streamed
        self._ended = False
        self.failed = False
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[Chunk | EngineError] = asyncio.Queue()
        self._submitted = time.monotonic()
        self._queued_s: float | None = None
        self._first_token_s = 0.0
        self._timer = self._set_timer(request.deadline)

    def begin(self) -> None:
        """The model starts to read the prompt; what was before is time in the queue."""
        if self._queued_s is None:
            self._queued_s = self._age()

    def leave(self) -> None:
        """The caller is gone, with its answer or without. Call it in the caller's event loop."""
        self.wanted_end = True
        if self._timer:
            self._timer.cancel()

    @property
    def position(self) -> int:
        """Where the last token of the reply stands in its row."""
        return len(self.prompt_ids) + len(self.token_ids) - 1

    @property
    def unread(self) -> int:
        """Prompt tokens that the model has not seen."""
        return len(self.prompt_ids) - self.read

    def seen(self) -> set[int]:
        """Ids of prompt and reply so far."""
        return {*self.prompt_ids, *self.token_ids}

    def add(self, token_id: int, logprob: float, end_ids: Collection[int]) -> bool:
        """Take the next token; returns whether the reply is over, and has told so."""
        if not self.token_ids:
            self._first_token_s = self._age()
        self.token_ids.append(token_id)
        self._logprobs.append(logprob)
        if token_id in end_ids:
            self.end("stop")
            return True
        self._show(self._stops.push(self._decoder.push(token_id)))
        if self._stops.hit:
            self.end("stop")
        elif len(self.token_ids) >= self._limit:
            self.end("length")
        return self._ended

    def end(self, reason: FinishReason) -> None:
        """Finish: hand out what was held back, then the whole generation."""
        if self._ended:
            return
        self._ended = True
        self._show(self._stops.push(self._decoder.flush()) + self._stops.flush())
        text, ids, logprobs = "".join(self._text), tuple(self.token_ids), tuple(self._logprobs)
        self._put(Chunk("", Generation(text, ids, logprobs, reason, self._timings())))

    def fail(self, error: EngineError) -> None:
        """Finish with an error."""
        if not self._ended:
            self._ended = self.failed = True
            self._put(error)

    async def next_chunk(self) -> Chunk:
        """Wait for the next piece; raises the error that the reply ended with."""
        item = await self._chunks.get()
        if isinstance(item, EngineError):
            raise item
        return item

    def _timings(self) -> Timings:
        total = self._age()
        return Timings(
            queued_s=total if self._queued_s is None else self._queued_s,
            first_token_s=self._first_token_s,
            total_s=total,
            prompt_tokens=len(self.prompt_ids),
            cached_tokens=self.cached,
        )

    def _age(self) -> float:
        return time.monotonic() - self._submitted

    def _set_timer(self, deadline: float | None) -> asyncio.TimerHandle | None:
        return None if deadline is None else self._loop.call_later(deadline, self._expire)

    def _expire(self) -> None:
        """In the caller's loop: whatever comes from the engine's thread now comes too late."""
        self.wanted_end = True
        self._chunks.put_nowait(DeadlineExceeded("The request's deadline passed."))

    def _show(self, text: str) -> None:
        if text:
            self._text.append(text)
            if self._streamed:
                self._put(Chunk(text))

    def _put(self, item: Chunk | EngineError) -> None:
        """Hand over to the caller's event loop, which may be closed by now."""
        try:
            self._loop.call_soon_threadsafe(self._chunks.put_nowait, item)
        except RuntimeError:
            self.wanted_end = True
