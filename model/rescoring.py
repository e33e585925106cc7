"""One recorded reply on its way through an engine's batch, to be scored.

In come prompt, recorded reply and sampling; the batch gives it the reading row, one bounded
piece after the other between the steps of those who answer; out comes a ``Score``, through
``done``. It holds no row of those who answer, and nobody waits for it longer than for a piece.
"""

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING

from model.engine import EngineError, EngineUnavailable, Sampling, Score
from model.scoring import Scorer, Tolerance

if TYPE_CHECKING:  # torch loads in the engine's thread alone
    from model.slots import Slots

_JUDGED = 32  # recorded tokens in one piece: each is drawn anew, some milliseconds on a CPU


class Scoring:
    """One reply to score. Made by the caller, then used by one thread; ``done`` always ends."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        output_ids: Sequence[int],
        sampling: Sampling,
        tolerance: Tolerance,
        adapter: str | None = None,
    ) -> None:
        self._adapter = adapter
        self.done: Future[Score] = Future()
        # The logits behind the last token say nothing about the reply: it is not read.
        self._ids = [*prompt_ids, *output_ids[:-1]]
        self._first = len(prompt_ids) - 1  # the first token was drawn from the logits here
        self._read = 0
        self._scorer = Scorer(prompt_ids, output_ids, sampling, tolerance)

    @property
    def begun(self) -> bool:
        """Whether the reading row holds a piece of it."""
        return self._read > 0

    def step(self, slots: "Slots", tokens: int) -> bool:
        """Read and judge the next piece, ``tokens`` at most; returns whether it is over."""
        if self.done.cancelled():
            return True
        try:
            self._step(slots, tokens)
        except ValueError as error:
            self.fail(EngineUnavailable(f"The model went astray: {error}"))
        if self._read == len(self._ids) and not self.done.done():
            self._end(self._scorer.score())
        return self.done.done()

    def fail(self, error: EngineError) -> None:
        """Finish with an error."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)

    def _step(self, slots: "Slots", tokens: int) -> None:
        judging = self._read >= self._first
        tokens = min(tokens, _JUDGED if judging else self._first - self._read)
        piece = self._ids[self._read : self._read + tokens]
        slots.use([self._adapter])
        logits = slots.read(piece, self._read, every=judging)
        self._read += len(piece)
        if judging:
            for row in logits.cpu().numpy():
                self._scorer.add(row)

    def _end(self, score: Score) -> None:
        with suppress(InvalidStateError):  # cancelled just now
            self.done.set_result(score)
