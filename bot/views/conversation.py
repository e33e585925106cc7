"""The view of what people wrote: every revision of posts and messages, and what asked the bot.

In: ``feed.posts``, ``feed.mentions`` (the post and the ancestors that came with it),
``feed.direct-messages``, and ``bot.reviews`` for what became of quoted posts. Out: tables that
``bot/views/threads.py`` and ``bot/views/talks.py`` ask. Guaranteed: a row holds the whole of one
revision, author and text together; posts and private messages stand in tables of their own;
what is deleted, or forgotten by ``/forget``, leaves its table at once.

``told`` is 1 where the record is about the post itself, 0 for the copy of an ancestor; both are
kept apart, so that a copy never replaces what the post's own record says. An uri that is told in
two conversations, or of two authors, is two things: neither replaces the other. Only posts of the
record's own conversation are kept: its later edits and deletions come to the same partition.
A quoted post of another conversation stands with the question that carried it; what is told here
of its edits and its deletion comes with the reviews of the replies that were built on it.
"""

import json
import sqlite3
from collections.abc import Callable
from typing import Any, Literal

from bot.forget import is_forget
from bot.values import ms_of
from bot.views.records import event_of, indexes, oldest, origin_of, trim
from consumers.views.view import BadRecord
from schemas import names
from schemas.codes import ErrorCode
from schemas.feed import (
    MentionCreated,
    Message,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Post,
    PostCreated,
    PostDeleted,
    PostEdited,
)
from schemas.record import Record
from schemas.reviews import ReviewAsked

POST, MESSAGE = "post", "message"  # the two kinds of things that have an uri

_WRITTEN = """
    uri TEXT NOT NULL, revision TEXT NOT NULL, told INTEGER NOT NULL,
    version INTEGER NOT NULL, changed_ms INTEGER NOT NULL,  -- which revision is the newest
    conversation TEXT NOT NULL, author TEXT NOT NULL, parent TEXT, created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL,
    content TEXT NOT NULL,  -- JSON of the rest
    PRIMARY KEY (uri, revision, told, conversation, author)
"""
_TABLES = f"""
CREATE TABLE posts ({_WRITTEN});
CREATE INDEX posts_by_parent ON posts (parent, author, created_ms) WHERE parent IS NOT NULL;
CREATE TABLE messages ({_WRITTEN});
CREATE INDEX messages_by_conversation ON messages (conversation, created_ms, origin);
CREATE TABLE deletions (
    kind TEXT NOT NULL, uri TEXT NOT NULL, seen_ms INTEGER NOT NULL, PRIMARY KEY (kind, uri)
);
CREATE TABLE forgets (
    conversation TEXT NOT NULL PRIMARY KEY, uri TEXT NOT NULL, created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL
);
CREATE TABLE questions (
    kind TEXT NOT NULL, uri TEXT NOT NULL, conversation TEXT NOT NULL,
    seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL,
    author TEXT NOT NULL,
    asked TEXT NOT NULL,  -- JSON of the event without any post, the ancestors by uri and revision
    quoted_uri TEXT, quoted TEXT,  -- JSON of the whole post
    PRIMARY KEY (kind, uri, conversation, author)
);
CREATE TABLE quotes (  -- the newest of quoted posts that were edited
    uri TEXT NOT NULL PRIMARY KEY, seen_ms INTEGER NOT NULL, origin INTEGER NOT NULL,
    quoted TEXT NOT NULL  -- JSON of the whole post
);
CREATE INDEX questions_by_quoted ON questions (quoted_uri) WHERE quoted_uri IS NOT NULL;
CREATE INDEX questions_by_conversation ON questions (conversation) WHERE kind = 'message'
"""
_TIMED = ("posts", "messages", "deletions", "forgets", "questions", "quotes")

_INSERT = """
INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (uri, revision, told, conversation, author) DO UPDATE SET
    version = excluded.version, changed_ms = excluded.changed_ms, parent = excluded.parent,
    created_ms = excluded.created_ms, seen_ms = excluded.seen_ms, origin = excluded.origin,
    content = excluded.content
WHERE (excluded.seen_ms, excluded.origin) >= ({table}.seen_ms, {table}.origin)
"""
_INSERTS = {POST: _INSERT.format(table="posts"), MESSAGE: _INSERT.format(table="messages")}
_ERASE = {
    POST: "DELETE FROM posts WHERE uri = ? AND seen_ms <= ?",
    MESSAGE: "DELETE FROM messages WHERE uri = ? AND seen_ms <= ?",
}
_DELETED = "SELECT 1 FROM deletions WHERE kind = ? AND uri = ? AND seen_ms >= ?"
_DELETE = """
INSERT INTO deletions VALUES (?, ?, ?)
ON CONFLICT (kind, uri) DO UPDATE SET seen_ms = max(seen_ms, excluded.seen_ms)
"""
_ASK = """
INSERT INTO questions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, uri, conversation, author) DO UPDATE SET
    seen_ms = excluded.seen_ms, origin = excluded.origin,
    asked = excluded.asked, quoted_uri = excluded.quoted_uri, quoted = excluded.quoted
WHERE (excluded.seen_ms, excluded.origin) >= (questions.seen_ms, questions.origin)
"""
_QUOTE = """
INSERT INTO quotes VALUES (?, ?, ?, ?)
ON CONFLICT (uri) DO UPDATE SET
    seen_ms = excluded.seen_ms, origin = excluded.origin, quoted = excluded.quoted
WHERE (excluded.seen_ms, excluded.origin) >= (quotes.seen_ms, quotes.origin)
"""
_FORGET = """
INSERT INTO forgets VALUES (?, ?, ?, ?, ?)
ON CONFLICT (conversation) DO UPDATE SET
    uri = excluded.uri, created_ms = excluded.created_ms, seen_ms = excluded.seen_ms,
    origin = excluded.origin
WHERE (excluded.seen_ms, excluded.origin) >= (forgets.seen_ms, forgets.origin)
"""


class ConversationView:
    """See the module. ``bot_id``: the account that ``/forget`` must name in a group."""

    name = "conversation"
    layout = 5
    topics: tuple[str, ...] = (
        names.FEED_POSTS,
        names.FEED_MENTIONS,
        names.FEED_DIRECT_MESSAGES,
        names.BOT_REVIEWS,
    )
    scope: Literal["partition", "all"] = "partition"

    def __init__(self, bot_id: str) -> None:
        self._bot_id = bot_id

    def create(self, db: sqlite3.Connection) -> None:
        for statement in f"{_TABLES};{indexes(_TIMED)}".split(";"):
            db.execute(statement)

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        data = event_of(record).data
        step = _STEPS.get(type(data))
        if step is None:
            raise BadRecord(ErrorCode.WRONG_TOPIC.value)
        place = record.timestamp_ms, origin_of(record, self.topics)
        step(_Writing(db, self._bot_id, *place), data)

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        return oldest(db, _TIMED)

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        return trim(db, _TIMED, before_ms, limit)


class _Writing:
    """What one record writes. ``seen_ms`` and ``origin`` are those of the record."""

    def __init__(self, db: sqlite3.Connection, bot_id: str, seen_ms: int, origin: int) -> None:
        self._db = db
        self._bot_id = bot_id
        self._seen_ms = seen_ms
        self._origin = origin

    def post(self, data: PostCreated | PostEdited) -> None:
        self._revision(POST, data.post)

    def mention(self, data: MentionCreated) -> None:
        post = data.post
        ours = [above for above in data.ancestors if above.conversation_id == post.conversation_id]
        for above in ours:
            self._revision(POST, above, told=False)
        quoted = data.quoted
        if quoted is not None and quoted.conversation_id == post.conversation_id:
            self._revision(POST, quoted, told=False)
        self._revision(POST, post)
        asked = {
            "mentioned_account_id": data.mentioned_account_id,
            "reason": data.reason.value,
            "ancestors_complete": data.ancestors_complete,
            "ancestors": [[above.uri, above.revision] for above in ours],
        }
        self._question(POST, post, asked, quoted)

    def message(self, data: MessageCreated | MessageEdited) -> None:
        message = data.message
        if isinstance(data, MessageCreated):
            if is_forget(message, self._bot_id):
                self._forget(message)
                return
            self._question(MESSAGE, message, {}, message.quoted)
        self._revision(MESSAGE, message)

    def deletion(self, data: PostDeleted) -> None:
        self._delete(MESSAGE if isinstance(data, MessageDeleted) else POST, data.ref.uri)

    def review(self, data: ReviewAsked) -> None:
        change = data.change
        if change.deleted:
            self._delete(POST, change.uri)
        elif change.post is not None and not self._is_deleted(POST, change.uri):
            text = change.post.model_dump_json(exclude_defaults=True)
            self._db.execute(_QUOTE, (change.uri, self._seen_ms, self._origin, text))

    def _delete(self, kind: str, uri: str) -> None:
        db, seen = self._db, self._seen_ms
        db.execute(_DELETE, (kind, uri, seen))
        db.execute(_ERASE[kind], (uri, seen))
        db.execute(
            "DELETE FROM questions WHERE kind = ? AND uri = ? AND seen_ms <= ?", (kind, uri, seen)
        )
        if kind == POST:
            db.execute(
                "UPDATE questions SET quoted = NULL WHERE quoted_uri = ? AND seen_ms <= ?",
                (uri, seen),
            )
            db.execute("DELETE FROM quotes WHERE uri = ? AND seen_ms <= ?", (uri, seen))

    def _revision(self, kind: str, post: Post | Message, *, told: bool = True) -> None:
        if self._is_deleted(kind, post.uri):
            return
        self._db.execute(
            _INSERTS[kind],
            (
                post.uri,
                post.revision,
                told,
                post.version,
                ms_of(post.edited_at or post.created_at),
                post.conversation_id,
                post.author.id,
                post.parent.uri if post.parent else None,
                ms_of(post.created_at),
                self._seen_ms,
                self._origin,
                _content(post),
            ),
        )

    def _question(
        self, kind: str, post: Post | Message, asked: dict[str, Any], quoted: Post | None
    ) -> None:
        if self._is_deleted(kind, post.uri):
            return
        uri = quoted.uri if quoted else None
        gone = uri is not None and self._is_deleted(POST, uri)
        text = None if quoted is None or gone else quoted.model_dump_json(exclude_defaults=True)
        text_asked = json.dumps(asked, ensure_ascii=False, separators=(",", ":"))
        place = kind, post.uri, post.conversation_id, self._seen_ms, self._origin
        self._db.execute(_ASK, (*place, post.author.id, text_asked, uri, text))

    def _forget(self, message: Message) -> None:
        """What was written before it goes, by the platform's clock: the same command may come
        again much later, and then what was said since stays."""
        talk, db, created_ms = message.conversation_id, self._db, ms_of(message.created_at)
        place = self._seen_ms, self._origin
        db.execute(_FORGET, (talk, message.uri, created_ms, *place))
        db.execute(
            "DELETE FROM messages WHERE conversation = ?"
            " AND (created_ms, seen_ms, origin) < (?, ?, ?)",
            (talk, created_ms, *place),
        )
        db.execute(
            "DELETE FROM questions WHERE kind = 'message' AND conversation = ?"
            " AND (seen_ms, origin) < (?, ?)"
            " AND uri NOT IN (SELECT uri FROM messages WHERE conversation = ?)",
            (talk, *place, talk),
        )

    def _is_deleted(self, kind: str, uri: str) -> bool:
        """Whether it was deleted, as far as this record can know."""
        return self._db.execute(_DELETED, (kind, uri, self._seen_ms)).fetchone() is not None


_STEPS: dict[type, Callable[[_Writing, Any], None]] = {
    PostCreated: _Writing.post,
    PostEdited: _Writing.post,
    PostDeleted: _Writing.deletion,
    MentionCreated: _Writing.mention,
    MessageCreated: _Writing.message,
    MessageEdited: _Writing.message,
    MessageDeleted: _Writing.deletion,
    ReviewAsked: _Writing.review,
}


def _content(post: Post | Message) -> str:
    """The JSON of what has no column of its own and of what is not shown: a quoted post stands
    with the question, where its deletion finds it."""
    return post.model_dump_json(
        exclude={"uri", "revision", "conversation_id", "quoted"}, exclude_defaults=True
    )
