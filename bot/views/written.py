"""Reading back what the view of conversations holds of one uri: its newest revision.

In: a connection to the view, uris. Out: ``Post`` and ``Message`` as they were told, their author
always of the same revision as their text. The newest revision has the highest version, then the
latest time of editing, then came last; a copy of an ancestor counts only where it does not
contradict what the post's own record says about its author or its conversation.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json

from bot.knowledge import Stored
from bot.values import ms_of
from schemas.feed import Message, Post

W = TypeVar("W", Post, Message)

_COLUMNS = "uri, revision, version, changed_ms, conversation, author, parent, told, content"
_BY_URI = {
    Post: f"SELECT {_COLUMNS} FROM posts WHERE uri = ?"  # noqa: S608 - own names
    " ORDER BY version DESC, changed_ms DESC, told DESC, seen_ms DESC, origin DESC",
    Message: f"SELECT {_COLUMNS} FROM messages WHERE uri = ?"  # noqa: S608 - own names
    " ORDER BY version DESC, changed_ms DESC, told DESC, seen_ms DESC, origin DESC",
}
_KINDS = {Post: "post", Message: "message"}
_QUOTED = "SELECT quoted FROM quotes WHERE uri = ?"
_DELETED = "SELECT 1 FROM deletions WHERE kind = ? AND uri = ?"


@dataclass(frozen=True, slots=True)
class Row:
    """One revision, its text not yet parsed."""

    uri: str
    revision: str
    version: int
    changed_ms: int
    conversation: str
    author: str
    parent: str | None
    told: int
    content: str


def is_deleted(db: sqlite3.Connection, kind: type[Post] | type[Message], uri: str) -> bool:
    return db.execute(_DELETED, (_KINDS[kind], uri)).fetchone() is not None


def newest(db: sqlite3.Connection, kind: type[Post] | type[Message], uri: str) -> Row | None:
    """The newest revision that is there, deleted or not."""
    return choose([Row(*row) for row in db.execute(_BY_URI[kind], (uri,))])


def choose(rows: Sequence[Row]) -> Row | None:
    """Of the revisions of one uri, newest first, the one that counts."""
    if len(rows) <= 1:
        return rows[0] if rows else None
    told = next((row for row in rows if row.told), None)
    if told is None:
        return rows[0]
    owner = told.author, told.conversation
    return next(row for row in rows if (row.author, row.conversation) == owner)


def parse(kind: type[W], row: Row) -> W:
    return kind.model_validate(
        from_json(row.content)
        | {"uri": row.uri, "revision": row.revision, "conversation_id": row.conversation}
    )


def _either(kind: type[Post] | type[Message], row: Row) -> Post | Message:
    return parse(Post, row) if kind is Post else parse(Message, row)


def latest(db: sqlite3.Connection, uri: str) -> Stored | None:
    """The newest of an uri, post or message; none where nothing is known."""
    kinds: tuple[type[Post] | type[Message], ...] = (Post, Message)
    for kind in kinds:
        row = newest(db, kind, uri)
        if is_deleted(db, kind, uri):
            return Stored(None, row.revision if row else None, deleted=True)
        if row is not None:
            return Stored(_either(kind, row), row.revision, deleted=False)
    return None


def changed(db: sqlite3.Connection, post: Post | Message) -> Stored | None:
    """What became of that revision: a later one of the same author in the same place, or its
    deletion; none where there is nothing of the sort.

    What contradicts the post at hand (another author, another conversation) is not a revision
    of it: the two can't be told apart by the uri, and each keeps its own words.
    """
    kind: type[Post] | type[Message] = Post if isinstance(post, Post) else Message
    if is_deleted(db, kind, post.uri):
        return Stored(None, None, deleted=True)
    row = newest(db, kind, post.uri)
    if row is None or row.revision == post.revision:
        return None
    same = (row.author, row.conversation) == (post.author.id, post.conversation_id)
    if not same or (row.version, row.changed_ms) <= (post.version, changed_ms(post)):
        return None
    return Stored(_either(kind, row), row.revision, deleted=False)


def changed_ms(post: Post | Message) -> int:
    """When this revision was made, in ms since 1970."""
    return ms_of(post.edited_at or post.created_at)


def whole(text: str) -> Post:
    """A post that was kept as a whole."""
    data: Any = from_json(text)
    return Post.model_validate(data)


def quoted_now(db: sqlite3.Connection, text: str | None) -> Post | None:
    """A quoted post that was kept with a question, as it reads now; ``text`` is its JSON."""
    if text is None:
        return None
    post = whole(text)
    row = db.execute(_QUOTED, (post.uri,)).fetchone()
    now = whole(row[0]) if row else post
    same = (now.author.id, now.conversation_id) == (post.author.id, post.conversation_id)
    newer = (now.version, changed_ms(now)) > (post.version, changed_ms(post))
    return now if same and newer else post
