"""The views as they were at each decision of one partition, one decision after another.

In: the offsets that a decision record says its views had read up to, and the log. Out: ``Pinned``,
the views with exactly that in them, each for as long as it is held, however far others have moved
on meanwhile. How: every view is built once, in a SQLite file of its own in WAL mode; its one
writer goes forward with the decisions, and each of them reads in a transaction that was begun when
the writer stood where it wants it (SQLite documentation, "Isolation In SQLite"). A decision that
wants it further back than the writer has it another file built, from the beginning.

Guaranteed: nothing stays on the disk. Not known is what a compacted topic no longer holds, and what
is older than the log. Next: ``bot/replay/rebuilt.py``.
"""

import contextlib
import itertools
import shutil
import sqlite3
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bot.known import OpenView
from bot.replay.log import Held, Log, read
from bot.replay.plan import event_id
from bot.views import bot_views
from bot.views.replies import RepliesView
from consumers.views.view import BadRecord, View
from consumers.views.views import ViewLost
from schemas.names import BOT_DIRECT_REPLIES, BOT_REFERENCES, BOT_REPLIES
from schemas.record import Record

REPLIES = (BOT_REPLIES, BOT_DIRECT_REPLIES)
AHEAD = 500  # records of replies behind the last position, for what was not read back yet
COMMIT_EVERY = 1000  # records, where a long stretch is read
_FOR_EVER_MS = 2**62
Places = Mapping[tuple[str, int], int]
"""Next offset by topic and partition."""


@dataclass
class PinnedView:
    """One view as of its positions; ``bot.known.OpenView`` without a worker."""

    db: sqlite3.Connection
    positions: Mapping[str, int]
    as_of_ms: int = _FOR_EVER_MS

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
        return timestamp_ms <= self.as_of_ms

    def lost(self, error: sqlite3.Error) -> ViewLost:
        raise error


@dataclass
class Pinned:
    """All views of one decision; ``close`` it. ``fresh``: the replies among those that were asked
    for that the views had not read yet, by their ids."""

    views: Mapping[str, OpenView]
    fresh: Mapping[str, Record]
    _readers: list["tuple[_Built, sqlite3.Connection]"] = field(default_factory=list)

    def close(self) -> None:
        while self._readers:
            built, db = self._readers.pop()
            built.give_back(db)


class _Built:
    """One view in a file. Everything happens on the thread of the loop."""

    def __init__(self, view: View, path: Path) -> None:
        self.view = view
        self.next: dict[tuple[str, int], int] = {}
        self._path = path
        self._free: list[sqlite3.Connection] = []
        self._closed = False
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "temp_store = MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        view.create(self._db)

    def apply(self, records: Iterable[Record]) -> None:
        """In one transaction."""
        self._db.execute("BEGIN")
        for record in records:
            with contextlib.suppress(BadRecord):  # as a worker would
                self.view.apply(self._db, record)
        self._db.execute("COMMIT")

    def pin(self) -> sqlite3.Connection:
        """A reader that sees what is there now, until it is given back."""
        db = self._free.pop() if self._free else self._reader()
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only this takes the snapshot
        return db

    def give_back(self, db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        if self._closed:
            db.close()
        else:
            self._free.append(db)

    def close(self) -> None:
        """Readers that are out go on."""
        self._closed = True
        for db in (*self._free, self._db):
            db.close()
        self._free = []

    def _reader(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None)
        db.execute("PRAGMA query_only = ON")
        return db


class Snapshots:
    """The views of one partition at a time, in ``folder``, which is theirs alone."""

    def __init__(self, log: Log, held: Held, bot_id: str, folder: Path) -> None:
        self._log = log
        self._held = held
        self._views = {
            view.name: view for view in bot_views(bot_id) if BOT_REFERENCES not in view.topics
        }
        self._folder = folder
        self._numbers = itertools.count(1)
        self._built: dict[str, _Built] = {}
        self._waiting: dict[tuple[str, int], deque[Record]] = {}
        self._read_to: dict[tuple[str, int], int] = {}
        self._partition: int | None = None
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir(mode=0o700, parents=True)

    async def prepare(self, partition: int, wanted: Sequence[Mapping[str, int]]) -> None:
        """Before ``pin`` for decisions with these positions: reads the log for all of them."""
        if partition != self._partition:
            self._forget()
            self._partition = partition
        places = [self._places(positions) for positions in wanted]
        for name in self._views:
            for place in dict.fromkeys(p for one in places for p in one.get(name, {})):
                offsets = [one.get(name, {}).get(place, 0) for one in places]
                await self._advance(name, place, min(offsets))
                await self._read_ahead(place, max(offsets))
        for topic in REPLIES:
            place = topic, partition
            last = max(one.get(RepliesView.name, {}).get(place, 0) for one in places)
            await self._read_ahead(place, last + AHEAD)

    async def pin(self, positions: Mapping[str, int], replies: Collection[str] = ()) -> Pinned:
        """The views as of these positions: next offsets by ``view/topic/partition``. ``replies``:
        ids that are looked for a little behind them as well."""
        wanted = self._places(positions)
        for name in self._views:
            places = wanted.get(name, {})
            # What the record does not name had nothing in it yet.
            if any(offset > places.get(place, 0) for place, offset in self._of(name).next.items()):
                self._begin_anew(name)
            for place, offset in places.items():
                await self._advance(name, place, offset)
        pinned = Pinned({}, self._fresh(replies) if replies else {})
        views: dict[str, OpenView] = {}
        for name in self._views:
            built = self._of(name)
            reader = built.pin()
            pinned._readers.append((built, reader))
            told = {f"{t}/{p}": offset for (t, p), offset in wanted.get(name, {}).items()}
            views[name] = PinnedView(reader, told)
        pinned.views = views
        return pinned

    async def begins_at(self, positions: Mapping[str, int]) -> list[str]:
        """Where the log begins later than the views did: what they may have known beyond it."""
        late = []
        for places in self._places(positions).values():
            for (topic, partition), offset in places.items():
                first = (await self._held.bounds(topic)).get(partition, (offset, 0))[0]
                if first > 0 and offset > 0:
                    late.append(f"{topic}/{partition} begins at {first}")
        return late

    def close(self) -> None:
        """Nothing is left."""
        self._forget()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _places(self, positions: Mapping[str, int]) -> dict[str, Places]:
        """By view. What is no place of a view of ours is left out."""
        found: dict[str, dict[tuple[str, int], int]] = {}
        for key, offset in positions.items():
            name, _, rest = key.partition("/")
            topic, _, number = rest.rpartition("/")
            if name in self._views and topic in self._views[name].topics and number.isdigit():
                found.setdefault(name, {})[topic, int(number)] = offset
        return dict(found)

    async def _advance(self, name: str, place: tuple[str, int], offset: int) -> None:
        """Apply what stands before ``offset``: what was read already, and then what was not."""
        built, waiting = self._of(name), self._waiting.setdefault(place, deque())
        if built.next.get(place, 0) >= offset:
            return
        ready = []
        while waiting and waiting[0].offset < offset:
            ready.append(waiting.popleft())
        if ready:
            built.apply(ready)
        start = max(self._read_to.get(place, 0), built.next.get(place, 0))
        if start < offset:
            await self._apply_all(built, place, start, offset)
            self._read_to[place] = offset
        built.next[place] = offset

    async def _apply_all(self, built: _Built, place: tuple[str, int], start: int, end: int) -> None:
        some: list[Record] = []
        async for record in read(self._log, self._held, place, start, end):
            some.append(record)
            if len(some) >= COMMIT_EVERY:
                built.apply(some)
                some = []
        if some:
            built.apply(some)

    async def _read_ahead(self, place: tuple[str, int], end: int) -> None:
        start = self._read_to.get(place, 0)
        if start >= end:
            return
        waiting = self._waiting.setdefault(place, deque())
        last = start
        async for record in read(self._log, self._held, place, start, end):
            waiting.append(record)
            last = record.offset + 1
        # Where the log ends before that, more may come until the next time.
        bounds = (await self._held.bounds(place[0])).get(place[1], (0, 0))
        self._read_to[place] = max(last, min(end, bounds[1]))

    def _of(self, name: str) -> _Built:
        if name not in self._built:
            path = self._folder / f"{name}-{next(self._numbers)}.sqlite"
            self._built[name] = _Built(self._views[name], path)
        return self._built[name]

    def _begin_anew(self, name: str) -> None:
        self._built.pop(name).close()
        for topic in self._views[name].topics:
            for place in [p for p in self._read_to if p[0] == topic]:
                del self._read_to[place]
                self._waiting.pop(place, None)

    def _forget(self) -> None:
        for built in self._built.values():
            built.close()
        self._built, self._waiting, self._read_to = {}, {}, {}

    def _fresh(self, wanted: Collection[str]) -> dict[str, Record]:
        return {
            event: record
            for place, waiting in self._waiting.items()
            if place[0] in REPLIES
            for record in waiting
            if (event := event_id(record)) in wanted and event is not None
        }
