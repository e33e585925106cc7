"""Continuous batching: requests join and leave between two steps of the model.

In come replies that wait; they tell their callers themselves when they end. One step is: let go
of who was cancelled, read a bounded piece of the newcomers' prompts (or of a recorded reply that
is to be scored), one more token for everybody. The bound is what neighbours wait at most for
somebody's long prompt. Who is next is said by ``model.waiting``, who reads how much by
``model.readers``, what need not be read again by ``model.prefixes``.
"""

from collections import deque

from torch import Tensor

from model.choosing import choose
from model.engine import EngineUnavailable
from model.prefixes import Held, Kept, best
from model.readers import Reader, shares
from model.reply import Reply
from model.rescoring import Scoring
from model.slots import Slots
from model.waiting import Waiting

SHORT_STEPS = 2  # a prompt is short that is read in so many steps, alone


class Batch:
    """The replies in work. Rows 0 to n-1 of ``slots`` belong to ``rows``, in this order.

    ``limit``: rows at most; ``read_tokens``: prompt tokens read in one step at most;
    ``keep_tokens``: tokens at most that are kept of one that has ended; ``room``: tokens that all
    of them together may come to hold (None: rows are the only bound). Used by one thread alone.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        limit: int,
        end_ids: frozenset[int],
        read_tokens: int,
        keep_tokens: int = 2048,
        room: int | None = None,
    ) -> None:
        self._slots = slots
        self._limit = limit
        self._end_ids = end_ids
        self._read_tokens = read_tokens
        self._room = room
        self.scoring: deque[Scoring] = deque()
        self._waiting: Waiting[Reply] = Waiting()
        self._readers: list[Reader] = []
        self._rows: list[Reply] = []
        self._kept = Kept(slots.kept_rows, keep_tokens)

    def add(self, reply: Reply) -> None:
        """Let a reply wait for its turn."""
        size, priority = len(reply.prompt_ids), reply.request.priority
        self._waiting.add(reply, priority=priority, size=size, need=self._need(reply))

    def step(self) -> None:
        """One step for everybody; whatever it raises, ``broke`` knows whom it concerns."""
        self._let_go()
        self._read_newcomers()
        self._score()
        self._decode()

    def __bool__(self) -> bool:
        return bool(self._waiting or self._readers or self._rows or self.scoring)

    def clear(self) -> list[Reply | Scoring]:
        """Forget everybody and what the rows hold; returns all whom this batch still held."""
        held = [*self.broke(), *self._waiting.all(), *self.scoring]
        self._waiting = Waiting()
        self.scoring.clear()
        return held

    def broke(self) -> list[Reply | Scoring]:
        """A step failed: forget whoever had a part in it, and what the rows hold; returns those.
        Who waits for a row goes on waiting."""
        reading = [reader.reply for reader in self._readers]
        scored = [self.scoring.popleft()] if self.scoring else []
        held: list[Reply | Scoring] = [*self._rows, *reading, *scored]
        self._rows, self._readers = [], []
        self._kept.forget()
        return held

    def works(self) -> bool:
        """Whether the model does at all; asked when nobody has a row."""
        try:
            self._slots.try_out()
        except Exception:
            return False
        return True

    # --- those who leave ------------------------------------------------------------------------

    def _let_go(self) -> None:
        """End those that were cancelled, wherever they are."""
        unwanted = [reply for reply in self._waiting.all() if reply.wanted_end]
        self._waiting.drop(unwanted)
        unwanted += [reader.reply for reader in self._readers if reader.reply.wanted_end]
        self._readers = [reader for reader in self._readers if not reader.reply.wanted_end]
        for reply in unwanted:
            reply.end("cancelled")
        for row in _rows_where([reply.wanted_end for reply in self._rows]):
            self._rows[row].end("cancelled")
            self._leave(row)

    def _leave(self, row: int) -> None:
        """Free a row; the last one moves into its place, so that the rows stay without gaps."""
        self._keep(row)
        # In its new place before anything can raise: whoever is in no row hears of no end.
        last = self._rows.pop()
        if row < len(self._rows):
            self._rows[row] = last
            self._slots.move(len(self._rows), row, last.position)

    def _keep(self, row: int) -> None:
        """Copy what a row holds to where others may find it."""
        held = _held(row, self._rows[row])
        if self._rows[row].failed:
            # What led the model astray is no number, and masked ones of those still spread.
            self._slots.wipe(row, len(held.ids) + 1)
            return
        if kept := self._kept.keep(held.ids, held.weights, held.key):
            self._slots.move(row, kept.row, len(kept.ids))

    # --- those who come -------------------------------------------------------------------------

    def _read_newcomers(self) -> None:
        """Read on in the prompts of those who are next, as far as one step allows."""
        budget = self._read_tokens
        while budget > 0 and self._fill_readers():
            given = shares([reader.reply.unread for reader in self._readers], budget)
            for reader, tokens in zip(list(self._readers), given, strict=True):
                self._read(reader, tokens)
                budget -= tokens

    def _fill_readers(self) -> bool:
        """Give free reading rows to those who are next; returns whether anybody reads. Prompts
        that take many steps never have all of the rows: a short one would wait for them."""
        taken = {reader.row for reader in self._readers}
        for row in self._slots.reading_rows:
            if row not in taken and (reply := self._next(self._longest())):
                self._begin(Reader(reply, row))
        return bool(self._readers)

    def _longest(self) -> int | None:
        """Tokens at most of the next one to read; None: as many as there are."""
        short = SHORT_STEPS * self._read_tokens
        long = sum(len(one.reply.prompt_ids) > short for one in self._readers)
        return short if long >= len(self._slots.reading_rows) - 1 else None

    def _next(self, at_most: int | None) -> Reply | None:
        there = [*self._rows, *(reader.reply for reader in self._readers)]
        if len(there) >= self._limit:
            return None
        needed = sum(self._need(reply) for reply in there)
        room = self._slots.length if self._room is None else self._room - needed
        return self._waiting.take(room, at_most)

    def _need(self, reply: Reply) -> int:
        """Tokens that it may come to hold; never more than there is room for when all is free."""
        wanted = len(reply.prompt_ids) + reply.request.sampling.max_tokens
        return min(wanted, self._slots.length, wanted if self._room is None else self._room)

    def _begin(self, reader: Reader) -> None:
        """Start with what some row holds already."""
        reply = reader.reply
        self._readers.append(reader)
        reply.begin()
        rows = [*(_held(row, reply) for row, reply in enumerate(self._rows)), *self._kept.held()]
        if found := best(rows, reply.prompt_ids, reply.request.adapter):
            row, reply.read = found
            reply.cached = reply.read
            self._slots.move(row, reader.row, reply.read)
            self._kept.used(row)

    def _read(self, reader: Reader, tokens: int) -> None:
        reply = reader.reply
        if not tokens:
            return
        piece = reply.prompt_ids[reply.read : reply.read + tokens]
        self._slots.use([reply.request.adapter])
        logits = self._slots.read(piece, reply.read, reader.row)
        reply.read += len(piece)
        if reply.unread == 0:
            self._readers.remove(reader)
            self._join(reader, logits)

    def _join(self, reader: Reader, logits: Tensor) -> None:
        """Draw the first token; if there are to be more, the newcomer gets the next row."""
        row, reply = len(self._rows), reader.reply
        self._rows.append(reply)
        self._slots.move(reader.row, row, len(reply.prompt_ids))
        if self._take(logits[None], [reply])[0]:
            self._leave(row)

    def _score(self) -> None:
        """A piece of the recorded reply whose turn it is; a small one where others read."""
        tokens = max(1, self._read_tokens // 4) if self._readers else self._read_tokens
        if self.scoring and self.scoring[0].step(self._slots, tokens):
            self.scoring.popleft()

    # --- those who answer -----------------------------------------------------------------------

    def _decode(self) -> None:
        if not self._rows:
            return
        last = [reply.token_ids[-1] for reply in self._rows]
        self._slots.use([reply.request.adapter for reply in self._rows])
        logits = self._slots.decode(last, [reply.position for reply in self._rows])
        for row in _rows_where(self._take(logits, self._rows)):
            self._leave(row)

    def _take(self, logits: Tensor, replies: list[Reply]) -> list[bool]:
        """Give each reply its next token; returns which of them are over."""
        over = []
        for reply, chosen in zip(replies, choose(logits, replies), strict=True):
            if isinstance(chosen, ValueError):
                reply.fail(EngineUnavailable(f"The model went astray: {chosen}"))
                over.append(True)
            else:
                over.append(reply.add(*chosen, self._end_ids))
        return over


def _held(row: int, reply: Reply) -> Held:
    """What a row holds: the last token of a reply is drawn, but not read yet."""
    ids = (*reply.prompt_ids, *reply.token_ids[:-1])
    return Held(row, ids, reply.request.adapter, reply.request.cache_key)


def _rows_where(wanted: list[bool]) -> list[int]:
    """Row numbers, the highest first, so that leaving one does not move another of them."""
    return [row for row in reversed(range(len(wanted))) if wanted[row]]
