"""Continuous batching: requests join and leave between two steps of the model.

In come replies that wait; they tell their callers themselves when they end. One step is: let go
of who was cancelled, read a bounded piece of the newcomers' prompts (or of a recorded reply that
is to be scored), one more token for everybody. The bound is what neighbours wait at most for
somebody's long prompt.
"""

from collections import deque

from torch import Tensor

from model.engine import EngineUnavailable
from model.reply import Reply
from model.rescoring import Scoring
from model.sampling import draw
from model.slots import Slots


class Batch:
    """The replies in work. Rows 0 to n-1 of ``slots`` belong to ``rows``, in this order.

    ``limit``: rows at most; ``read_tokens``: prompt tokens read in one step at most.
    Used by one thread alone.
    """

    def __init__(
        self, slots: Slots, *, limit: int, end_ids: frozenset[int], read_tokens: int
    ) -> None:
        self._slots = slots
        self._limit = limit
        self._end_ids = end_ids
        self._read_tokens = read_tokens
        self.waiting: deque[Reply] = deque()
        self.scoring: deque[Scoring] = deque()
        self._reading: Reply | None = None
        self._rows: list[Reply] = []

    def step(self) -> None:
        """One step for everybody; whatever it raises, ``clear`` knows whom it concerns."""
        self._let_go()
        self._read_newcomers()
        self._score()
        self._decode()

    def __bool__(self) -> bool:
        return bool(self.waiting or self._reading or self._rows or self.scoring)

    def clear(self) -> list[Reply | Scoring]:
        """Forget everybody; returns all whom this batch still held."""
        held: list[Reply | Scoring] = [*self._rows, *self.waiting, *self.scoring]
        held += [self._reading] if self._reading else []
        self._rows, self._reading = [], None
        self.waiting.clear()
        self.scoring.clear()
        return held

    def _let_go(self) -> None:
        """End those that were cancelled, wherever they are."""
        for reply in [r for r in self.waiting if r.wanted_end]:
            self.waiting.remove(reply)
            reply.end("cancelled")
        if self._reading and self._reading.wanted_end:
            self._reading.end("cancelled")
            self._reading = None
        for row in self._rows_where([reply.wanted_end for reply in self._rows]):
            self._rows[row].end("cancelled")
            self._leave(row)

    def _read_newcomers(self) -> None:
        """Read on in the prompts of those who wait, as far as one step allows."""
        budget = self._read_tokens
        while budget > 0 and (reply := self._next_reader()):
            piece = reply.prompt_ids[reply.read : reply.read + budget]
            self._slots.use([reply.request.adapter])
            logits = self._slots.read(piece, reply.read)
            reply.read += len(piece)
            budget -= len(piece)
            if reply.unread == 0:
                self._reading = None
                self._join(reply, logits)

    def _next_reader(self) -> Reply | None:
        scoring = bool(self.scoring) and self.scoring[0].begun  # it has the reading row
        room = len(self._rows) < self._limit and not scoring
        if self._reading is None and self.waiting and room:
            self._reading = self.waiting.popleft()
            self._reading.begin()
        return self._reading

    def _score(self) -> None:
        """A piece of the recorded reply whose turn it is, where nobody else reads."""
        if (
            self.scoring
            and self._reading is None
            and self.scoring[0].step(self._slots, self._read_tokens)
        ):
            self.scoring.popleft()

    def _join(self, reply: Reply, logits: Tensor) -> None:
        """Draw the first token; if there are to be more, the newcomer gets the next row."""
        row = len(self._rows)
        self._rows.append(reply)
        self._slots.move(self._slots.reading_row, row, len(reply.prompt_ids))
        if self._take(logits[None], [reply])[0]:
            self._leave(row)

    def _decode(self) -> None:
        if not self._rows:
            return
        last = [reply.token_ids[-1] for reply in self._rows]
        self._slots.use([reply.request.adapter for reply in self._rows])
        logits = self._slots.decode(last, [reply.position for reply in self._rows])
        for row in self._rows_where(self._take(logits, self._rows)):
            self._leave(row)

    def _take(self, logits: Tensor, replies: list[Reply]) -> list[bool]:
        """Give each reply its next token; returns which of them are over."""
        best = logits.argmax(dim=-1).tolist()
        total = logits.logsumexp(dim=-1).tolist()
        over = []
        for n, reply in enumerate(replies):
            try:
                token = best[n] if _greedy(reply) else _drawn(logits[n], reply)
            except ValueError as error:
                reply.fail(EngineUnavailable(f"The model went astray: {error}"))
                over.append(True)
                continue
            over.append(reply.add(token, float(logits[n, token]) - total[n], self._end_ids))
        return over

    def _rows_where(self, wanted: list[bool]) -> list[int]:
        """Row numbers, the highest first, so that leaving one does not move another of them."""
        return [row for row in reversed(range(len(wanted))) if wanted[row]]

    def _leave(self, row: int) -> None:
        """Free a row; the last one moves into its place, so that the rows stay without gaps."""
        last = self._rows.pop()
        if row < len(self._rows):
            self._slots.move(len(self._rows), row, last.position)
            self._rows[row] = last


def _greedy(reply: Reply) -> bool:
    sampling = reply.request.sampling
    return sampling.temperature == 0 and sampling.repetition_penalty == 1


def _drawn(logits: Tensor, reply: Reply) -> int:
    sampling = reply.request.sampling
    seen = reply.seen() if sampling.repetition_penalty != 1 else ()
    return draw(logits.cpu().numpy(), sampling, len(reply.token_ids), seen)
