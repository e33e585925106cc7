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
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from schemas.value import value

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@value
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
class _Class(Generic[K, T]):
    """One topic's ready lanes and its two clocks."""

    stride: float
    # A heap of the heads of idle lanes: key, order, lane, head.
    ready: list[tuple[float, int, "_Lane[K, T]", "_Queued[T]"]] = field(default_factory=list)
    virtual: float = 0.0  # where a newcomer's item starts
    passed: float = 0.0  # stride scheduling's pass
    finish: dict[Hashable, float] = field(default_factory=dict)  # flow: where its last item ends
    flows: dict[Hashable, int] = field(default_factory=dict)  # first flows that wait: how often
    waiting: int = 0
    sweep_at: int = _SWEEP_FROM


@dataclass(slots=True, eq=False)
class _Queued(Generic[T]):
    """An item in its lane; a chain, since most lanes have one item and no use for a deque."""

    item: T
    flow: Hashable  # whose it is: its first flow, else its lane
    tag: float
    key: float  # the tag, moved forward by the item's priority
    order: int
    next: "_Queued[T] | None" = None


@dataclass(slots=True, eq=False)
class _Lane(Generic[K, T]):
    """What waits, and the item that was taken and is not done."""

    name: K
    group: _Class[K, T]
    head: _Queued[T] | None = None
    tail: _Queued[T] | None = None
    busy: _Queued[T] | None = None


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
        self._classes: dict[Hashable, _Class[K, T]] = {}
        self._lanes: dict[K, _Lane[K, T]] = {}  # those with an item, waiting or taken
        self._orders = itertools.count()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Items not taken yet, over all lanes."""
        return self._waiting

    @property
    def flows(self) -> int:
        """How many different first flows (else lanes) wait: 1 where all is one author's."""
        return self.flows_but(())

    def flows_but(self, classes: Collection[Hashable]) -> int:
        """The same, without what waits in these classes."""
        groups = self._classes.items()
        return sum(len(group.flows) for name, group in groups if name not in classes)

    def waiting_but(self, classes: Collection[Hashable]) -> int:
        """Items not taken yet, without those of these classes."""
        return sum(g.waiting for name, g in self._classes.items() if name not in classes)

    @property
    def busy(self) -> int:
        """Lanes with an item taken and not done."""
        return sum(lane.busy is not None for lane in self._lanes.values())

    @property
    def lanes(self) -> int:
        """Lanes with something waiting."""
        return sum(lane.head is not None for lane in self._lanes.values())

    @property
    def ready(self) -> int:
        """Items that wait for a slot only; all others wait for their lane."""
        return sum(len(group.ready) for group in self._classes.values())

    @property
    def deepest(self) -> int:
        """Items waiting in the fullest lane."""
        return max((sum(1 for _ in _chain(lane)) for lane in self._lanes.values()), default=0)

    def put(self, name: K, item: T, share: Share = NO_SHARE) -> bool:
        """Append an item to its lane; True where it waits for a slot only."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._class(name))
        group = lane.group
        flow = share.flows[0][0] if share.flows else name
        tag = self._tag(group, share) if share.flows else group.virtual
        key = tag - self._bound * share.priority
        queued = _Queued(item, flow, tag, key, next(self._orders))
        group.flows[flow] = group.flows.get(flow, 0) + 1
        group.waiting += 1
        self._waiting += 1
        if lane.tail is not None:
            lane.tail.next = queued
            lane.tail = queued
            return False
        lane.head = lane.tail = queued
        if lane.busy is not None:
            return False
        self._make_ready(lane, queued)
        return True

    def take(self) -> tuple[K, T] | None:
        """The item whose turn it is, or None; its lane is busy now."""
        group = self._next_class()
        if group is None:
            return None
        _, _, lane, queued = heapq.heappop(group.ready)
        group.passed += group.stride
        lane.busy, lane.head = queued, queued.next
        if lane.head is None:
            lane.tail = None
        # The clock of fair queueing: one unit of service, shared by all flows that wait.
        group.virtual = max(group.virtual, queued.tag) + 1.0 / len(group.flows)
        self._leaves(group, queued)
        return lane.name, queued.item

    def done(self, name: K) -> T | None:
        """The item taken from this lane is finished: its next one, if any, may start."""
        lane = self._lanes[name]
        lane.busy = None
        if lane.head is None:
            del self._lanes[name]
            return None
        self._make_ready(lane, lane.head)
        return lane.head.item

    def taken(self, name: K) -> T | None:
        """The item taken from this lane and not done, if any."""
        lane = self._lanes.get(name)
        return lane.busy.item if lane is not None and lane.busy is not None else None

    def behind(self, name: K) -> list[T]:
        """What waits in this lane, in order, without the item that was taken."""
        lane = self._lanes.get(name)
        return [queued.item for queued in _chain(lane)] if lane is not None else []

    def put_back(self, name: K) -> None:
        """The item taken from this lane has to run again, before all others of its lane."""
        lane = self._lanes[name]
        queued, lane.busy = lane.busy, None
        if queued is None:
            raise KeyError(name)
        queued.next = lane.head
        lane.head = queued
        lane.tail = lane.tail or queued
        flows = lane.group.flows
        flows[queued.flow] = flows.get(queued.flow, 0) + 1
        lane.group.waiting += 1
        self._waiting += 1
        self._make_ready(lane, queued)

    def drop(self, unwanted: Callable[[K], bool]) -> list[T]:
        """Forget what waits in the lanes that ``unwanted`` names, and return it.

        Busy lanes stay busy until they are done.
        """
        dropped = []
        for lane in [lane for name, lane in self._lanes.items() if unwanted(name)]:
            for queued in _chain(lane):
                self._leaves(lane.group, queued)
                dropped.append(queued.item)
            lane.head = lane.tail = None
            if lane.busy is None:
                del self._lanes[lane.name]
        for group in self._classes.values():
            group.ready = [entry for entry in group.ready if entry[2].head is not None]
            heapq.heapify(group.ready)
        return dropped

    def _leaves(self, group: _Class[K, T], queued: _Queued[T]) -> None:
        """It does not wait any more."""
        self._waiting -= 1
        group.waiting -= 1
        left = group.flows[queued.flow] - 1
        if left:
            group.flows[queued.flow] = left
        else:
            del group.flows[queued.flow]

    def _class(self, name: K) -> _Class[K, T]:
        found = self._class_of(name)
        group = self._classes.get(found)
        if group is None:
            group = _Class(stride=1.0 / self._weights.get(found, 1.0))
            self._classes[found] = group
        return group

    def _next_class(self) -> _Class[K, T] | None:
        """Of those with a ready lane, the one furthest behind its weight."""
        chosen = None
        for group in self._classes.values():
            if group.ready and (chosen is None or group.passed < chosen.passed):
                chosen = group
        return chosen

    def _tag(self, group: _Class[K, T], share: Share) -> float:
        """Where the item starts on its class's virtual clock; its flows end later from now."""
        finish = group.finish
        start = max(finish.get(name, 0.0) for name, _ in share.flows)
        start = max(start, group.virtual)
        for name, cost in share.flows:
            finish[name] = start + cost
        if len(finish) >= group.sweep_at:
            group.finish = {name: end for name, end in finish.items() if end > group.virtual}
            group.sweep_at = max(_SWEEP_FROM, 2 * len(group.finish))
        return start

    def _make_ready(self, lane: _Lane[K, T], head: _Queued[T]) -> None:
        group = lane.group
        if not group.ready:
            # A class that was idle must not claim the turns it did not use.
            active = [other.passed for other in self._classes.values() if other.ready]
            group.passed = max(group.passed, min(active, default=group.passed))
        heapq.heappush(group.ready, (head.key, head.order, lane, head))


def _chain(lane: _Lane[K, T]) -> Iterator[_Queued[T]]:
    """What waits in a lane, in order."""
    queued = lane.head
    while queued is not None:
        yield queued
        queued = queued.next
