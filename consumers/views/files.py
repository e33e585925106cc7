"""The files of views as an operator sees them: what is there, whose it is, and once more anew.

In: the folder, and the views that this version knows. Out: one ``File`` for each, and, for
``rebuild``, a file that was built from the log from its beginning.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from aiokafka import TopicPartition

from consumers.errors import ConsumersError
from consumers.views.compare import following
from consumers.views.follow import FollowConfig, sources_of
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
    """How many records each file has not. Waits for a broker."""
    sources = {source for file in files for source in file.positions}
    async with following(config) as follower:
        there = await follower.partitions_there()
        asked = [s for s in sources if s.partition in there.get(s.topic, ())]
        _, ends = await follower.bounds(asked)
    return {
        file.path: sum(
            max(0, ends[source] - position.next)
            for source, position in file.positions.items()
            if source in ends
        )
        for file in files
    }


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
