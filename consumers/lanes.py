"""Lanes: records that must be handled one after another, beside thousands of others.

In comes (lane, item, share); out come items whose lane is idle, in a fair order. One queue
per lane, so strangers never block each other as they would with hashed lanes. Nothing here
waits: the worker asks ``take`` whenever it has a free slot.

Fair means two things:

- **Classes** (topics) share by weight: stride scheduling (Waldspurger and Weihl, 1995).
- Inside a class, **flows** (authors, threads) share alike: start-time fair queueing (Goyal,
  Vin and Cheng, 1996). An item starts at the latest finish of its flows, so the tenth item
  of one author stands behind the first of nine others, whenever they come.

A priority moves an item forward by at most ``priority_bound`` units of cost, so it can
overtake, and starve nobody.
"""

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """Whose share of the worker an item uses up.

    ``flows`` are (name, cost): a flow of cost 1/4 may have four times the items of one of
    cost 1. The first is the one that ``Lanes.flows`` counts. ``priority`` is 0 to 1.
    """

    flows: tuple[tuple[Hashable, float], ...] = ()
    priority: float = 0.0


NO_SHARE = Share()
_SWEEP_FROM = 4096  # flows remembered before the first look for those that are over


@dataclass(slots=True)
class _Class(Generic[K]):
    """One topic's ready lanes and its two clocks."""

    stride: float
    ready: list[tuple[float, int, K]] = field(default_factory=list)  # heap: tag, order, lane
    virtual: float = 0.0  # where a newcomer's item starts
    passed: float = 0.0  # stride scheduling's pass
    finish: dict[Hashable, float] = field(default_factory=dict)  # flow: where its last item ends
    flows: Counter[Hashable] = field(default_factory=Counter)  # first flows that wait
    sweep_at: int = _SWEEP_FROM


@dataclass(slots=True)
class _Queued(Generic[T]):
    item: T
    share: Share
    flow: Hashable  # whose it is: its first flow, else its lane
    tag: float
    order: int


class Lanes(Generic[K, T]):
    """Queues by lane. A lane is busy from ``take`` until ``done`` or ``put_back``.

    ``class_of`` names a lane's class and ``weights`` the classes' weights (1 if not named).
    """

    def __init__(
        self,
        class_of: Callable[[K], Hashable] = lambda lane: None,
        weights: Mapping[str, float] | None = None,
        priority_bound: float = 8.0,
    ) -> None:
        self._class_of = class_of
        self._weights: Mapping[Any, float] = weights or {}
        self._bound = priority_bound
        self._classes: dict[Hashable, _Class[K]] = {}
        self._queues: dict[K, deque[_Queued[T]]] = {}
        self._busy: dict[K, _Queued[T]] = {}
        self._orders = itertools.count()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Items not taken yet, over all lanes."""
        return self._waiting

    @property
    def flows(self) -> int:
        """How many different first flows (else lanes) wait: 1 where all is one author's."""
        return sum(len(group.flows) for group in self._classes.values())

    @property
    def busy(self) -> int:
        """Lanes with an item taken and not done."""
        return len(self._busy)

    @property
    def lanes(self) -> int:
        """Lanes with something waiting."""
        return len(self._queues)

    @property
    def ready(self) -> int:
        """Items that wait for a slot only; all others wait for their lane."""
        return sum(len(group.ready) for group in self._classes.values())

    @property
    def deepest(self) -> int:
        """Items waiting in the fullest lane."""
        return max(map(len, self._queues.values()), default=0)

    def put(self, lane: K, item: T, share: Share = NO_SHARE) -> bool:
        """Append an item to its lane; True where it waits for a slot only."""
        group = self._class(lane)
        flow = share.flows[0][0] if share.flows else lane
        queued = _Queued(item, share, flow, self._tag(group, share), next(self._orders))
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = deque()
        queue.append(queued)
        self._count(group, queued, 1)
        ready = len(queue) == 1 and lane not in self._busy
        if ready:
            self._make_ready(lane, group)
        return ready

    def take(self) -> tuple[K, T] | None:
        """The item whose turn it is, or None; its lane is busy now."""
        group = self._next_class()
        if group is None:
            return None
        _, _, lane = heapq.heappop(group.ready)
        group.passed += group.stride
        queue = self._queues[lane]
        queued = queue.popleft()
        if not queue:
            del self._queues[lane]
        # The clock of fair queueing: one unit of service, shared by all flows that wait.
        group.virtual = max(group.virtual, queued.tag) + 1.0 / max(1, len(group.flows))
        self._busy[lane] = queued
        self._count(group, queued, -1)
        return lane, queued.item

    def done(self, lane: K) -> T | None:
        """The item taken from this lane is finished: its next one, if any, may start."""
        del self._busy[lane]
        queue = self._queues.get(lane)
        if not queue:
            return None
        self._make_ready(lane, self._class(lane))
        return queue[0].item

    def put_back(self, lane: K) -> None:
        """The item taken from this lane has to run again, before all others of its lane."""
        queued = self._busy.pop(lane)
        self._queues.setdefault(lane, deque()).appendleft(queued)
        self._count(self._class(lane), queued, 1)
        self._make_ready(lane, self._class(lane))

    def drop(self, unwanted: Callable[[K], bool]) -> list[T]:
        """Forget what waits in the lanes that ``unwanted`` names, and return it.

        Busy lanes stay busy until they are done.
        """
        lanes = [lane for lane in self._queues if unwanted(lane)]
        dropped = []
        for lane in lanes:
            for queued in self._queues.pop(lane):
                self._count(self._class(lane), queued, -1)
                dropped.append(queued.item)
        for group in self._classes.values():
            group.ready = [entry for entry in group.ready if entry[2] in self._queues]
            heapq.heapify(group.ready)
        return dropped

    def _class(self, lane: K) -> _Class[K]:
        name = self._class_of(lane)
        if name not in self._classes:
            self._classes[name] = _Class(stride=1.0 / self._weights.get(name, 1.0))
        return self._classes[name]

    def _next_class(self) -> _Class[K] | None:
        """Of those with a ready lane, the one furthest behind its weight."""
        chosen = None
        for group in self._classes.values():
            if group.ready and (chosen is None or group.passed < chosen.passed):
                chosen = group
        return chosen

    def _tag(self, group: _Class[K], share: Share) -> float:
        """Where the item starts on its class's virtual clock; its flows end later from now."""
        if not share.flows:
            return group.virtual
        finish = group.finish
        start = max((finish.get(name, 0.0) for name, _ in share.flows), default=0.0)
        start = max(start, group.virtual)
        for name, cost in share.flows:
            finish[name] = start + cost
        if len(finish) >= group.sweep_at:
            group.finish = {name: end for name, end in finish.items() if end > group.virtual}
            group.sweep_at = max(_SWEEP_FROM, 2 * len(group.finish))
        return start

    def _make_ready(self, lane: K, group: _Class[K]) -> None:
        if not group.ready:
            # A class that was idle must not claim the turns it did not use.
            active = [other.passed for other in self._classes.values() if other.ready]
            group.passed = max(group.passed, min(active, default=group.passed))
        head = self._queues[lane][0]
        key = head.tag - self._bound * head.share.priority
        heapq.heappush(group.ready, (key, head.order, lane))

    def _count(self, group: _Class[K], queued: _Queued[T], by: int) -> None:
        self._waiting += by
        group.flows[queued.flow] += by
        if not group.flows[queued.flow]:
            del group.flows[queued.flow]
