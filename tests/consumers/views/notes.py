"""A small view to try the runtime with: notes by key, newest text, what was ever said."""

import sqlite3
from dataclasses import dataclass

from consumers.views.view import BadRecord, Scope
from schemas.record import Record


@dataclass(frozen=True)
class Notes:
    """``b"bad"`` is a bad record, ``b"boom"`` trips over itself after it wrote a row."""

    topics: tuple[str, ...] = ("notes",)
    name: str = "notes"
    layout: int = 1
    scope: Scope = "partition"

    def create(self, db: sqlite3.Connection) -> None:
        db.execute(
            "CREATE TABLE note (topic TEXT, partition INT, at INT, key BLOB, text BLOB, time INT,"
            " PRIMARY KEY (topic, partition, at)) WITHOUT ROWID"
        )
        db.execute("CREATE INDEX note_time ON note (time)")
        db.execute("CREATE INDEX note_key ON note (key)")

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        if record.value == b"bad":
            raise BadRecord("bad-json")
        if record.value is None:
            db.execute("DELETE FROM note WHERE key = ?", (record.key,))
            return
        db.execute(
            "INSERT INTO note VALUES (?, ?, ?, ?, ?, ?)",
            (
                record.topic,
                record.partition,
                record.offset,
                record.key,
                record.value,
                record.timestamp_ms,
            ),
        )
        if record.value == b"boom":
            raise ZeroDivisionError

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        (oldest,) = db.execute("SELECT min(time) FROM note").fetchone()
        return None if oldest is None else int(oldest)

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        return db.execute(
            "DELETE FROM note WHERE (topic, partition, at) IN ("
            "SELECT topic, partition, at FROM note WHERE time < ? ORDER BY time LIMIT ?)",
            (before_ms, limit),
        ).rowcount
