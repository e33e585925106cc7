"""The view of ``bot.references``: what was built on a post, and how the post changed.

In: the records of one partition, which hold all there is about a post. Out: one row for each,
under its offset, so that the join in ``bot/references.py`` can ask how things stood before any
record. Words that were deleted are erased from earlier rows at once.
"""

import json
import sqlite3
from typing import Any, Literal

from consumers.views.view import BadRecord
from schemas import names
from schemas.codes import ErrorCode
from schemas.record import Record

_TABLES = """
CREATE TABLE made (
    offset INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, uri TEXT NOT NULL,
    source TEXT NOT NULL, data TEXT NOT NULL  -- the event's data, which holds no text of people
);
CREATE INDEX made_by_uri ON made (uri, offset);
CREATE INDEX made_by_time ON made (at_ms);
CREATE TABLE changed (
    offset INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, uri TEXT NOT NULL,
    deleted INTEGER NOT NULL, version INTEGER,  -- which change counts
    data TEXT NOT NULL  -- the event's data, without the post once that was deleted
);
CREATE INDEX changed_by_uri ON changed (uri, deleted, version, offset);
CREATE INDEX changed_by_place ON changed (uri, offset);
CREATE INDEX changed_by_time ON changed (at_ms)
"""
_ERASE = "UPDATE changed SET data = json_remove(data, '$.post', '$.message') WHERE uri = ?"
_TIMED = ("made", "changed")
_TRIM = {
    table: f"DELETE FROM {table} WHERE offset IN"  # noqa: S608 - names of our own
    f" (SELECT offset FROM {table} WHERE at_ms < ? ORDER BY at_ms, offset LIMIT ?)"
    for table in _TIMED
}
_TYPES = {names.REFERENCE_MADE.encode(): "made", names.REFERENCED_CHANGED.encode(): "changed"}


class ReferencesView:
    """See the module."""

    name = "references"
    layout = 3
    topics: tuple[str, ...] = (names.BOT_REFERENCES,)
    scope: Literal["partition", "all"] = "partition"

    def create(self, db: sqlite3.Connection) -> None:
        for statement in _TABLES.split(";"):
            db.execute(statement)

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        kind, data = read(record)
        text = (record.value or b"").decode()
        if kind == "made":
            db.execute(
                "INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?)",
                (record.offset, record.timestamp_ms, data["uri"], data["source"]["uri"], text),
            )
            return
        deleted = bool(data.get("deleted"))
        if deleted:
            db.execute(_ERASE, (data["uri"],))
        db.execute(
            "INSERT OR REPLACE INTO changed VALUES (?, ?, ?, ?, ?, ?)",
            (record.offset, record.timestamp_ms, data["uri"], deleted, data.get("version"), text),
        )

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        oldest = [
            db.execute(f"SELECT min(at_ms) FROM {table}").fetchone()[0]  # noqa: S608
            for table in _TIMED
        ]
        return min((at for at in oldest if at is not None), default=None)

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        removed = 0
        for table in _TIMED:
            removed += db.execute(_TRIM[table], (before_ms, limit - removed)).rowcount
        return removed


def read(record: Record) -> tuple[Literal["made", "changed"], dict[str, Any]]:
    """The kind and the data of a record that the bot itself has written: its fields are trusted,
    only what is not ours is refused. Raises ``BadRecord``."""
    kind = _TYPES.get(dict(record.headers).get("ce_type") or b"")
    if kind is None:
        raise BadRecord(ErrorCode.UNKNOWN_TYPE.value)
    try:
        data = json.loads(record.value or b"")
        complete = isinstance(data["uri"], str) and (
            kind == "changed" or isinstance(data["source"]["uri"], str)
        )
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise BadRecord(ErrorCode.SCHEMA.value)
    return ("made" if kind == "made" else "changed"), data
