"""When to start a process again that has died: soon at first, and ever more seldom.

Exponential back-off with full jitter (Marc Brooker, "Exponential Backoff And Jitter", 2015):
many workers whose GPUs failed together do not start again together. Pure; the clock and the dice
are passed in. The clock is the time that the process was up: starts that fail are failures in a
row, however slowly they do so.
"""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Seconds. ``failures`` within ``window_s`` of being up mean that it keeps failing: from then
    on it is tried only every ``slow_s`` or so."""

    first_s: float = 0.5
    most_s: float = 15.0
    failures: int = 5
    window_s: float = 300.0
    slow_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """How long to wait, in seconds, and whether it ``keeps_failing``."""

    seconds: float
    keeps_failing: bool


class Restarts:
    """Remembers the failures of one process."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failed: deque[float] = deque(maxlen=policy.failures)

    def after(self, lived: float, chance: float) -> Pause:
        """It failed after ``lived`` seconds of being up in all its lives; ``chance`` is drawn from
        [0, 1)."""
        policy = self._policy
        while self._failed and self._failed[0] <= lived - policy.window_s:
            self._failed.popleft()
        self._failed.append(lived)
        if len(self._failed) >= policy.failures:
            return Pause(policy.slow_s * (0.5 + chance / 2), True)
        most = min(policy.most_s, policy.first_s * 2 ** len(self._failed))
        return Pause(most * chance, False)
