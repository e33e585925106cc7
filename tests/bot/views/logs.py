"""Records of the topics that the bot's views read, and views built of them in memory."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from bot.known import KnowledgeOfViews
from bot.views.accounts import AccountsView
from bot.views.conversation import ConversationView
from bot.views.moderation import ModerationView
from bot.views.replies import RepliesView
from consumers.views.view import BadRecord, View
from consumers.views.views import ViewLost
from schemas import codec, names
from schemas.audit import DecisionRecorded
from schemas.control import ModerationCommanded
from schemas.envelope import Envelope
from schemas.feed import (
    AccountChanged,
    MentionCreated,
    Message,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Post,
    PostCreated,
    PostDeleted,
    PostEdited,
    Ref,
)
from schemas.record import Record
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from schemas.reviews import PostChanged, ReviewAsked
from tests.bot.make import BOT, NOW, NOW_MS

KINDS: dict[type[BaseModel], tuple[str, str]] = {
    PostCreated: (names.FEED_POSTS, names.POST_CREATED),
    PostEdited: (names.FEED_POSTS, names.POST_EDITED),
    PostDeleted: (names.FEED_POSTS, names.POST_DELETED),
    MentionCreated: (names.FEED_MENTIONS, names.MENTION_CREATED),
    MessageCreated: (names.FEED_DIRECT_MESSAGES, names.MESSAGE_CREATED),
    MessageEdited: (names.FEED_DIRECT_MESSAGES, names.MESSAGE_EDITED),
    MessageDeleted: (names.FEED_DIRECT_MESSAGES, names.MESSAGE_DELETED),
    AccountChanged: (names.FEED_ACCOUNTS, names.ACCOUNT_CHANGED),
    ModerationCommanded: (names.BOT_MODERATION, names.MODERATION_COMMANDED),
    DecisionRecorded: (names.BOT_AUDIT, names.DECISION_RECORDED),
    ReviewAsked: (names.BOT_REVIEWS, names.REVIEW_ASKED),
    ReplyCreated: (names.BOT_REPLIES, names.REPLY_CREATED),
    ReplyCorrected: (names.BOT_REPLIES, names.REPLY_CORRECTED),
    ReplyRetracted: (names.BOT_REPLIES, names.REPLY_RETRACTED),
}
DIRECT = {
    names.BOT_REPLIES: names.BOT_DIRECT_REPLIES,
    names.BOT_AUDIT: names.BOT_AUDIT_PRIVATE,
    names.REPLY_CREATED: names.DIRECT_REPLY_CREATED,
    names.REPLY_CORRECTED: names.DIRECT_REPLY_CORRECTED,
    names.REPLY_RETRACTED: names.DIRECT_REPLY_RETRACTED,
}


@dataclass
class Log:
    """Topics of one partition; each record is a second later than the one before."""

    records: list[Record] = field(default_factory=list)

    def add(self, data: BaseModel, *, private: bool = False, **envelope: Any) -> Record:
        topic, kind = KINDS[type(data)]
        if private:
            topic, kind = DIRECT[topic], DIRECT.get(kind, kind)
        number = len(self.records)
        told = {"id": f"event-{number}", "source": "/platform"} | envelope
        at = NOW + timedelta(seconds=number)
        head = Envelope(type=kind, time=at, **told)
        output = codec.encode(topic, key_of(data), head, data)
        return self.put(
            Record(
                topic=topic,
                partition=0,
                offset=sum(record.topic == topic for record in self.records),
                timestamp_ms=NOW_MS + 1000 * number,
                key=output.key,
                value=output.value,
                headers=output.headers,
            )
        )

    def put(self, record: Record) -> Record:
        self.records.append(record)
        return record

    def tombstone(self, topic: str, key: str) -> Record:
        return self.put(
            Record(
                topic=topic,
                partition=0,
                offset=sum(record.topic == topic for record in self.records),
                timestamp_ms=NOW_MS + 1000 * len(self.records),
                key=key.encode(),
                value=None,
            )
        )

    def view(self, view: View) -> sqlite3.Connection:
        return built(view, self.records)

    def knowledge(self) -> KnowledgeOfViews:
        """What is known after all of it."""
        return knowing(self.records)


def key_of(data: Any) -> str:
    for path in ("post", "message"):
        if hasattr(data, path):
            return str(getattr(data, path).conversation_id)
    for name in ("conversation_id", "account_id", "subject"):
        if getattr(data, name, None):
            return str(getattr(data, name))
    raise AssertionError(type(data))


def built(view: View, records: Iterable[Record]) -> sqlite3.Connection:
    """The view of these records, in this order; bad ones are skipped as the store skips them."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    view.create(db)
    for record in records:
        if record.topic in view.topics:
            try:
                view.apply(db, record)
            except BadRecord:
                continue
    return db


def rows(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted."""
    found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr)  # noqa: S608
        for (name,) in found
    }


@dataclass
class Opened:
    """A view as ``KnowledgeOfViews`` needs it."""

    db: sqlite3.Connection
    positions: Mapping[str, int] = field(default_factory=dict)
    as_of_ms: int = NOW_MS * 2

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
        return self.as_of_ms >= timestamp_ms

    def lost(self, error: sqlite3.Error) -> ViewLost:
        return ViewLost(str(error))


VIEWS: Sequence[Callable[[], View]] = (
    lambda: ConversationView(BOT.id),
    RepliesView,
    AccountsView,
    ModerationView,
)


def knowing(records: Sequence[Record]) -> KnowledgeOfViews:
    """What is known after these records."""
    opened = {view.name: Opened(built(view, records)) for view in (make() for make in VIEWS)}
    for name, one in opened.items():
        one.positions = {f"{name}-topic/0": len(records)}
    return KnowledgeOfViews(lambda: opened, BOT.id, wait_s=0.0)


def deleted(uri: str, kind: type[PostDeleted] = PostDeleted, talk: str = "conv-1") -> PostDeleted:
    return kind(ref=Ref(uri=uri), conversation_id=talk, deleted_by="author", deleted_at=NOW)


def edited(post: Post | Message, text: str, revision: str = "r2", **fields: Any) -> Any:
    """The event of an edit: a new revision, a version further."""
    after = {
        "text": text,
        "revision": revision,
        "version": post.version + 1,
        "edited_at": NOW + timedelta(minutes=1),
    } | fields
    new = post.model_copy(update=after)
    if isinstance(new, Post):
        return PostEdited(post=new, previous_revision=post.revision)
    return MessageEdited(message=new, previous_revision=post.revision)


def reviewed(uri: str, new: Post | None, talk: str = "conv-1") -> ReviewAsked:
    """A reply in ``talk`` is to be looked at again: its post was edited, or deleted (none)."""
    change = PostChanged(
        uri=uri,
        revision=new.revision if new else None,
        version=new.version if new else None,
        deleted=new is None,
        post=new,
        at=NOW,
    )
    return ReviewAsked(
        conversation_id=talk,
        source=Ref(uri="at://p/asking"),
        decision_id="d",
        private=False,
        change=change,
    )


def garbled(record: Record, **members: Any) -> Record:
    """The record with some members of its value replaced."""
    value = json.loads(record.value or b"{}") | members
    return replace(record, value=json.dumps(value).encode())
