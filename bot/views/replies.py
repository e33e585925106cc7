"""The view of what the bot decided and said: repeats, and what each reply was built on.

In: ``bot.audit``, ``bot.audit-private``, ``bot.replies``, ``bot.direct-replies``, all written by
the bot itself: read, not checked. Out: tables that ``bot/views/said.py`` asks. Guaranteed: what
was taken back leaves no text. Creations, corrections and retractions have tables of their own, so
that a row never depends on a record that may be too old to be there.

Ids of events and posts are kept as 64 bits of their BLAKE2b: a tenth of the room.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Literal

from bot.digests import digest_of
from bot.values import GONE_MEANWHILE
from bot.views.records import RANK, indexes, oldest, origin_of, own_event, trim
from consumers.views.view import BadRecord
from schemas import names
from schemas.codes import ErrorCode, SkipReason
from schemas.record import Record

_TABLES = """
CREATE TABLE decisions (
    id TEXT NOT NULL PRIMARY KEY,
    event INTEGER,           -- of (ce_source, ce_id) of its input
    revision INTEGER,        -- of (uri, revision) of its post, none where it tells of a deletion
    uri INTEGER,             -- of the uri of its post, also where it is a review
    source_revision TEXT, outcome TEXT NOT NULL, reason TEXT, duplicate_of TEXT,
    review INTEGER NOT NULL, private INTEGER NOT NULL,
    input TEXT NOT NULL, input_offset INTEGER NOT NULL,  -- topic and offset of what it is on
    seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL
);
CREATE INDEX decisions_by_input ON decisions (input, input_offset);
CREATE INDEX decisions_by_event ON decisions (event) WHERE event IS NOT NULL;
CREATE INDEX decisions_by_revision ON decisions (revision) WHERE revision IS NOT NULL;
CREATE INDEX decisions_by_uri ON decisions (uri) WHERE uri IS NOT NULL;
CREATE TABLE parts (
    reply_id TEXT NOT NULL PRIMARY KEY, uri INTEGER NOT NULL, source_uri TEXT NOT NULL,
    source_revision TEXT, conversation TEXT NOT NULL, part INTEGER NOT NULL,
    parts INTEGER NOT NULL, decision_id TEXT NOT NULL, private INTEGER NOT NULL,
    content TEXT NOT NULL, seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL
);
CREATE INDEX parts_by_uri ON parts (uri);
CREATE TABLE corrections (
    reply_id TEXT NOT NULL PRIMARY KEY, decision_id TEXT NOT NULL, revision TEXT NOT NULL,
    content TEXT NOT NULL, seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL
);
CREATE TABLE retractions (
    reply_id TEXT NOT NULL PRIMARY KEY, decision_id TEXT NOT NULL,
    seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL
)
"""
_TIMED = ("decisions", "parts", "corrections", "retractions")
_PRIVATE = frozenset({names.BOT_AUDIT_PRIVATE, names.BOT_DIRECT_REPLIES})


def _upsert(table: str, columns: int) -> str:
    places = ", ".join("?" * columns)
    return f"REPLACE INTO {table} VALUES ({places})"  # noqa: S608 - own names


_DECISION = _upsert("decisions", 14)
_PART = _upsert("parts", 12)
_CORRECTION = _upsert("corrections", 6)
_RETRACTION = _upsert("retractions", 4)
_PLACE = {
    table: f"SELECT seen_ms, origin FROM {table} WHERE {key} = ?"  # noqa: S608 - own names
    for table, key in (
        ("decisions", "id"),
        ("parts", "reply_id"),
        ("corrections", "reply_id"),
        ("retractions", "reply_id"),
    )
}
# Of the same topic only: what another topic holds may come before or after.
_OF_TOPIC = "WHERE reply_id = ? AND origin BETWEEN ? AND ?"
_TEXT = f"SELECT content FROM parts {_OF_TOPIC}"  # noqa: S608 - own names
_ERASE = f"UPDATE parts SET content = ? {_OF_TOPIC}"  # noqa: S608 - own names
_ERASE_CORRECTION = f"UPDATE corrections SET content = '{{}}' {_OF_TOPIC}"  # noqa: S608 - own names
# What a part and a correction keep as JSON: see ``bot.knowledge.ReplyPart``.
_STAYS = frozenset({"visibility", "created_at"})  # when a reply is taken back
_CONTENT = ("text", "facets", "langs", "visibility", "built_on", "created_at")


def key_of(*parts: str) -> int:
    """64 bits of a few strings, none of which can be mistaken for its neighbour."""
    return int.from_bytes(digest_of(*parts, size=8), "big", signed=True)


class RepliesView:
    """See the module."""

    name = "replies"
    layout = 4
    topics: tuple[str, ...] = (
        names.BOT_AUDIT,
        names.BOT_AUDIT_PRIVATE,
        names.BOT_REPLIES,
        names.BOT_DIRECT_REPLIES,
    )
    scope: Literal["partition", "all"] = "partition"

    def create(self, db: sqlite3.Connection) -> None:
        for statement in f"{_TABLES};{indexes(_TIMED)}".split(";"):
            db.execute(statement)

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        kind, data = own_event(record)
        step = _STEPS.get(kind)
        if step is None:
            raise BadRecord(ErrorCode.UNKNOWN_TYPE.value)
        place = record.timestamp_ms, origin_of(record, self.topics)
        try:
            step(db, data, int(record.topic in _PRIVATE), place)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadRecord(ErrorCode.SCHEMA.value) from None

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        return oldest(db, _TIMED)

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        return trim(db, _TIMED, before_ms, limit)


Place = tuple[int, int]  # seen_ms, origin


def _decision(db: sqlite3.Connection, data: Mapping[str, Any], private: int, at: Place) -> None:
    asked: Mapping[str, Any] = data["input"]
    ref: Mapping[str, Any] = data.get("source_ref") or {}
    review = asked["topic"] == names.BOT_REVIEWS
    uri: Any = ref.get("uri")
    revision: Any = ref.get("revision")
    reason = data.get("reason")
    told = uri and revision and not review and not _is_of_deletion(data)
    event = None if asked.get("id") is None else key_of(asked["source"], asked["id"])
    row = (
        _text(data["decision_id"]),
        event,
        key_of(uri, revision) if told else None,
        key_of(uri) if uri is not None else None,
        revision,
        _text(data["outcome"]),
        reason,
        data.get("duplicate_of"),
        int(review),
        private,
        _text(asked["topic"]),
        int(asked["offset"]),
        *at,
    )
    _put(db, "decisions", _DECISION, row)


def _is_of_deletion(data: Mapping[str, Any]) -> bool:
    """Whether the input told of a deletion, and so nothing about the revision that it names; a
    message that was gone before it was answered is another thing."""
    if data.get("reason") != SkipReason.DELETED:
        return False
    if data["input"]["topic"] != names.FEED_DIRECT_MESSAGES:  # nowhere else is one an input
        return False
    last: Mapping[str, Any] = (data.get("rules") or ({},))[-1]
    return last.get("name") == "deleted" and last.get("detail") != GONE_MEANWHILE


def _created(db: sqlite3.Connection, data: Mapping[str, Any], private: int, at: Place) -> None:
    source = data["in_reply_to"]
    row = (
        _text(data["reply_id"]),
        key_of(source["uri"]),
        source["uri"],
        source.get("revision"),
        _text(data["conversation_id"]),
        int(data["part"]),
        int(data["parts"]),
        _text(data["decision_id"]),
        private,
        _content(data),
        *at,
    )
    _put(db, "parts", _PART, row)


def _corrected(db: sqlite3.Connection, data: Mapping[str, Any], private: int, at: Place) -> None:
    reply_id, decision, revision = data["reply_id"], data["decision_id"], data["revision"]
    row = (_text(reply_id), _text(decision), _text(revision), _content(data), *at)
    _put(db, "corrections", _CORRECTION, row)


def _retracted(db: sqlite3.Connection, data: Mapping[str, Any], private: int, at: Place) -> None:
    reply_id, topic = _text(data["reply_id"]), at[1] // RANK * RANK
    _put(db, "retractions", _RETRACTION, (reply_id, _text(data["decision_id"]), *at))
    there = reply_id, topic, at[1]
    for (content,) in db.execute(_TEXT, there).fetchall():
        kept = {name: value for name, value in json.loads(content).items() if name in _STAYS}
        db.execute(_ERASE, (json.dumps(kept), *there))
    db.execute(_ERASE_CORRECTION, there)


_STEPS: dict[str, Callable[[sqlite3.Connection, Mapping[str, Any], int, Place], None]] = {
    names.DECISION_RECORDED: _decision,
    names.REPLY_CREATED: _created,
    names.DIRECT_REPLY_CREATED: _created,
    names.REPLY_CORRECTED: _corrected,
    names.DIRECT_REPLY_CORRECTED: _corrected,
    names.REPLY_RETRACTED: _retracted,
    names.DIRECT_REPLY_RETRACTED: _retracted,
}


def _put(db: sqlite3.Connection, table: str, statement: str, row: tuple[Any, ...]) -> None:
    """The later of two records about the same wins; its key is the first column."""
    there = db.execute(_PLACE[table], (row[0],)).fetchone()
    if there is None or tuple(row[-2:]) >= tuple(there):
        db.execute(statement, row)


def _content(data: Mapping[str, Any]) -> str:
    kept = {name: data[name] for name in _CONTENT if data.get(name)}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
