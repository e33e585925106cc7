"""Private talks: what was said before a message, read from the view of conversations.

In: a message. Out: messages, newest revisions only, nothing that was deleted, nothing from before
the last ``/forget``. Everything comes from the table of messages.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime

from bot.values import ms_of
from bot.views.written import Row, asked, newest, parse, whole
from schemas.feed import Message, MessageCreated

_END = 1 << 62  # behind every origin
_BEFORE = (
    "SELECT uri, author, created_ms, origin FROM messages"
    " WHERE conversation = ? AND (created_ms, origin) < (?, ?) AND created_ms >= ?"
    " ORDER BY created_ms DESC, origin DESC LIMIT ?"
)
_MARK = "SELECT uri, created_ms, origin FROM forgets WHERE conversation = ?"
_PLACE = "SELECT created_ms, min(origin) FROM messages WHERE uri = ? GROUP BY created_ms"
_REVISIONS = 4  # rows that are read for each turn asked for


def messages(
    db: sqlite3.Connection, message: Message, limit: int, oldest: datetime
) -> tuple[Message, ...]:
    """The last ``limit`` messages of the talk before ``message``, oldest first.

    By the platform's time of writing, and within one moment in the order of the log: a message
    that is not in the view yet comes behind all that are.
    """
    found: list[Message] = []
    for row in _before(db, message, limit, ms_of(oldest)):
        if row.uri != message.uri:
            found.append(parse(Message, row))
        if len(found) == limit:
            break
    return tuple(reversed(found))


def question(
    db: sqlite3.Connection, uri: str, conversation: str | None = None
) -> MessageCreated | None:
    """The message in its newest revision, with the quoted post that its event had."""
    found = asked(db, Message, uri, conversation)
    if found is None:
        return None
    row, _, quote = found
    quoted = whole(quote) if quote is not None else None
    return MessageCreated(message=parse(Message, row).model_copy(update={"quoted": quoted}))


def _before(db: sqlite3.Connection, message: Message, limit: int, oldest_ms: int) -> Iterator[Row]:
    """The newest revision of each message, newest message first."""
    mark_uri, mark_ms, mark_origin = db.execute(_MARK, (message.conversation_id,)).fetchone() or (
        None,
        -1,
        -1,
    )
    done: set[str] = set()
    for uri, author, *place in _rows(db, message, limit, max(oldest_ms, mark_ms)):
        if uri in done or place < [mark_ms, mark_origin]:
            continue
        done.add(uri)
        owner = author, message.conversation_id
        row = newest(db, Message, uri, owner)
        forgotten = row is not None and row.parent == mark_uri and mark_uri is not None
        if row is not None and not forgotten:  # forgotten: the bot's confirmation
            yield row


def _rows(
    db: sqlite3.Connection, message: Message, limit: int, oldest_ms: int
) -> Iterator[tuple[str, str, int, int]]:
    """Uri, author, time and origin of every revision, newest message first, read as far as they
    are asked for."""
    at, page = _place(db, message), _REVISIONS * (limit + 1)
    while True:
        rows = db.execute(_BEFORE, (message.conversation_id, *at, oldest_ms, page)).fetchall()
        for uri, author, created_ms, origin in rows:
            at = created_ms, origin
            yield uri, author, created_ms, origin
        if len(rows) < page:
            return
        page *= 2


def _place(db: sqlite3.Connection, message: Message) -> tuple[int, int]:
    """Time of writing and place in the log of a message."""
    created = ms_of(message.created_at)
    row = db.execute(_PLACE, (message.uri,)).fetchone()
    return (created, row[1] if row and row[0] == created else _END)
