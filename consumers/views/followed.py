"""One view of one partition while it is followed: how far it is, and what it still has to see.

In: records in offset order, and the consumer's position behind them. Out: those that the store
must apply. Guaranteed: no record twice, none left out, and a log that is not the one the file
was made of is noticed before anything of it is applied. ``consumers/views/follow.py`` drives it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import TopicPartition

from consumers.views.store import Last, Store, Why
from schemas.record import Record

_DAY_MS = 24 * 3600 * 1000
_AGAIN_S = 5.0  # between two looks at age and size


class OtherLog(Exception):
    """The log is not the one that the file was made of (recreated, or records lost)."""


@dataclass(frozen=True, slots=True)
class News:
    """What readers of a view need to know; made anew whenever something moved.

    ``generation`` grows when the file was begun anew, so connections must be opened again.
    ``positions``: next offset by ``topic/partition``. ``as_of_ms``: everything committed before
    that time, on this machine's clock, is in the rows.
    """

    path: Path
    generation: int
    ready: bool
    positions: Mapping[str, int]
    as_of_ms: int
    lag_records: int
    used_bytes: int


@dataclass(eq=False)
class Followed:
    """Belongs to the loop of its ``Follower``. ``limits``: apply nothing from there on."""

    store: Store
    sources: tuple[TopicPartition, ...]
    limits: Mapping[TopicPartition, int] = field(default_factory=dict)
    begin: Mapping[TopicPartition, int] = field(default_factory=dict)
    ready: bool = False
    arranged: bool = False  # the consumer reads for it
    asked_ms: int = 0  # when the end was looked for that it has, or is to reach
    generation: int = 0
    anew: Why | None = None  # why the file is to be begun anew
    next: dict[TopicPartition, int] = field(default_factory=dict)
    as_of: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)  # as last heard
    probes: list[tuple[int, dict[TopicPartition, int]]] = field(default_factory=list)
    probe_wanted: bool = False
    used_bytes: int = 0
    look_at: float = 0.0  # when to look at age and size, on the monotonic clock
    shrinking: bool = False
    step_ms: int = 1  # of time to forget at once, where the file is too large
    _expected: dict[TopicPartition, Last] = field(default_factory=dict)

    def place(self, firsts: Mapping[TopicPartition, int]) -> None:
        """Stand where the store ends. ``firsts``: what the log begins with now.

        One record earlier, where the log still has it: it must be the one that was applied last.
        """
        self.next = {source: self.store.positions[source].next for source in self.sources}
        self._expected = {}
        for source in self.sources:
            last = self.store.positions[source].last
            if last is not None and last.offset >= firsts[source]:
                self._expected[source] = last
        self.as_of = dict.fromkeys(self.sources, 0)
        self.ends = {}
        self.probes = []

    def displace(self, why: Why) -> None:
        """It stands nowhere until its file was begun anew."""
        self.ready = self.arranged = False
        self.generation += 1
        self.anew = why
        self.next, self.as_of, self.ends, self._expected, self.probes = {}, {}, {}, {}, []

    def start(self, source: TopicPartition) -> int:
        """Where the consumer must read from."""
        expected = self._expected.get(source)
        return self.next[source] if expected is None else expected.offset

    def wants(
        self, source: TopicPartition, records: Sequence[Record], position: int
    ) -> Sequence[Record]:
        """What is new among them. ``position``: the consumer's, behind them.

        Raises ``OtherLog``.
        """
        if self._expected:
            self._recognise(source, records, position)
        if not records:
            return records
        begin, limit = self.next[source], self.limits.get(source)
        if records[0].offset >= begin and (limit is None or records[-1].offset < limit):
            return records
        end = limit if limit is not None else records[-1].offset + 1
        return [record for record in records if begin <= record.offset < end]

    def _recognise(self, source: TopicPartition, records: Sequence[Record], position: int) -> None:
        expected = self._expected.get(source)
        if expected is None or position <= expected.offset:
            return
        del self._expected[source]
        seen = next((record for record in records if record.offset >= expected.offset), None)
        if seen is None or Last.of(seen) != expected:
            raise OtherLog(f"{source} at {expected.offset}")

    def moved(self, source: TopicPartition, position: int) -> bool:
        """Everything before ``position`` is applied (or was a marker); False: known already."""
        if position <= self.next[source]:
            return False
        self.next[source] = position
        return True

    def heard(self, source: TopicPartition, end: int, asked_ms: int) -> bool:
        """At ``asked_ms`` or later the committed log ended at ``end``; whether that is news."""
        news = self.ends.get(source) != end
        self.ends[source] = end
        if self.next[source] >= end and self.as_of[source] < asked_ms:
            self.as_of[source] = asked_ms
            news = True
        return news

    def has(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Is everything applied that stands before these ends, on logs that it knows again?"""
        return (
            self.arranged
            and not self._expected
            and all(self.next[source] >= ends.get(source, 0) for source in self.sources)
        )

    def has_all(self, asked_ms: int) -> None:
        """It has everything that was on its logs at that time."""
        self.as_of = {source: max(known, asked_ms) for source, known in self.as_of.items()}

    def probed(self) -> bool:
        """Look whether an end that was asked for is reached; whether that told anything."""
        before = self.as_of_ms
        left = []
        for asked_ms, ends in self.probes:
            if all(self.next[source] >= end for source, end in ends.items()):
                self.has_all(asked_ms)
            else:
                left.append((asked_ms, ends))
        self.probes = left
        return self.as_of_ms > before

    @property
    def as_of_ms(self) -> int:
        return min(self.as_of.values(), default=0)

    @property
    def lag_records(self) -> int:
        return sum(max(0, end - self.next[source]) for source, end in self.ends.items())

    def is_at_limits(self) -> bool:
        """Has it everything that it was to read?"""
        return all(self.next.get(source, -1) >= limit for source, limit in self.limits.items())

    def news(self) -> News:
        positions = {f"{topic}/{part}": offset for (topic, part), offset in self.next.items()}
        return News(
            path=self.store.path,
            generation=self.generation,
            ready=self.ready,
            positions=positions,
            as_of_ms=self.as_of_ms,
            lag_records=self.lag_records,
            used_bytes=self.used_bytes,
        )

    # Forgetting, in small steps.

    def trim_a_step(self, max_age_ms: int | None, max_bytes: int | None, rows: int) -> bool:
        """Remove a few rows where it is time to; whether there is more to do at once.

        Raises ``Damaged``.
        """
        if time.monotonic() < self.look_at:
            return False
        now_ms, more = round(time.time() * 1000), False
        self.used_bytes = self.store.used_bytes()
        if self.store.partition is not None:
            more = max_age_ms is not None and self._trim_old(now_ms - max_age_ms, rows)
            more = self._shrink(max_bytes, rows) or more
        if not more:
            self.look_at = time.monotonic() + _AGAIN_S
        return more

    def _trim_old(self, before_ms: int, rows: int) -> bool:
        oldest = self.store.view.oldest_ms(self.store.db)
        return (
            oldest is not None and oldest < before_ms and self.store.trim(before_ms, rows) >= rows
        )

    def _shrink(self, max_bytes: int | None, rows: int) -> bool:
        """Too large: the oldest go, by so much of time at once as gives about ``rows``."""
        if max_bytes is None or self.used_bytes <= max_bytes * (0.9 if self.shrinking else 1.0):
            self.shrinking = False
            return False
        oldest = self.store.view.oldest_ms(self.store.db)
        if oldest is None:
            return False
        self.shrinking = True
        removed = self.store.trim(oldest + self.step_ms, rows)
        longer = self.step_ms * 2 if removed < rows else self.step_ms // 2
        self.step_ms = min(max(1, longer), _DAY_MS)
        return removed > 0
