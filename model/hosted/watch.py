"""Is a process that lives also at work? Told by its pulses alone.

A look is taken at regular times; the engine stands still where so many looks in a row found no
pulse since the last one, or found work and no step of the model. Looks are counted rather than
seconds: when our own process was stopped for a while, its pulses lie unread, and that must
not count against it more than once. A model on the disk, or a large one on a processor, takes
minutes for a step: it gets many times as long as its slowest step took.
"""

LOOKS = 6  # in a row, all without news
SLOWEST = 20  # a warm-up reads 16 tokens, a step hundreds


class Watch:
    """One look every ``interval_s`` seconds, so that ``patience_s`` or more pass until the
    verdict."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._pulses = self._steps = 0
        self._counted: int | None = None
        self._silent = self._idle = 0

    @property
    def interval_s(self) -> float:
        return self._patience_s / LOOKS

    def pulse(self, steps: int | None, slowest_s: float = 0.0) -> None:
        """A pulse came in; ``steps``: passes of the model so far, None where it knows of none;
        ``slowest_s``: of those, the slowest."""
        self._patience_s = max(self._patience_s, SLOWEST * slowest_s)
        self._pulses += 1
        if steps is None or steps != self._counted:
            self._steps += 1
        self._counted = steps

    def look(self, *, at_work: bool) -> str | None:
        """What is wrong, if so. ``at_work``: it has something to do."""
        self._silent = 0 if self._pulses else self._silent + 1
        self._idle = 0 if self._steps or not at_work else self._idle + 1
        self._pulses = self._steps = 0
        if self._silent >= LOOKS:
            return "it does not answer"
        if self._idle >= LOOKS:
            return "its model stands still"
        return None
