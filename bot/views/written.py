"""Reading back what the view of conversations holds of one uri: its newest revision.

In: a connection to the view, uris. Out: ``Post`` and ``Message`` as they were told, their author
always of the same revision as their text. The newest revision has the highest version, then the
latest time of editing, then came last; a copy of an ancestor counts only where it does not
contradict what the post's own record says about its author or its conversation.
"""

import functools
import sqlite3
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from pydantic_core import from_json

from bot.knowledge import Stored
from bot.values import ms_of
from schemas.feed import Message, Post

W = TypeVar("W", Post, Message)
Owner = tuple[str, str]
"""Author and conversation: what contradicts them is something else under the same uri."""

PARSED = 2_000  # posts that are kept parsed
SHORT = 4_000  # characters of one at most, so that all of them take some megabytes

_COLUMNS = (
    "w.uri, revision, version, changed_ms, conversation, author, parent, told, w.seen_ms, origin,"
    " content"
)
_ONE = (
    f"SELECT d.uri IS NOT NULL, {_COLUMNS} FROM (SELECT ? AS uri) AS one"  # noqa: S608 - own names
    " LEFT JOIN deletions AS d ON d.kind = '{kind}' AND d.uri = one.uri"
    " LEFT JOIN {table} AS w ON w.uri = one.uri"
)
_BY_URI = {
    Post: _ONE.format(kind="post", table="posts"),
    Message: _ONE.format(kind="message", table="messages"),
}
# Whatever stands above a post by any revision of it; each uri once, so that no cycle goes on.
_RUN = (
    "WITH RECURSIVE up (uri) AS"  # noqa: S608 - own names
    " (SELECT ? UNION SELECT w.parent FROM up JOIN posts AS w ON w.uri = up.uri"
    " WHERE w.parent IS NOT NULL LIMIT ?)"
    f" SELECT up.uri, d.uri IS NOT NULL, {_COLUMNS} FROM up"
    " LEFT JOIN deletions AS d ON d.kind = 'post' AND d.uri = up.uri"
    " LEFT JOIN posts AS w ON w.uri = up.uri"
)
_CARRIED = (
    f"SELECT {_COLUMNS} FROM posts AS w WHERE uri = ? AND revision = ? AND conversation = ?"  # noqa: S608
    " ORDER BY told, seen_ms DESC, origin DESC LIMIT 1"
)
_ASKED = (
    "SELECT asked, quoted FROM questions"
    " WHERE kind = ? AND uri = ? AND conversation = ? AND author = ?"
)
_LAST_TALK = (
    "SELECT conversation FROM questions WHERE kind = ? AND uri = ?"
    " ORDER BY seen_ms DESC, origin DESC LIMIT 1"
)
_FIRST = " WHERE uri = ? AND conversation = ? AND told ORDER BY seen_ms, origin LIMIT 1"
_FIRST_AUTHOR = {
    Post: f"SELECT author FROM posts {_FIRST}",  # noqa: S608 - own names
    Message: f"SELECT author FROM messages {_FIRST}",  # noqa: S608 - own names
}
_KINDS = {Post: "post", Message: "message"}
_QUOTED = "SELECT quoted FROM quotes WHERE uri = ?"
_DELETED = "SELECT 1 FROM deletions WHERE kind = ? AND uri = ?"


class Row(NamedTuple):
    """One revision, its text not yet parsed; the fields are those of ``_COLUMNS``."""

    uri: str
    revision: str
    version: int
    changed_ms: int
    conversation: str
    author: str
    parent: str | None
    told: int
    seen_ms: int
    origin: int
    content: str


_NEWEST = attrgetter("version", "changed_ms", "told", "seen_ms", "origin")


def is_deleted(db: sqlite3.Connection, kind: type[Post] | type[Message], uri: str) -> bool:
    return db.execute(_DELETED, (_KINDS[kind], uri)).fetchone() is not None


def newest(
    db: sqlite3.Connection,
    kind: type[Post] | type[Message],
    uri: str,
    owner: Owner | None = None,
) -> Row | None:
    """The newest revision, with ``owner`` the newest of theirs; none where it was deleted."""
    deleted, rows = _revisions(db, kind, uri)
    return None if deleted else _newest_of(rows, owner)


def run_above(db: sqlite3.Connection, uri: str, limit: int) -> dict[str, Row | None]:
    """The newest revisions of a post and of what stands above it, by uri; none of what is
    unknown or was deleted. Read at once: the ``limit`` nearest, and more where several accounts
    or revisions name different parents."""
    found: dict[str, list[Row]] = {}
    gone: set[str] = set()
    for up, deleted, *columns in db.execute(_RUN, (uri, limit)).fetchall():
        rows = found.setdefault(up, [])
        if deleted:
            gone.add(up)
        elif columns[0] is not None:
            rows.append(Row(*columns))
    return {up: None if up in gone else _newest_of(rows) for up, rows in found.items()}


def asked(
    db: sqlite3.Connection,
    kind: type[Post] | type[Message],
    uri: str,
    conversation: str | None,
) -> tuple[Row, str, str | None] | None:
    """The newest revision of what asked the bot, the JSON of the event around it, and that of
    the quoted post. Of several accounts that are said to have written it, the first one did."""
    talk = conversation or _one(db, _LAST_TALK, _KINDS[kind], uri)
    author = _one(db, _FIRST_AUTHOR[kind], uri, talk)
    found = db.execute(_ASKED, (_KINDS[kind], uri, talk, author)).fetchone()
    if found is None or talk is None or author is None:
        return None
    row = newest(db, kind, uri, (author, talk))
    return None if row is None else (row, *found)


def carried(db: sqlite3.Connection, ref: Sequence[str], conversation: str) -> Post | None:
    """That very revision of a post, as the event had it that it came with; ``ref`` is its uri
    and its revision."""
    uri, revision = ref
    found = db.execute(_CARRIED, (uri, revision, conversation)).fetchone()
    return None if found is None or is_deleted(db, Post, uri) else parse(Post, Row(*found))


def _one(db: sqlite3.Connection, statement: str, *arguments: str | None) -> str | None:
    found = db.execute(statement, arguments).fetchone()
    return str(found[0]) if found else None


def _revisions(
    db: sqlite3.Connection, kind: type[Post] | type[Message], uri: str
) -> tuple[bool, list[Row]]:
    """Whether an uri was deleted, and the revisions that are there, also then."""
    found = db.execute(_BY_URI[kind], (uri,)).fetchall()
    return bool(found[0][0]), [Row(*columns) for _, *columns in found if columns[0] is not None]


def _newest_of(rows: list[Row], owner: Owner | None = None) -> Row | None:
    if owner is not None:
        rows = [row for row in rows if (row.author, row.conversation) == owner]
    return choose(sorted(rows, key=_NEWEST, reverse=True) if len(rows) > 1 else rows)


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
    """The post or message of a row. Most are asked for several times while one is answered, and
    those near the root with every answer in their thread."""
    read: Any = _parsed if len(row.content) <= SHORT else _parsed.__wrapped__
    post: W = read(kind, row.uri, row.revision, row.conversation, row.content)
    return post


@functools.lru_cache(maxsize=PARSED)
def _parsed(
    kind: type[Post] | type[Message], uri: str, revision: str, conversation: str, content: str
) -> Post | Message:
    return kind.model_validate(
        from_json(content) | {"uri": uri, "revision": revision, "conversation_id": conversation}
    )


def _either(kind: type[Post] | type[Message], row: Row) -> Post | Message:
    return parse(Post, row) if kind is Post else parse(Message, row)


def latest(db: sqlite3.Connection, uri: str) -> Stored | None:
    """The newest of an uri, post or message; none where nothing is known."""
    kinds: tuple[type[Post] | type[Message], ...] = (Post, Message)
    for kind in kinds:
        deleted, rows = _revisions(db, kind, uri)
        row = _newest_of(rows)
        if deleted:
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
    deleted, rows = _revisions(db, kind, post.uri)
    if deleted:
        return Stored(None, None, deleted=True)
    row = _newest_of(rows, (post.author.id, post.conversation_id))
    if row is None:
        return _changed_elsewhere(db, post) if isinstance(post, Post) else None
    if row.revision == post.revision:
        return None
    if (row.version, row.changed_ms) <= (post.version, changed_ms(post)):
        return None
    return Stored(_either(kind, row), row.revision, deleted=False)


def _changed_elsewhere(db: sqlite3.Connection, post: Post) -> Stored | None:
    """The same of a post of another conversation, that was quoted in this one."""
    found = db.execute(_QUOTED, (post.uri,)).fetchone()
    if found is None:
        return None
    now = whole(found[0])
    same = (now.author.id, now.conversation_id) == (post.author.id, post.conversation_id)
    newer = (now.version, changed_ms(now)) > (post.version, changed_ms(post))
    return Stored(now, now.revision, deleted=False) if same and newer else None


def changed_ms(post: Post | Message) -> int:
    """When this revision was made, in ms since 1970."""
    return ms_of(post.edited_at or post.created_at)


def whole(text: str) -> Post:
    """A post that was kept as a whole."""
    data: Any = from_json(text)
    return Post.model_validate(data)
