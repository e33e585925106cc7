"""A circuit breaker: a server that fails gets no requests for a while, then one as a trial.

closed → (failures in a row) → open → (a pause that doubles) → half open: a look at the server,
then one request → closed, or open again. The clock is passed in.
"""

from collections.abc import Callable
from enum import Enum

FAILURES = 3  # in a row
PAUSE_S = 1.0
LONGEST_S = 60.0


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The state of one server. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._pause = PAUSE_S
        self._until = 0.0
        self.state = State.CLOSED
        self.why = ""  # what the last failure was, in words without anybody's text

    @property
    def is_due(self) -> bool:
        """Open, and the pause is over: somebody should look whether the server is back."""
        return self.state is State.OPEN and self._clock() >= self._until

    def allows(self, outstanding: int) -> bool:
        """Whether one more request may go out; half open, one at a time."""
        if self.state is State.HALF_OPEN:
            return outstanding == 0
        return self.state is State.CLOSED

    def succeeded(self) -> None:
        """An answer came whole."""
        self._failures, self._pause, self.state, self.why = 0, PAUSE_S, State.CLOSED, ""

    def failed(self, why: str, *, at_once: bool = False) -> bool:
        """A request failed, or a look at the server. Returns whether that opened the circuit.

        ``at_once``: one is enough, as it will not mend itself (a key that is refused).
        """
        self._failures += 1
        self.why = why
        if self.state is State.CLOSED and self._failures < FAILURES and not at_once:
            return False
        if self.state is State.OPEN and not self.is_due:
            return False  # of a request that was out already: no news
        was_open, self.state = self.state is State.OPEN, State.OPEN
        self._until = self._clock() + self._pause
        self._pause = min(LONGEST_S, 2 * self._pause)
        return not was_open

    def is_back(self) -> None:
        """A look at the server went well: the next request is the trial."""
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN
