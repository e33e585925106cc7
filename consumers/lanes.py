"""Lanes: records that must be handled one after another, beside thousands of others.

In comes (lane, item); out come items whose lane is idle, lanes in the order in which they
became ready. One queue per lane, so strangers never block each other as they would with
hashed lanes. Nothing here waits: the worker asks ``take`` whenever it has a free slot.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Lanes(Generic[K, T]):
    """Queues by lane. A lane is busy from ``take`` until ``done`` or ``put_back``."""

    def __init__(self) -> None:
        self._queues: dict[K, deque[T]] = {}
        self._ready: deque[K] = deque()
        self._busy: set[K] = set()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Items not taken yet, over all lanes."""
        return self._waiting

    @property
    def busy(self) -> int:
        """Lanes with an item taken and not done."""
        return len(self._busy)

    def put(self, lane: K, item: T) -> None:
        """Append an item to its lane."""
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = deque()
            if lane not in self._busy:
                self._ready.append(lane)
        queue.append(item)
        self._waiting += 1

    def take(self) -> tuple[K, T] | None:
        """The head of the lane that has been ready longest, or None; the lane is busy now."""
        if not self._ready:
            return None
        lane = self._ready.popleft()
        queue = self._queues[lane]
        item = queue.popleft()
        if not queue:
            del self._queues[lane]
        self._busy.add(lane)
        self._waiting -= 1
        return lane, item

    def done(self, lane: K) -> None:
        """The item taken from this lane is finished: its next one may start."""
        self._busy.remove(lane)
        if lane in self._queues:
            self._ready.append(lane)

    def put_back(self, lane: K, item: T) -> None:
        """The item taken from this lane has to run again, before all others of its lane."""
        self._busy.remove(lane)
        self._queues.setdefault(lane, deque()).appendleft(item)
        self._ready.append(lane)
        self._waiting += 1

    def drop(self, unwanted: Callable[[K], bool]) -> int:
        """Forget what waits in the lanes that ``unwanted`` names; how many items that were.

        Busy lanes stay busy until they are done.
        """
        lanes = [lane for lane in self._queues if unwanted(lane)]
        dropped = sum(len(self._queues.pop(lane)) for lane in lanes)
        self._ready = deque(lane for lane in self._ready if lane in self._queues)
        self._waiting -= dropped
        return dropped
