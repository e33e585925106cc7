"""Events as a platform would send them: mentions of the bot, messages to it, and what changed.

Plain words come in (who writes what, where), a contract event goes out, with the facet on the
bot's handle and the ids a platform would give. The demo, ``twite mention``, ``twite dm`` and
the converters of the trials write with it; the bot itself only reads such events.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from bot.settings import BotSettings
from schemas import names
from schemas.envelope import Envelope, Event
from schemas.feed import (
    Account,
    AccountChanged,
    DeletedBy,
    Facet,
    MentionCreated,
    MentionReason,
    Message,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Post,
    PostDeleted,
    PostEdited,
)
from schemas.names import MENTION_CREATED, MESSAGE_CREATED
from schemas.types import EVENT_TYPES

W = TypeVar("W", bound=Post | Message)

SOURCE = "/twite/playground"  # ce_source of the platform that is played here


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody on the platform; ``bot`` for another bot."""

    id: str
    handle: str
    display_name: str | None = None
    bot: bool = False

    def account(self) -> Account:
        return Account(id=self.id, handle=self.handle, display_name=self.display_name, bot=self.bot)


def bot_person(bot: BotSettings) -> Person:
    """The bot itself, as the author of a post."""
    return Person(bot.account_id, bot.handle, bot.display_name, bot=True)


def post(
    author: Person,
    text: str,
    *,
    conversation_id: str,
    facets: Sequence[Facet] = (),
    visibility: str = "public",
    above: Post | None = None,
    quoted: Post | None = None,
    hops: int = 0,
    created_at: datetime | None = None,
    uri: str | None = None,
) -> Post:
    """A post; ``above`` is the post it answers, ``quoted`` the one it quotes."""
    return Post(
        uri=uri or f"post:{uuid.uuid4()}",
        revision=revision(text),
        conversation_id=conversation_id,
        author=author.account(),
        text=text,
        facets=tuple(facets),
        visibility=visibility,
        created_at=created_at or datetime.now(UTC),
        root=(above.root or above.ref) if above else None,
        parent=above.ref if above else None,
        quote=quoted.ref if quoted else None,
        hops=hops,
    )


def addressed(bot: BotSettings, text: str) -> tuple[str, tuple[Facet, ...]]:
    """``text`` with the bot's handle before it, and the facet that makes it a mention."""
    name = f"@{bot.handle}"
    facet = Facet(
        type="mention", byte_start=0, byte_end=len(name.encode()), account_id=bot.account_id
    )
    return f"{name} {text}", (facet,)


def mention(
    bot: BotSettings,
    asking: Post,
    *,
    ancestors: Sequence[Post] = (),
    quoted: Post | None = None,
    reason: MentionReason = MentionReason.MENTION,
    event_id: str | None = None,
) -> Event[MentionCreated]:
    """The event that tells the bot of ``asking``; ``ancestors`` root-most first."""
    data = MentionCreated(
        post=asking,
        mentioned_account_id=bot.account_id,
        reason=reason,
        ancestors=tuple(ancestors),
        ancestors_complete=True,
        quoted=quoted,
    )
    return Event(_envelope(MENTION_CREATED, asking.created_at, event_id), data)


def mention_of(
    bot: BotSettings,
    author: Person,
    text: str,
    *,
    conversation_id: str | None = None,
    visibility: str = "public",
    thread: Sequence[Post] = (),
) -> Event[MentionCreated]:
    """Somebody mentions the bot, alone or below a ``thread`` (root-most first)."""
    shown, facets = addressed(bot, text)
    asking = post(
        author,
        shown,
        conversation_id=conversation_id or f"thread:{uuid.uuid4()}",
        facets=facets,
        visibility=visibility,
        above=thread[-1] if thread else None,
    )
    return mention(bot, asking, ancestors=thread)


def message_to(
    bot: BotSettings,
    author: Person,
    text: str,
    *,
    conversation_id: str | None = None,
    created_at: datetime | None = None,
    uri: str | None = None,
) -> Event[MessageCreated]:
    """Somebody writes to the bot in private; without an id the talk is one per author."""
    message = Message(
        uri=uri or f"message:{uuid.uuid4()}",
        revision=revision(text),
        conversation_id=conversation_id or f"talk:{author.id}",
        author=author.account(),
        text=text,
        participants=(author.id, bot.account_id),
        created_at=created_at or datetime.now(UTC),
    )
    return Event(
        _envelope(MESSAGE_CREATED, message.created_at, None), MessageCreated(message=message)
    )


def edited(written: W, text: str) -> W:
    """The next revision, which says ``text``; one that named the bot first goes on doing so."""
    start = _start(written)
    said = text if start is None else f"{written.text[:start]} {text}"
    changes: dict[str, Any] = {
        "text": said,
        "facets": written.facets if start is not None else (),
        "revision": revision(said),
        "version": written.version + 1,
        "edited_at": datetime.now(UTC),
    }
    return cast("W", written.model_copy(update=changes))


def edit_of(before: Post | Message, now: Post | Message) -> Event[PostEdited | MessageEdited]:
    """The event that tells of a new revision."""
    at, last = now.edited_at or now.created_at, before.revision
    if isinstance(now, Message):
        told = MessageEdited(message=now, previous_revision=last)
        return Event(_envelope(names.MESSAGE_EDITED, at, None), told)
    envelope = _envelope(names.POST_EDITED, at, None)
    return Event(envelope, PostEdited(post=now, previous_revision=last))


def deletion_of(written: Post | Message) -> Event[PostDeleted]:
    """The event that tells that its author took it away."""
    at, private = datetime.now(UTC), isinstance(written, Message)
    data = (MessageDeleted if private else PostDeleted)(
        ref=written.ref,
        conversation_id=written.conversation_id,
        deleted_by=DeletedBy.AUTHOR,
        deleted_at=at,
    )
    kind = names.MESSAGE_DELETED if private else names.POST_DELETED
    return Event(_envelope(kind, at, None), data)


def account_changed(
    person: Person, *, opted_out: bool = False, blocked_bot: bool = False
) -> Event[AccountChanged]:
    """What somebody wants of the bot from now on."""
    data = AccountChanged(account_id=person.id, opted_out=opted_out, blocked_bot=blocked_bot)
    return Event(_envelope(names.ACCOUNT_CHANGED, datetime.now(UTC), None), data)


def structured(event: Event[Any]) -> dict[str, Any]:
    """The event as a line of a feed file (CloudEvents structured JSON)."""
    envelope = event.envelope.model_dump(mode="json", exclude_none=True)
    return {"specversion": "1.0", **envelope, "data": event.data.model_dump(mode="json")}


def topic_and_key(event: Event[Any]) -> tuple[str, str]:
    """Where the event belongs. Raises ``KeyError`` for a type that is not the contract's."""
    kind = EVENT_TYPES[event.envelope.type]
    return kind.topics[0], kind.key_of(event.data) or ""


def revision(text: str) -> str:
    """What a platform would call this content: the start of its sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _start(written: Post | Message) -> int | None:
    """Where the name ends that a text starts with, in characters; None where it starts with
    none."""
    first = next((facet for facet in written.facets if facet.byte_start == 0), None)
    if len(written.facets) != 1 or first is None:
        return None
    return len(written.text.encode()[: first.byte_end].decode())


def _envelope(kind: str, time: datetime, event_id: str | None) -> Envelope:
    return Envelope(id=event_id or str(uuid.uuid4()), source=SOURCE, type=kind, time=time)
