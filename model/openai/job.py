"""One request on its way: from its arrival to its one end.

Pieces of a server's answer come in, text that is certain goes out to whoever waits. It ends at the
server's end, a stop string, as many tokens as were asked for, a cancel, its deadline, or an error;
after that nothing more goes out. Used in the engine's event loop alone.
"""

import asyncio
import time
from collections.abc import Sequence

from model.chat import UNFINISHED
from model.engine import (
    ChatTokenizer,
    Chunk,
    DeadlineExceeded,
    EngineError,
    FinishReason,
    Generation,
    GenerationRequest,
    Timings,
)
from model.openai.affinity import block_keys
from model.openai.answers import Piece
from model.openai.estimate import ids_of_text
from model.stopping import StopStrings


class Job:
    """``room``: tokens that fit behind the prompt; ``streamed``: the caller wants the pieces."""

    def __init__(
        self, request: GenerationRequest, tokenizer: ChatTokenizer, *, room: int, streamed: bool
    ) -> None:
        self.request, self.room, self.streamed = request, room, streamed
        self.keys: Sequence[int] = block_keys(request.prompt.token_ids)
        self.task: asyncio.Task[None] | None = None
        self.shown = False  # the caller has seen a part of this answer, so it can't be made again
        self.has_begun = False  # it is with a server now
        self.expired = False  # its deadline passed
        self.overran = False  # the server gave more than was asked for
        self._tokenizer = tokenizer
        self._limit = min(request.sampling.max_tokens, room)
        self._ended = False
        self._chunks: asyncio.Queue[Chunk | EngineError] = asyncio.Queue()
        self._submitted = time.monotonic()
        self._queued_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.begin_again()

    def expires_in(self, seconds: float) -> None:
        """Ends as ``DeadlineExceeded`` after so long, whatever it is doing."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    @property
    def is_over(self) -> bool:
        return self._ended

    @property
    def has_token(self) -> bool:
        """The server has given some of the answer."""
        return self._first_token_s > 0

    def begin(self) -> None:
        """A server has it; what was before is time in the queue."""
        self.has_begun = True
        if self._queued_s is None:
            self._queued_s = self._age()

    def begin_again(self) -> None:
        """Forget a part of an answer that nobody has seen."""
        self.has_begun = False
        self._stops = StopStrings(self.request.sampling.stop)
        self._text: list[str] = []
        self._ids: list[int] | None = []
        self._logprobs: list[float] = []
        self._pieces = 0  # that had text in them
        self._first_token_s = 0.0
        self._finish: FinishReason | None = None
        self._prompt_tokens = self._cached_tokens = self._output_tokens = 0

    def take(self, piece: Piece) -> bool:
        """The next piece; returns whether the answer is over before the server ends it."""
        self._prompt_tokens = piece.prompt_tokens or self._prompt_tokens
        self._cached_tokens = piece.cached_tokens or self._cached_tokens
        self._output_tokens = piece.output_tokens or self._output_tokens
        self._finish = piece.finish or self._finish
        piece = self._within(piece)
        if (piece.text or piece.ids) and not self._first_token_s:
            self._first_token_s = self._age()
        self._note(piece)
        self._show(self._stops.push(piece.text))
        if self._stops.hit:
            self._finish = "stop"
        return self._stops.hit or self.overran

    @property
    def has_end(self) -> bool:
        """The server, or a stop string, said that the answer is complete."""
        return self._finish is not None

    def end(self, reason: FinishReason | None = None) -> None:
        """Finish: hand out what was held back, then the whole generation."""
        if self._ended:
            return
        self._show(self._stops.flush(), last=True)
        text = "".join(self._text)
        ids, logprobs = self._tokens(text)
        finish = reason or self._finish or "stop"
        self._put(Chunk("", Generation(text, ids, logprobs, finish, self._timings(len(ids)))))

    def fail(self, error: EngineError) -> None:
        """Finish with an error."""
        if not self._ended:
            self._put(error)

    def leave(self) -> None:
        """The caller is gone, with its answer or without."""
        self._ended = True
        if self._timer:
            self._timer.cancel()
        if self.task:
            self.task.cancel()

    async def next_chunk(self) -> Chunk:
        """Wait for the next piece; raises the error that the request ended with."""
        item = await self._chunks.get()
        if isinstance(item, EngineError):
            raise item
        return item

    # --- what the pieces make up -----------------------------------------------------------------

    def _within(self, piece: Piece) -> Piece:
        """The piece, cut where the server gives more tokens than were asked for."""
        if piece.ids is not None and self._ids is not None:
            left = self._limit - len(self._ids)
            if len(piece.ids) <= left:
                return piece
            kept = piece.ids[:left]
            piece = Piece(self._tokenizer.decode(kept), kept, piece.logprobs[:left])
        elif not piece.text or self._pieces < self._limit:
            return piece
        else:
            piece = Piece(ids=piece.ids and ())
        self.overran, self._finish = True, "length"
        return piece

    def _note(self, piece: Piece) -> None:
        self._pieces += bool(piece.text)
        self._logprobs += piece.logprobs
        if piece.ids is None and piece.text:
            self._ids = None  # from now on they are not complete
        elif piece.ids and self._ids is not None:
            self._ids += piece.ids

    def _tokens(self, text: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Ids and log-probabilities as told. Where a server left some out (llama.cpp tells only the
        last id of a character of several), the ids are those of the text, and there are no
        log-probabilities."""
        if self._ids is not None and self._are_all(len(self._ids)):
            complete = len(self._logprobs) == len(self._ids)
            return tuple(self._ids), tuple(self._logprobs) if complete else ()
        return ids_of_text(self._tokenizer, text), ()

    def _are_all(self, count: int) -> bool:
        """The end token is counted by the server, and not always shown."""
        missing = self._output_tokens - count
        return missing <= (1 if self._finish == "stop" else 0)

    def _show(self, text: str, *, last: bool = False) -> None:
        if last:
            text = text.rstrip(UNFINISHED)
        if not text:
            return
        self._text.append(text)
        if self.streamed:
            self.shown = True
            self._chunks.put_nowait(Chunk(text))

    def _put(self, item: Chunk | EngineError) -> None:
        self._ended = True
        if self._timer:
            self._timer.cancel()
        self._chunks.put_nowait(item)

    def _expire(self) -> None:
        self.expired = True
        self.fail(DeadlineExceeded("The request's deadline passed before the server answered."))
        if self.task:
            self.task.cancel()

    def _timings(self, count: int) -> Timings:
        total = self._age()
        return Timings(
            queued_s=total if self._queued_s is None else self._queued_s,
            first_token_s=self._first_token_s if count else 0.0,
            total_s=total,
            prompt_tokens=self._prompt_tokens or len(self.request.prompt.token_ids),
            cached_tokens=self._cached_tokens,
        )

    def _age(self) -> float:
        return time.monotonic() - self._submitted
