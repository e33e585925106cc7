"""The files of views as an operator sees them: what is there, whose it is, and once more anew.

In: the folder, and the views that this version knows. Out: one ``File`` for each, and, for
``rebuild``, a file that was built from the log from its beginning.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from consumers.closing import bounded
from consumers.errors import ConsumersError
from consumers.views.compare import following
from consumers.views.follow import FollowConfig, new_consumer, sources_of
from consumers.views.store import (
    Files,
    Position,
    Store,
    locked,
    positions_of,
    reading,
    remove,
    tables_of,
)
from consumers.views.view import View

State = Literal["ok", "other layout", "unknown", "damaged"]

NEAR = 1000  # offsets before the end of a log
_COUNT_S = 10.0
_POLL_MS = 100


class InUse(ConsumersError):
    """A running worker writes that file."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"The view {path} is being written by a running worker. Stop that worker first; the"
            " others go on meanwhile."
        )


@dataclass(frozen=True, slots=True)
class File:
    """One file. ``key``: its partition, or ``all``; ``copy``: 0 but for further processes.
    ``lag``: records on the log that it has not, None where nobody was asked."""

    path: Path
    view: str
    key: str
    copy: int
    size: int
    in_use: bool
    state: State
    rows: int
    positions: Mapping[TopicPartition, Position]
    lag: int | None = None


def survey(directory: Path, cluster_id: str, views: Sequence[View]) -> list[File]:
    """What is there for this cluster, by view and partition."""
    known = {view.name: view for view in views}
    folder = directory / quote(cluster_id, safe="")
    found = [_look(path, known.get(path.parent.name)) for path in folder.glob("*/*.sqlite")]
    return sorted(found, key=lambda file: (file.view, _number(file.key), file.copy))


def _look(path: Path, view: View | None) -> File:
    key, _, copy = path.name.removesuffix(".sqlite").partition(".")
    with locked(path) as ours:
        in_use = not ours
    rows, positions = 0, {}
    state: State = "unknown"
    try:
        with closing(reading(path)) as db:
            positions = positions_of(db)
            if view is not None:
                state = "ok" if _fits(db, view) else "other layout"
            rows = _rows(db)
    except sqlite3.DatabaseError:
        state = "damaged"
    return File(
        path=path,
        view=path.parent.name,
        key=key,
        copy=int(copy) if copy.isdecimal() else 0,
        size=_size(path),
        in_use=in_use,
        state=state,
        rows=rows,
        positions=positions,
    )


def _fits(db: sqlite3.Connection, view: View) -> bool:
    meta = dict(db.execute("SELECT key, value FROM view_meta"))
    return meta.get("layout") == view.layout and meta.get("tables") == tables_of(view)


def _rows(db: sqlite3.Connection) -> int:
    names = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        " AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'view_%'"
    ).fetchall()
    return sum(
        db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - names of tables
        for (name,) in names
    )


def _size(path: Path) -> int:
    parts = (Path(f"{path}{suffix}") for suffix in ("", "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def _number(key: str) -> int:
    return int(key) if key.isdecimal() else -1


async def lags(config: FollowConfig, files: Sequence[File]) -> dict[Path, int]:
    """How many records each file has not. Waits for a broker.

    Near the end of a log the records are counted: the markers of transactions, which no view
    ever has, are none. Far from it offsets are told, which are a little more.
    """
    sources = {source for file in files for source in file.positions}
    async with following(config) as follower:
        there = await follower.partitions_there()
        asked = [s for s in sources if s.partition in there.get(s.topic, ())]
        firsts, ends = await follower.bounds(asked)
    places = [place for file in files for place in file.positions.items() if place[0] in ends]
    starts: dict[TopicPartition, int] = {}
    for source, position in places:
        if firsts[source] <= position.next and 0 < ends[source] - position.next <= NEAR:
            starts[source] = min(position.next, starts.get(source, position.next))
    offsets = await _offsets(config, starts, ends)

    def left(source: TopicPartition, position: Position) -> int:
        known = offsets.get(source)
        if known is None or position.next < starts[source]:
            return max(0, ends[source] - position.next)
        return sum(offset >= position.next for offset in known)

    return {
        file.path: sum(left(*place) for place in file.positions.items() if place[0] in ends)
        for file in files
    }


async def _offsets(
    config: FollowConfig,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, list[int]]:
    """Offsets of the records from ``starts`` to ``ends``; nothing where a broker is too slow."""
    if not starts:
        return {}
    consumer = new_consumer(config)
    try:
        async with asyncio.timeout(_COUNT_S):
            await consumer.start()
            return await _read_offsets(consumer, starts, ends)
    except (KafkaError, OSError, TimeoutError):
        return {}
    finally:
        await bounded(consumer.stop())


async def _read_offsets(
    consumer: AIOKafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, list[int]]:
    found: dict[TopicPartition, list[int]] = {source: [] for source in starts}
    consumer.assign(list(starts))
    for source, start in starts.items():
        consumer.seek(source, start)
    left = set(starts)
    while left:
        batches = await consumer.getmany(*left, timeout_ms=_POLL_MS)
        for source, messages in batches.items():
            found[source] += [m.offset for m in messages if m.offset < ends[source]]
        # Markers and aborted records move the position without giving anything.
        left = {source for source in left if await consumer.position(source) < ends[source]}
    return found


async def rebuild(
    config: FollowConfig, view: View, files: Files, tell: Callable[[int], None]
) -> int:
    """Build one file anew, whatever it held, and delete its spare copies; returns its bytes.

    ``tell`` hears now and then how many records are still to be read. Raises ``InUse``.
    """
    for path in sorted(files.folder.glob(f"{files.key}.*sqlite")):
        with locked(path) as ours:
            if not ours:
                raise InUse(path)
            remove(path)
    async with following(config) as follower:
        sources = sources_of(view, files.partition, await follower.partitions(view.topics))
        store = Store.open(view, files)
        followed = follower.add_store(store, sources)
        await follower.caught_up(followed, lambda: tell(followed.lag_records))
        return store.used_bytes()
