"""Is a view what Kafka says it is? Built again beside it up to the same offsets, row for row.

In: a view's file, which a worker may be writing at the same time. Out: for each table how many
rows stand on one side only. A copy is taken first, so both sides end at the same offsets; what
the view has forgotten by age, or the log has, is trimmed from both.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers.closing import bounded
from consumers.errors import ConsumersError
from consumers.metrics import Metrics
from consumers.views.follow import FollowConfig, Follower, new_consumer
from consumers.views.store import Position, Store, error_name, positions_of, reading
from consumers.views.view import View

_TRIM_ROWS = 5_000
_UNORDERED_MS = 60_000  # by so much times on a log may go back
_POLL_MS = 200
_FIRST_RECORD_S = 10.0


class NotComparable(ConsumersError):
    """There is nothing on the log to compare this file with, or the file can't be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The view {path} cannot be compared: {reason}. A worker builds it again when it"
            " opens it; `twite views rebuild` does it now."
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """One table. ``only_view``, ``only_log``: rows that the other side has not."""

    table: str
    rows: int
    only_view: int
    only_log: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """``since_ms``: rows older than that (Kafka's time) were left out; None: all were compared."""

    tables: tuple[Difference, ...]
    since_ms: int | None
    seconds: float

    @property
    def equal(self) -> bool:
        return not any(table.only_view or table.only_log for table in self.tables)


async def compare(
    config: FollowConfig, view: View, path: Path, cluster_id: str, scratch: Path
) -> Comparison:
    """``scratch``: a folder for two copies of that size. Raises ``NotComparable`` and what
    ``Follower.connect`` waits for."""
    started = time.monotonic()
    copy = scratch / "view.sqlite"
    try:
        await asyncio.to_thread(_copy, path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            _check(path, db)
            meta = dict(db.execute("SELECT key, value FROM view_meta"))
            positions = positions_of(db)
    except sqlite3.DatabaseError as error:
        raise NotComparable(path, f"it is damaged ({error_name(error)})") from error
    key = str(meta["partition"])
    partition = None if key == "all" else int(key)
    with closing(Store.at(view, scratch / "log.sqlite", cluster_id, partition)) as store:
        if not store.fits(meta):
            raise NotComparable(path, "it is of another layout")
        begins = await _build(config, store, positions, path)
    since_ms = await _since(config, positions, begins, meta.get("trimmed_ms"))
    tables = await asyncio.to_thread(_differences, view, copy, store.path, since_ms)
    return Comparison(tables, since_ms, time.monotonic() - started)


def _copy(path: Path, copy: Path) -> None:
    with closing(reading(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _check(path: Path, db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise NotComparable(path, "it is damaged")


async def _build(
    config: FollowConfig, store: Store, positions: Mapping[TopicPartition, Position], path: Path
) -> Mapping[TopicPartition, int]:
    """Read the same stretch of the log again; where each partition of it begins."""
    async with following(config) as follower:
        firsts, ends = await follower.bounds(list(positions))
        for source, position in positions.items():
            if not firsts[source] <= position.next <= ends[source]:
                raise NotComparable(
                    path, f"the log of {source.topic} is not the one it was made of"
                )
        begins = {source: max(firsts[source], p.first) for source, p in positions.items()}
        limits = {source: position.next for source, position in positions.items()}
        followed = follower.add_store(store, positions, begin=begins, limits=limits)
        await follower.caught_up(followed)
        await follower.drop(followed, close=False)
    return begins


@asynccontextmanager
async def following(config: FollowConfig) -> AsyncIterator[Follower]:
    """A follower on this very loop, for commands."""
    follower = Follower(config, Metrics())
    await follower.connect()
    running = asyncio.create_task(follower.run(), name="follow views")
    try:
        yield follower
    finally:
        follower.stop()
        await asyncio.wait([running])
        await follower.close()


async def _since(
    config: FollowConfig,
    positions: Mapping[TopicPartition, Position],
    begins: Mapping[TopicPartition, int],
    trimmed_ms: int | None,
) -> int | None:
    """From which time on both sides must be the same."""
    gone = [source for source, begin in begins.items() if begin > positions[source].first]
    times = [trimmed_ms] if trimmed_ms is not None else []
    if gone:
        first = await _first_times(config, {source: begins[source] for source in gone})
        times += [at_ms + _UNORDERED_MS for at_ms in first]
    return max(times, default=None)


async def _first_times(config: FollowConfig, begins: Mapping[TopicPartition, int]) -> list[int]:
    """The time of the first record of each; now, where there is none any more."""
    consumer = new_consumer(config)
    await consumer.start()
    try:
        times = []
        for source, begin in begins.items():
            consumer.assign([source])
            consumer.seek(source, begin)
            end = (await consumer.end_offsets([source]))[source]
            times.append(await _first_time(consumer, source, end))
        return times
    finally:
        await bounded(consumer.stop())


async def _first_time(consumer: AIOKafkaConsumer, source: TopicPartition, end: int) -> int:
    async with asyncio.timeout(_FIRST_RECORD_S):
        while await consumer.position(source) < end:
            found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=1)
            if messages := found.get(source):
                return int(messages[0].timestamp)
    return round(time.time() * 1000)


def _differences(
    view: View, copy: Path, built: Path, since_ms: int | None
) -> tuple[Difference, ...]:
    for path in (copy, built):
        if since_ms is not None:
            _trim(view, path, since_ms)
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("ATTACH ? AS log", (str(built),))
        names = [
            name
            for (name,) in db.execute(
                "SELECT name FROM main.sqlite_master WHERE type = 'table'"
                " AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'view_%' ORDER BY name"
            )
        ]
        return tuple(_difference(db, name) for name in names)


def _trim(view: View, path: Path, since_ms: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        removed = _TRIM_ROWS
        while removed >= _TRIM_ROWS:
            db.execute("BEGIN")
            removed = view.trim(db, since_ms, _TRIM_ROWS)
            db.execute("COMMIT")


def _difference(db: sqlite3.Connection, name: str) -> Difference:
    quoted = '"' + name.replace('"', '""') + '"'

    def count(query: str) -> int:
        (found,) = db.execute(f"SELECT count(*) FROM ({query})").fetchone()  # noqa: S608
        return int(found)

    ours, theirs = (f"SELECT * FROM {side}.{quoted}" for side in ("main", "log"))  # noqa: S608
    return Difference(
        table=name,
        rows=count(ours),
        only_view=count(f"{ours} EXCEPT {theirs}"),
        only_log=count(f"{theirs} EXCEPT {ours}"),
    )
