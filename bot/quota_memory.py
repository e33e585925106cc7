"""Counts of the ``limits`` library in this process's memory, bounded and quick.

It keeps the interface of the library's storages, so quotas can't tell it from a Redis. The
library's own memory looks through every key again and again and never forgets one that is in
use; this one takes the same few microseconds whatever it holds, and lets the key go that was
unused for the longest. The window is the library's sliding window counter: the count of this
window, and that of the one before weighted by how much of it still lies in the window's length.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from limits.aio.storage import SlidingWindowCounterSupport, Storage


@dataclass(slots=True)
class _Window:
    """Two windows that follow each other; ``end``: when the current one ends, in seconds."""

    end: float
    current: int = 0
    previous: int = 0

    def move(self, now: float, length: int) -> None:
        """Let the time be ``now``: windows that have passed move along."""
        if now < self.end:
            return
        passed = int((now - self.end) // length) + 1
        self.previous = self.current if passed == 1 else 0
        self.current = 0
        self.end += passed * length

    def weighted(self, now: float, length: int) -> int:
        """What counts at ``now``."""
        return int(self.previous * max(0.0, self.end - now) / length) + self.current


class BoundedMemory(Storage, SlidingWindowCounterSupport):
    """At most ``keys`` windows and as many counters; ``now`` is the clock, in seconds."""

    STORAGE_SCHEME = None  # made by hand, not from an address

    def __init__(self, keys: int, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._keys = keys
        self._now = now
        self._windows: OrderedDict[tuple[str, int], _Window] = OrderedDict()
        self._counters: OrderedDict[str, tuple[int, float]] = OrderedDict()  # with their end

    @property
    def base_exceptions(self) -> type[Exception]:
        """Nothing that it does can fail."""
        return ValueError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """One more on a counter that starts anew ``expiry`` seconds after its first."""
        now = self._now()
        count, end = self._counters.get(key, (0, 0.0))
        if end <= now:
            count, end = 0, now + expiry
        self._counters[key] = count + amount, end
        self._counters.move_to_end(key)
        if len(self._counters) > self._keys:
            self._counters.popitem(last=False)
        return count + amount

    async def get(self, key: str) -> int:
        count, end = self._counters.get(key, (0, 0.0))
        return count if end > self._now() else 0

    async def get_expiry(self, key: str) -> float:
        """When the counter starts anew."""
        return self._counters.get(key, (0, self._now()))[1]

    async def clear(self, key: str) -> None:
        self._counters.pop(key, None)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        """Forget everything; says how much there was."""
        count = len(self._windows) + len(self._counters)
        self._windows.clear()
        self._counters.clear()
        return count

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count ``amount`` more, if that is not over ``limit`` within ``expiry`` seconds."""
        now = self._now()
        window = self._window(key, expiry, now)
        if window is None:
            window = self._windows[key, expiry] = _Window(now + expiry)
            if len(self._windows) > self._keys:
                self._windows.popitem(last=False)
        if window.weighted(now, expiry) + amount > limit:
            return False
        window.current += amount
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the previous window, and of the current one."""
        now = self._now()
        window = self._window(key, expiry, now)
        if window is None:
            return 0, 0.0, 0, 0.0
        left = window.end - now
        return window.previous, left if window.previous else 0.0, window.current, left + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._windows.pop((key, expiry), None)

    def _window(self, key: str, expiry: int, now: float) -> _Window | None:
        """The window as it is now; asking keeps it, so that whoever is refused stays refused."""
        window = self._windows.get((key, expiry))
        if window is not None:
            window.move(now, expiry)
            self._windows.move_to_end((key, expiry))
        return window
