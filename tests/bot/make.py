"""Small makers of contract values for the tests of the bot: everything has a default."""

import json
from datetime import UTC, datetime
from typing import Any

from bot.context import ContextPost
from bot.gather import gather
from bot.knowledge import Knowledge
from bot.memory import NoKnowledge
from bot.templates import load_prompts
from bot.values import Asked, BotIdentity, Limits, Question, Seen, Setup, Source
from model.engine import Sampling
from schemas import names
from schemas.envelope import Envelope
from schemas.feed import (
    Account,
    Facet,
    MentionCreated,
    Message,
    MessageCreated,
    Post,
    Ref,
)
from schemas.record import Record

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
BOT = Account(id="bot-1", handle="twite", display_name="Twite", bot=True)
ALICE = Account(id="acc-alice", handle="alice", display_name="Alice")
BOB = Account(id="acc-bob", handle="bob", display_name="Bob")


def mention_facet(text: str, shown: str, account_id: str) -> Facet:
    """A facet over the first ``shown`` in ``text``."""
    start = len(text[: text.index(shown)].encode())
    end = start + len(shown.encode())
    return Facet(type="mention", byte_start=start, byte_end=end, account_id=account_id)


def link_facet(text: str, shown: str, url: str) -> Facet:
    start = len(text[: text.index(shown)].encode())
    end = start + len(shown.encode())
    return Facet(type="link", byte_start=start, byte_end=end, url=url)


def post(uri: str = "at://p/1", text: str = "Hello", **fields: Any) -> Post:
    given: dict[str, Any] = {
        "revision": "r1",
        "conversation_id": "conv-1",
        "author": ALICE,
        "visibility": "public",
        "created_at": NOW,
    } | fields
    return Post(uri=uri, text=text, **given)


def message(uri: str = "at://m/1", text: str = "Hello", **fields: Any) -> Message:
    given: dict[str, Any] = {
        "revision": "r1",
        "conversation_id": "conv-1",
        "author": ALICE,
        "participants": (ALICE.id, BOT.id),
        "created_at": NOW,
    } | fields
    return Message(uri=uri, text=text, **given)


def mention(text: str = "@twite how are you?", **fields: Any) -> MentionCreated:
    """A mention whose facet names the bot; ``ancestors``, ``quoted``, ``reason`` and
    ``mentioned_account_id`` go to the event, everything else to its post."""
    event = {
        name: fields.pop(name)
        for name in ("ancestors", "quoted", "reason", "mentioned_account_id")
        if name in fields
    }
    facets = tuple(fields.pop("facets", ()))
    if "@twite" in text:
        facets = (mention_facet(text, "@twite", BOT.id), *facets)
    asking = post("at://p/asking", text, facets=facets, **fields)
    return MentionCreated(post=asking, **({"mentioned_account_id": BOT.id} | event))


def direct(text: str = "Hello bot", uri: str = "at://m/1", **fields: Any) -> MessageCreated:
    return MessageCreated(message=message(uri, text, **fields))


def run_of(*posts: Post) -> tuple[Post, ...]:
    """The posts, each with the one before as its parent."""
    linked = []
    above: Ref | None = None
    for one in posts:
        linked.append(one.model_copy(update={"parent": above}))
        above = one.ref
    return tuple(linked)


def envelope(kind: str = names.MENTION_CREATED, **fields: Any) -> Envelope:
    given: dict[str, Any] = {"id": "event-1", "source": "/platform", "time": NOW} | fields
    return Envelope(type=kind, **given)


def asked(
    data: Source, *, seen: Seen | None = None, offset: int = 7, timestamp_ms: int = NOW_MS
) -> Asked:
    return Asked(
        topic=names.FEED_MENTIONS,
        partition=2,
        offset=offset,
        timestamp_ms=timestamp_ms,
        envelope=envelope(),
        data=data,
        seen=seen or Seen(),
    )


def setup(**fields: Any) -> Setup:
    given: dict[str, Any] = {
        "bot": BotIdentity(account=BOT, cluster_id="cluster-1"),
        "prompts": load_prompts(),
        "code_version": "1.2.3",
        "settings_digest": "d" * 64,
        "limits": Limits(),
        "sampling": Sampling(max_tokens=96),
    } | fields
    return Setup(**given)


def around(
    data: Question, knowledge: Knowledge | None = None, limits: Limits | None = None
) -> tuple[ContextPost, ...]:
    """The context of a question, as far as ``knowledge`` (none: nothing) goes."""
    identity = BotIdentity(account=BOT, cluster_id="cluster-1")
    return gather(data, identity, limits or Limits(), knowledge or NoKnowledge())


_KINDS = {
    "MentionCreated": (names.MENTION_CREATED, names.FEED_MENTIONS),
    "MessageCreated": (names.MESSAGE_CREATED, names.FEED_DIRECT_MESSAGES),
    "MessageEdited": (names.MESSAGE_EDITED, names.FEED_DIRECT_MESSAGES),
    "MessageDeleted": (names.MESSAGE_DELETED, names.FEED_DIRECT_MESSAGES),
}


def record(
    data: Source, *, offset: int = 7, event_id: str = "event-1", key: str = "conv-1", **extra: str
) -> Record:
    """The record of an event, written without the project's own codec."""
    kind, topic = _KINDS[type(data).__name__]
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/platform",
        "ce_type": kind,
        "ce_time": "2026-11-24T12:00:00Z",
        "content-type": "application/json",
    } | extra
    return Record(
        topic=topic,
        partition=2,
        offset=offset,
        timestamp_ms=NOW_MS,
        key=key.encode(),
        value=json.dumps(data.model_dump(mode="json")).encode(),
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )
