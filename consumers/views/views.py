"""The views of one worker: opened beside its partitions, written by a thread of their own.

In: the views, and partitions as they come and go (``open`` and ``release`` fit the worker's
``prepare`` and ``release``). Out: an ``OpenView`` for each, which handlers read on the worker's
own event loop. Guaranteed: when ``open`` returns, the views of that partition hold everything
that was committed before it was called, also what stands behind a transaction of ours that was
open then. What becomes unreadable later raises ``ViewLost``, at which the worker lets go of the
partition and takes it up again, and so waits until it was read anew.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from consumers.errors import PartitionsDiffer
from consumers.handler import StopPartition
from consumers.metrics import Metrics, ViewState
from consumers.views.follow import FollowConfig, Follower, sources_of
from consumers.views.followed import Followed, News
from consumers.views.store import Files, error_name, is_damage, make_folder, reading, sweep
from consumers.views.view import View

log = structlog.get_logger(__name__)
T = TypeVar("T")

Key = tuple[str, int | None]  # a view's name, and its partition (None: all)
_JOIN_S = 10.0
_WEEK_S = 7 * 24 * 3600.0


class ViewLost(StopPartition):
    """A view can't be read just now: it is being built again, or was closed."""


class OpenView:
    """The readers' side of one view; for the worker's event loop only."""

    def __init__(self, view: View, followed: Followed, news: News, thread: "_Thread") -> None:
        self.view = view
        self._followed = followed
        self._news = news
        self._thread = thread
        self._db: sqlite3.Connection | None = None
        self._db_of: tuple[Path, int] | None = None
        self._waiting: list[tuple[Callable[[News], bool], asyncio.Future[None]]] = []
        self._probed_ms = 0
        self._closed = False

    @property
    def db(self) -> sqlite3.Connection:
        """A connection that can only read; each statement sees what is there at its start.

        Fetch all rows of a statement: one that is left open holds up the writer. Prefer
        ``rows``. Raises ``ViewLost``.
        """
        if self._closed or not self._news.ready:
            raise ViewLost(f"the view {self.view.name} is being read anew")
        wanted = (self._news.path, self._news.generation)
        if self._db is None or self._db_of != wanted:
            self._disconnect()
            try:
                self._db = reading(self._news.path)
            except sqlite3.Error as error:
                raise self.lost(error) from error
            self._db_of = wanted
        return self._db

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """All rows of a statement. Raises ``ViewLost``; a damaged file is built again."""
        db = self.db
        try:
            return db.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise self.lost(error) from error

    def lost(self, error: sqlite3.Error) -> ViewLost:
        """The file can't be read: have it built again; returns what to raise."""
        log.error("a view can't be read", view=self.view.name, error=error_name(error))
        self._thread.rebuild(self._followed, self._news.generation)
        return ViewLost(f"the view {self.view.name} is damaged ({error_name(error)})")

    @property
    def positions(self) -> Mapping[str, int]:
        """How far it is: the next offset by ``topic/partition``."""
        return self._news.positions

    @property
    def as_of_ms(self) -> int:
        """Everything committed before this time is in the rows (ms, this machine's clock)."""
        return self._news.as_of_ms

    @property
    def is_ready(self) -> bool:
        return self._news.ready and not self._closed

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
        """Whether it holds everything up to that time, after a bounded wait.

        A time ahead of this machine's clock counts as now: what is asked about was read, so
        everything before it is on the log.
        """
        wanted = min(timestamp_ms, _now_ms())
        if wanted > self._probed_ms and self._news.as_of_ms < wanted:
            self._probed_ms = _now_ms()
            self._thread.probe(self._followed)
        return await self._wait(lambda news: news.as_of_ms >= wanted, timeout_s)

    async def _wait(self, holds: Callable[[News], bool], timeout_s: float) -> bool:
        if holds(self._news):
            return True
        if timeout_s <= 0 or self._closed:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((holds, future))
        await asyncio.wait([future], timeout=timeout_s)
        future.cancel()  # where it timed out: the next news clears it away
        return holds(self._news)

    def hear(self, news: News) -> None:
        """Take in how far it is, and wake whoever waited for that."""
        self._news = news
        if self._waiting:
            self._waiting = [waiter for waiter in self._waiting if not _told(*waiter, news)]

    def state(self) -> ViewState:
        """For the metrics."""
        news = self._news
        return ViewState(
            view=self.view.name,
            partition=self._followed.store.key,
            ready=self.is_ready,
            lag_records=news.lag_records,
            lag_seconds=max(0.0, time.time() - news.as_of_ms / 1000) if news.as_of_ms else 0.0,
            used_bytes=news.used_bytes,
        )

    def close(self) -> None:
        """Reading raises ``ViewLost`` from now on; nobody waits any more."""
        self._closed = True
        self._disconnect()
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting = []

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class Views:
    """All views of a worker. ``start`` before the worker runs, ``close`` after it.

    ``views`` of scope ``all`` are open in between; the others with their partitions. Files are
    kept under ``directory``, apart by cluster.
    """

    def __init__(
        self,
        config: FollowConfig,
        directory: Path,
        cluster_id: str,
        views: Sequence[View],
        metrics: Metrics | None = None,
    ) -> None:
        self._directory = directory
        self._cluster_id = cluster_id
        self._views = tuple(views)
        self._config = config
        self._thread = _Thread(config, metrics or Metrics(), self._files, self._views, self._hear)
        self._open: dict[Key, OpenView] = {}
        self._users: Counter[int] = Counter()
        self._by_name: dict[int, Mapping[str, OpenView]] = {}  # until one is opened or closed
        self._on_change: dict[str, Callable[[], None]] = {}

    async def start(self) -> None:
        """Waits for a broker. Raises ``DirectoryUnusable``, ``TopicMissing``,
        ``PartitionsDiffer``."""
        make_folder(self._directory)
        unused_s = _WEEK_S if self._config.max_age_ms is None else self._config.max_age_ms / 1000
        await asyncio.to_thread(sweep, self._directory, unused_s)
        self._thread.start()
        await self._add(None)

    def on_change(self, name: str, call: Callable[[], None]) -> None:
        """Have ``call`` called when the views of that name have read more, on the worker's loop."""
        self._on_change[name] = call

    async def open(self, partition: int) -> None:
        """Open the views of a partition, or join those who have; each call needs a ``release``,
        whatever became of it. Returns when they are caught up."""
        self._users[partition] += 1
        await self._add(partition)

    async def catch_up(self, partition: int | None) -> None:
        """Returns when the open views of a partition hold all that is committed now."""
        self._hear(await self._thread.call(self._thread.catch_up(partition)))

    async def release(self, partition: int) -> None:
        """The last user closes the views of the partition."""
        self._users[partition] -= 1
        if self._users[partition] > 0:
            return
        del self._users[partition]
        self._by_name = {}
        for key in [key for key in self._open if key[1] == partition]:
            self._open.pop(key).close()
        await asyncio.shield(self._thread.call(self._thread.drop(partition)))

    def of(self, partition: int) -> Mapping[str, OpenView]:
        """The open views by name: those of the partition, and those of all."""
        found = self._by_name.get(partition)
        if found is None:
            found = self._by_name[partition] = {
                view.name: self._open[key]
                for view in self._views
                for key in [_key(view, partition)]
                if key in self._open
            }
        return found

    def states(self) -> tuple[ViewState, ...]:
        """For the metrics, in a stable order."""
        return tuple(
            self._open[key].state()
            for key in sorted(self._open, key=lambda key: (key[0], key[1] or 0))
        )

    async def close(self) -> None:
        """Close the files and end the thread."""
        for view in self._open.values():
            view.close()
        self._open, self._by_name = {}, {}
        await self._thread.close()

    async def _add(self, partition: int | None) -> None:
        for view, followed, news in await self._thread.call(self._thread.add(partition)):
            key = (view.name, partition)
            if key not in self._open:
                self._by_name = {}
                self._open[key] = OpenView(view, followed, news, self._thread)
        await self.catch_up(partition)

    def _files(self, view: View, partition: int | None) -> Files:
        return Files(self._directory, self._cluster_id, view.name, partition)

    def _hear(self, news: Sequence[tuple[Followed, News]]) -> None:
        for followed, said in news:
            key = (followed.store.view.name, followed.store.partition)
            if (view := self._open.get(key)) is not None:
                moved = view.positions != said.positions
                view.hear(said)
                if moved and (call := self._on_change.get(view.view.name)) is not None:
                    call()


class _Thread:
    """The thread that follows, with an event loop of its own, on which the coroutines here run.

    The others are called from the worker's loop.
    """

    def __init__(
        self,
        config: FollowConfig,
        metrics: Metrics,
        files: Callable[[View, int | None], Files],
        views: Sequence[View],
        hear: Callable[[Sequence[tuple[Followed, News]]], None],
    ) -> None:
        self._files = files
        self._views = views
        self._hear = hear
        self._follower = Follower(config, metrics, self._tell)
        self._partitions: dict[str, frozenset[int]] = {}
        self._followed: dict[Key, Followed] = {}
        self._lock = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="twite-views", daemon=True)

    def start(self) -> None:
        self._listener = asyncio.get_running_loop()
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Run it there; the future is for the caller's loop."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def probe(self, followed: Followed) -> None:
        self._soon(lambda: self._follower.probe(followed))

    def rebuild(self, followed: Followed, generation: int) -> None:
        """Build that file again, unless that has happened since."""

        def again() -> None:
            if followed.generation == generation:
                self._follower.rebuild(followed, "damaged")

        self._soon(again)

    def _soon(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are stopping
            self._loop.call_soon_threadsafe(what)

    async def close(self) -> None:
        if self._thread.is_alive():
            await self.call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join, _JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()

    # On the thread's loop.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _connect(self) -> None:
        """Once: find the broker and the topics, and begin to follow."""
        if self._running is None:
            await self._follower.connect()
            topics = [topic for view in self._views for topic in view.topics]
            self._partitions = await self._follower.partitions(topics)
            self._check_counts()
            self._running = asyncio.create_task(self._follower.run(), name="follow views")

    def _check_counts(self) -> None:
        counts = {
            topic: len(self._partitions[topic])
            for view in self._views
            if view.scope == "partition"
            for topic in view.topics
        }
        if len(set(counts.values())) > 1:
            raise PartitionsDiffer(counts)

    async def add(self, partition: int | None) -> list[tuple[View, Followed, News]]:
        """Follow for a partition (None: for all); what is followed already stays."""
        async with self._lock:
            await self._connect()
            scope = "all" if partition is None else "partition"
            views = [view for view in self._views if view.scope == scope]
            for view in views:
                if (view.name, partition) not in self._followed:
                    self._followed[view.name, partition] = self._follower.add(
                        view,
                        self._files(view, partition),
                        sources_of(view, partition, self._partitions),
                    )
            found = [(view, self._followed[view.name, partition]) for view in views]
            return [(view, followed, followed.news()) for view, followed in found]

    async def catch_up(self, partition: int | None) -> list[tuple[Followed, News]]:
        """Also those of all partitions have to be ready."""
        ours = [f for (_, key), f in self._followed.items() if key in (partition, None)]
        await asyncio.gather(*(self._follower.catch_up(followed) for followed in ours))
        return [(followed, followed.news()) for followed in ours]

    async def drop(self, partition: int) -> None:
        async with self._lock:
            for key in [key for key in self._followed if key[1] == partition]:
                await self._follower.drop(self._followed.pop(key))

    async def _end(self) -> None:
        self._follower.stop()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=_JOIN_S)
            self._running.cancel()
        await self._follower.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=1.0)

    def _tell(self, news: Sequence[tuple[Followed, News]]) -> None:
        if self._listener is not None:
            with contextlib.suppress(RuntimeError):  # the worker's loop is closed
                self._listener.call_soon_threadsafe(self._hear, news)


def _key(view: View, partition: int) -> Key:
    return (view.name, None if view.scope == "all" else partition)


def _told(holds: Callable[[News], bool], future: "asyncio.Future[None]", news: News) -> bool:
    """Whether this waiter is done with."""
    if not future.done() and holds(news):
        future.set_result(None)
    return future.done()


def _now_ms() -> int:
    return round(time.time() * 1000)
