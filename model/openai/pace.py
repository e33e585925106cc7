"""How many requests one server gets at once: down quickly when it has too much, up slowly.

Additive increase, multiplicative decrease, as TCP does (Jacobson 1988), told by the server's own
queue where it shows one, else by 429 and 503. A pause that the server asks for (``Retry-After``)
is kept. The clock is passed in.
"""

import math
from collections.abc import Callable

LESS = 0.7  # of what was out, when the server says that it is too much
AT_HAND = 1 / 8  # of what a server works on may wait there
SETTLE_S = 1.0  # one piece of news of too much counts once, not per request that it hit


class Pace:
    """``most``: never more than so many requests at once."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = most, clock
        self._limit = float(most)
        self._settled = 0.0
        self._resume = 0.0

    @property
    def limit(self) -> int:
        """Most requests at once, now; 0 in a pause."""
        return 0 if self._clock() < self._resume else max(1, int(self._limit))

    @property
    def resume(self) -> float:
        """When the pause is over, by the clock; in the past where there is none."""
        return self._resume

    def too_much(self, outstanding: int, retry_after: float | None = None) -> None:
        """The server refused a request because it has too many."""
        now = self._clock()
        if retry_after:
            self._resume = max(self._resume, now + retry_after)
        if now >= self._settled:
            self._settled = now + SETTLE_S
            self._limit = max(1.0, min(self._limit, outstanding) * LESS)

    def queue(self, waiting: int, running: int, outstanding: int) -> None:
        """What the server says of its own queue: ``waiting`` requests have no slot there yet, and
        ``running`` have one; ``outstanding`` of all those are from here.

        What waits there could as well wait here, where a direct message may overtake it. A few
        may stay, so that the server has work at hand; others send theirs, and take theirs back.
        """
        too_many = waiting - running * AT_HAND
        if waiting > 0 and too_many > 0:
            ours = min(1.0, outstanding / (waiting + running))
            self._limit = max(1.0, min(self._limit, outstanding - math.ceil(too_many * ours)))
        elif waiting == 0 and outstanding >= int(self._limit):
            self._grow(1.0)

    def went_well(self) -> None:
        """A request was answered: one more for each round of as many as are allowed."""
        self._grow(1.0 / max(1.0, self._limit))

    def _grow(self, by: float) -> None:
        self._limit = min(float(self._most), self._limit + by)
