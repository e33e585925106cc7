"""Records of the log by their places, read in as few stretches as it takes.

In: a ``Log`` (``consumers.reader.RangeReader``, in tests a list) and places. Out: the records that
are there. Guaranteed: nothing is joined, committed or written. A place that the log does not hold
is left out; ``Held`` tells why. Next: ``bot/replay/plan.py``, ``run.py`` and ``snapshots.py``.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Protocol

from bot.observe import Position
from consumers.errors import RangeGone, TopicMissing
from consumers.reader import Bound, Range
from schemas.record import Record
from schemas.replays import NotReplayed

GAP = 1000
"""Records that are read and thrown away sooner than that the reader seeks once more."""


class Log(Protocol):
    """What is needed of ``consumers.reader.RangeReader``."""

    def read(self, span: Range) -> AsyncIterator[Record]: ...

    async def bounds(self, span: Range) -> dict[int, tuple[int, int]]: ...


class Held:
    """What the log holds, asked once for each topic: first and next offset by partition."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._bounds: dict[str, Mapping[int, tuple[int, int]]] = {}

    async def bounds(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Empty partitions are left out; nothing where the topic is missing."""
        if topic not in self._bounds:
            try:
                self._bounds[topic] = await self._log.bounds(Range(topic))
            except TopicMissing:
                self._bounds[topic] = {}
        return self._bounds[topic]

    def forget(self, topic: str) -> None:
        """Ask again: some of it was removed meanwhile."""
        self._bounds.pop(topic, None)

    async def why_gone(self, place: Position) -> NotReplayed:
        """Why there is no record at a place that had one."""
        first, _ = (await self.bounds(place.topic)).get(place.partition, (None, None))
        expired = first is not None and place.offset < first
        return NotReplayed.BEYOND_RETENTION if expired else NotReplayed.ORIGINAL_GONE


async def fetch(log: Log, held: Held, places: Iterable[Position]) -> dict[Position, Record]:
    """The records at those places that the log still holds."""
    found: dict[Position, Record] = {}
    for place, offsets in _by_partition(places).items():
        for first, last in runs(offsets):
            async for record in read(log, held, place, first, last + 1):
                if record.offset in offsets:
                    found[Position.of(record)] = record
    return found


async def read(
    log: Log, held: Held, place: tuple[str, int], start: int, end: int
) -> AsyncIterator[Record]:
    """What the log holds of one partition from ``start`` to before ``end``, also where the
    beginning of it is removed at this moment."""
    topic, partition = place
    while True:
        first, behind = (await held.bounds(topic)).get(partition, (0, 0))
        begin, stop = max(start, first), min(end, behind)
        if begin >= stop:
            return
        span = Range(topic, (partition,), Bound({partition: begin}), Bound({partition: stop}))
        try:
            async for record in log.read(span):
                yield record
        except RangeGone:  # before the first record, or never
            held.forget(topic)
            continue
        return


def runs(offsets: Iterable[int], gap: int = GAP) -> Iterator[tuple[int, int]]:
    """First and last of each run of offsets that stand no further than ``gap`` apart."""
    first = last = None
    for offset in sorted(offsets):
        if first is None or last is None:
            first = offset
        elif offset - last > gap:
            yield first, last
            first = offset
        last = offset
    if first is not None and last is not None:
        yield first, last


def _by_partition(places: Iterable[Position]) -> Mapping[tuple[str, int], set[int]]:
    sorted_out: dict[tuple[str, int], set[int]] = defaultdict(set)
    for place in places:
        sorted_out[place.topic, place.partition].add(place.offset)
    return sorted_out
