"""One view's rows on disk: a SQLite file that always knows up to where on the log it goes.

In: batches of records. Out: rows, with the offsets behind them, in one transaction: after a
kill at any instant the file stands between two batches, and goes on from there. A file that
is missing, damaged, or of another view, layout or cluster is deleted and begun anew; so is, by
``consumers/views/follow.py``, one whose log was recreated or trimmed past it.

    <directory>/<cluster id>/<view>/<partition>.sqlite, .1.sqlite, .2.sqlite, …

A lock file beside each keeps processes apart: a second process on the same machine takes the
next number. Files are opened in WAL mode with ``synchronous=NORMAL``: a power cut may take
back the last batches, rows and offsets together, which then come again from Kafka.
Source: SQLite documentation, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import structlog
from aiokafka import TopicPartition
from filelock import FileLock, Timeout

from consumers.errors import ConsumersError
from consumers.views.view import BadRecord, View
from schemas.record import Record

log = structlog.get_logger(__name__)

Batch = Sequence[tuple[TopicPartition, Sequence[Record]]]
Bad = Counter[tuple[str, str]]  # records by topic and code
_Apply = Callable[[sqlite3.Connection, Sequence[Record], Bad], None]
Why = Literal["missing", "damaged", "layout", "log", "asked"]

COPIES = 64  # processes on one machine that may follow the same partition at once
VIEW_ERROR = "view-error"
_CHECKPOINT_PAGES = 4_000  # 16 MiB of log before it is written back
_JOURNAL_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 16 * 1024
_BUSY_S = 5.0
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,  # among others: the file was moved or deleted under us
        sqlite3.SQLITE_FORMAT,
    }
)
_OWN_TABLES = """
CREATE TABLE view_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE view_positions (
    topic TEXT, partition INTEGER,
    first_offset INTEGER NOT NULL,  -- where this file begins
    next_offset INTEGER NOT NULL,   -- where it goes on
    last_offset INTEGER, last_digest BLOB,  -- the last record, to know the log again
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE view_bad (topic TEXT, code TEXT, records INTEGER, PRIMARY KEY (topic, code))
    WITHOUT ROWID;
"""


class DirectoryUnusable(ConsumersError):
    """Views can't be kept where the settings say."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(
            f"Views cannot be kept under {directory}: {reason}. Set TWITE_VIEWS__DIRECTORY to a"
            " folder on a local disk that this user may write to."
        )


class Damaged(Exception):
    """SQLite can't work with the file any more: it must be built again."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last record that was applied, so that a log can be told from another one."""

    offset: int
    digest: bytes

    @classmethod
    def of(cls, record: Record) -> "Last":
        parts = hashlib.blake2b(f"{record.timestamp_ms}".encode(), digest_size=8)
        for part in (record.key, record.value):
            parts.update(b"-" if part is None else b"%d:" % len(part) + part)
        return cls(record.offset, parts.digest())


@dataclass(slots=True)
class Position:
    """How far a view is in one partition."""

    first: int
    next: int
    last: Last | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch came to."""

    applied: int
    bad: Mapping[tuple[str, str], int]  # by topic and code


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of one view of one partition are. ``partition`` None: of all."""

    directory: Path
    cluster_id: str
    view: str
    partition: int | None

    @property
    def folder(self) -> Path:
        return self.directory / quote(self.cluster_id, safe="") / self.view

    @property
    def key(self) -> str:
        return "all" if self.partition is None else str(self.partition)

    def path(self, copy: int) -> Path:
        return self.folder / (f"{self.key}.{copy}.sqlite" if copy else f"{self.key}.sqlite")


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether this process has the file for itself while this lasts."""
    lock = lock_of(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def lock_of(path: Path) -> FileLock:
    """The lock beside a view's file; the system lets go of it when a process dies."""
    return FileLock(f"{path}.lock", thread_local=False, mode=0o600)


def remove(path: Path) -> None:
    """Delete a database with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Does the file have to be built again? A full disk or a mistake in a view is no damage."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def is_full(error: sqlite3.Error) -> bool:
    """Is it the disk that is full?"""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_FULL


def reading(path: Path) -> sqlite3.Connection:
    """A connection of its own for reading, for one thread. Raises ``sqlite3.Error``.

    Not through mapped memory: a file that is cut short under us would kill the process.
    """
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_S
    )
    db.execute("PRAGMA query_only = ON")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return db


@dataclass
class Store:
    """The writer's side of one file; used by one thread only."""

    view: View
    path: Path
    cluster_id: str
    partition: int | None
    why: Why | None = None  # why it was begun anew at its opening
    positions: dict[TopicPartition, Position] = field(default_factory=dict)
    _lock: FileLock | None = None
    _db: sqlite3.Connection | None = None

    @classmethod
    def open(cls, view: View, files: Files) -> "Store":
        """The first file that no other process holds. Raises ``DirectoryUnusable``."""
        make_folder(files.folder)
        for copy in range(COPIES):
            lock = lock_of(path := files.path(copy))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            except OSError as error:
                raise DirectoryUnusable(files.directory, str(error)) from error
            store = cls(view, path, files.cluster_id, files.partition, _lock=lock)
            try:
                store._open()
            except sqlite3.Error as error:
                store.close()
                raise DirectoryUnusable(files.directory, error_name(error)) from error
            except BaseException:
                store.close()
                raise
            return store
        raise DirectoryUnusable(files.directory, f"{COPIES} processes use {files.path(0)}")

    @classmethod
    def at(cls, view: View, path: Path, cluster_id: str, partition: int | None) -> "Store":
        """A new file at that very path, without a lock: for a build that is thrown away."""
        store = cls(view, path, cluster_id, partition)
        store.begin_anew("asked")
        return store

    @property
    def db(self) -> sqlite3.Connection:
        """The writing connection."""
        if self._db is None:
            raise RuntimeError("the store is closed")
        return self._db

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def _open(self) -> None:
        if not self.path.exists():
            return self.begin_anew("missing")
        try:
            self._db = self._connect()
            if self._fits():
                self.positions = self._read_positions()
                return None
            why: Why = "layout"
        except sqlite3.DatabaseError as error:
            if is_full(error):
                raise
            log.warning("a view's file is damaged", view=self.view.name, error=error_name(error))
            why = "damaged"
        return self.begin_anew(why)

    def begin_anew(self, why: Why) -> None:
        """Delete what is there and make empty tables; the log has to be read again."""
        self._disconnect()
        remove(self.path)
        self.why = why
        self.positions = {}
        self._db = self._connect()
        with self.transaction():
            for statement in _OWN_TABLES.split(";"):
                self._db.execute(statement)
            self.view.create(self._db)
            self._db.executemany("INSERT INTO view_meta VALUES (?, ?)", self._meta().items())
        if why not in ("missing", "asked"):
            log.warning("a view is built again", view=self.view.name, key=self.key, why=why)

    @property
    def key(self) -> str:
        """The partition for a log line."""
        return "all" if self.partition is None else str(self.partition)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, isolation_level=None, cached_statements=512, timeout=_BUSY_S
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
            db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            db.execute("PRAGMA temp_store = MEMORY")
            # What people deleted must not stay behind in free pages.
            db.execute("PRAGMA secure_delete = ON")
        except BaseException:
            db.close()
            raise
        return db

    def _meta(self) -> dict[str, str | int]:
        return {
            "view": self.view.name,
            "layout": self.view.layout,
            "tables": tables_of(self.view),
            "cluster": self.cluster_id,
            "partition": self.key,
        }

    def _fits(self) -> bool:
        """Is this the view's file, of this layout? Raises ``sqlite3.DatabaseError``."""
        meta = dict(self.db.execute("SELECT key, value FROM view_meta"))
        return self.fits(meta) and _tables(self.db) == meta["tables"]

    def fits(self, meta: Mapping[str, str | int]) -> bool:
        """Does a file with this ``view_meta`` hold the same view of the same partition?"""
        wanted = self._meta()
        return {key: meta.get(key) for key in wanted} == wanted

    def _read_positions(self) -> dict[TopicPartition, Position]:
        return positions_of(self.db)

    # Writing.

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises ``Damaged`` where the file can't be worked with."""
        db = self.db
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and is_damage(error):
                raise Damaged(error_name(error)) from error
            raise

    def begin_at(self, starts: Mapping[TopicPartition, int], trimmed_ms: int | None = None) -> None:
        """Note where a file begins that has nothing of these partitions yet."""
        positions = {source: Position(offset, offset) for source, offset in starts.items()}
        with self.transaction() as db:
            _save_positions(db, positions)
            if trimmed_ms is not None:
                self._note_trim(db, trimmed_ms)
        self.positions |= positions

    def write(self, batch: Batch) -> Written:
        """Apply records and move the offsets behind them, in one transaction.

        Raises ``Damaged``, or ``sqlite3.Error`` where nothing was written for another reason
        (the disk is full).
        """
        try:
            return self._write(batch, self._apply)
        except (Damaged, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, sqlite3.Error) and is_full(error):
                raise
            log.error("a view raised; once more, record by record", view=self.view.name)
            return self._write(batch, self._apply_alone)

    def _write(self, batch: Batch, apply: _Apply) -> Written:
        bad: Bad = Counter()
        moved = dict(self.positions)
        with self.transaction() as db:
            for source, records in batch:
                apply(db, records, bad)
                if records:
                    last = records[-1]
                    first = moved[source].first
                    moved[source] = Position(first, last.offset + 1, Last.of(last))
            _save_positions(db, {source: moved[source] for source, _ in batch})
            self._save_bad(db, bad)
        self.positions = moved
        return Written(sum(len(records) for _, records in batch) - bad.total(), bad)

    def _apply(self, db: sqlite3.Connection, records: Sequence[Record], bad: Bad) -> None:
        apply = self.view.apply
        for record in records:
            try:
                apply(db, record)
            except BadRecord as error:
                bad[record.topic, error.code] += 1

    def _apply_alone(self, db: sqlite3.Connection, records: Sequence[Record], bad: Bad) -> None:
        """Each record in a savepoint: a mistake in the view costs that record only."""
        for record in records:
            db.execute("SAVEPOINT record")
            try:
                self.view.apply(db, record)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and (is_damage(error) or is_full(error)):
                    raise
                db.execute("ROLLBACK TO record")
                bad[record.topic, _code(error)] += 1
                _tell_mistake(self.view, record, error)
            db.execute("RELEASE record")

    def _save_bad(self, db: sqlite3.Connection, bad: Mapping[tuple[str, str], int]) -> None:
        db.executemany(
            "INSERT INTO view_bad VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET records = records + excluded.records",
            [(*key, count) for key, count in bad.items()],
        )

    # Forgetting.

    def trim(self, before_ms: int, limit: int) -> int:
        """Remove at most ``limit`` rows that are older; returns how many. Raises ``Damaged``."""
        with self.transaction() as db:
            removed = self.view.trim(db, before_ms, limit)
            self._note_trim(db, before_ms)
        return removed

    def _note_trim(self, db: sqlite3.Connection, before_ms: int) -> None:
        db.execute(
            "INSERT INTO view_meta VALUES ('trimmed_ms', ?)"
            " ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            (before_ms,),
        )

    def used_bytes(self) -> int:
        """What the rows take; free pages inside the file are used again."""
        return used_bytes(self.db)

    def close(self) -> None:
        """Close the file and let go of it."""
        self._disconnect()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _disconnect(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            with suppress(sqlite3.Error):
                db.close()


def make_folder(folder: Path) -> None:
    """For this user only: private talk is in there. Raises ``DirectoryUnusable``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise DirectoryUnusable(folder, error.strerror or str(error)) from error


def sweep(directory: Path, older_than_s: float) -> int:
    """Delete files that nobody has written for so long, of all clusters; returns how many.

    What people deleted since is still in them.
    """
    oldest = time.time() - older_than_s
    removed = 0
    for path in directory.glob("*/*/*.sqlite"):
        with suppress(OSError), locked(path) as ours:
            if ours and _touched(path) < oldest:
                remove(path)
                removed += 1
    return removed


def _touched(path: Path) -> float:
    beside = Path(f"{path}-wal")
    return max(p.stat().st_mtime for p in (path, beside) if p.exists())


def _save_positions(db: sqlite3.Connection, positions: Mapping[TopicPartition, Position]) -> None:
    rows = []
    for source, position in positions.items():
        last = position.last
        known = (None, None) if last is None else (last.offset, last.digest)
        rows.append((*source, position.first, position.next, *known))
    db.executemany("INSERT OR REPLACE INTO view_positions VALUES (?, ?, ?, ?, ?, ?)", rows)


def positions_of(db: sqlite3.Connection) -> dict[TopicPartition, Position]:
    """How far a view is, in each partition that it reads. Raises ``sqlite3.DatabaseError``."""
    rows = db.execute(
        "SELECT topic, partition, first_offset, next_offset, last_offset, last_digest"
        " FROM view_positions"
    ).fetchall()
    return {
        TopicPartition(topic, partition): Position(
            first, following, None if last is None else Last(last, digest)
        )
        for topic, partition, first, following, last, digest in rows
    }


def used_bytes(db: sqlite3.Connection) -> int:
    """Bytes of the pages in use."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int(pages - free) * int(size)


def tables_of(view: View) -> str:
    """A digest of the tables that a view makes: they may change without a new layout number."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for statement in _OWN_TABLES.split(";"):
            db.execute(statement)
        view.create(db)
        return _tables(db)


def _tables(db: sqlite3.Connection) -> str:
    rows = db.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"
        " ORDER BY type, name"
    ).fetchall()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _code(error: Exception) -> str:
    return error.code if isinstance(error, BadRecord) else VIEW_ERROR


def _tell_mistake(view: View, record: Record, error: Exception) -> None:
    if not isinstance(error, BadRecord):
        log.error(
            "a view cannot apply a record, which is left out",
            view=view.name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            error=error_name(error),
        )


def error_name(error: BaseException) -> str:
    """An error for a log line: never with what people wrote."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
