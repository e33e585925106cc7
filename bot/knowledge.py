"""What the steps of the bot may ask of everything that was said and decided before.

In: uris, ids, the input at hand. Out: plain values of ``schemas`` and of this file. One
``Knowledge`` belongs to one partition and is shared by the handlers of all its topics. Lookups
are reads of local files on the thread of the loop: tens of microseconds, never a wait, but for
``reached``. Two implementations: ``bot.known.KnowledgeOfViews`` reads the views of
``bot/views/``; ``bot.memory.NoKnowledge`` knows only what passed through it. Any lookup may
raise ``KnowledgeUnavailable``; what is not known is never an error.

Guaranteed: a text is only ever given together with the author of that very revision. ``Post``
comes out of posts and ``Message`` out of private talks, so a lookup that gives posts can't give
anything private that was said in a talk.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from bot.values import Question, Seen, Source
from schemas.audit import DecisionRecorded
from schemas.control import Moderation
from schemas.envelope import Envelope
from schemas.feed import Facet, Message, Post, Ref, Visibility
from schemas.replies import ReplyCreated

Surface = Literal["mention", "direct"]
"""Where the bot is spoken to."""

Kind = Literal["post", "message"]
"""What has an uri. The same uri of a post and of a message are two things."""


class KnowledgeUnavailable(Exception):
    """A view can't be read just now, it is being built anew: ask again later."""


@dataclass(frozen=True, slots=True)
class AccountState:
    """What an account wants, and what moderators decided about it."""

    opted_out: bool = False
    blocked_bot: bool = False
    deleted: bool = False
    moderator_blocked: bool = False

    @property
    def consents(self) -> bool:
        """Whether the bot may show the model what this account wrote."""
        return not (self.opted_out or self.blocked_bot or self.deleted or self.moderator_blocked)


UNKNOWN_ACCOUNT = AccountState()


@dataclass(frozen=True, slots=True)
class Standing:
    """The last command of a moderator on its subject. ``at_ms``: by Kafka's time, since 1970."""

    moderation: Moderation
    at_ms: int
    text_digest: str | None = None
    prompt: str | None = None

    @property
    def command(self) -> str:
        return self.moderation.command


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest that is known of an uri. ``post`` is none where it was deleted, or where only
    its deletion is known; ``revision`` is none where nobody told it."""

    post: Post | Message | None
    revision: str | None
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyPart:
    """One part of a reply of the bot as it reads now. ``revision`` is that of its last
    correction, none where there was none."""

    reply_id: str
    source: Ref
    conversation_id: str
    part: int
    parts: int
    text: str
    facets: tuple[Facet, ...]
    langs: tuple[str, ...]
    visibility: Visibility
    built_on: tuple[Ref, ...]
    decision_id: str
    created_at: datetime
    revision: str | None = None
    retracted: bool = False

    @classmethod
    def of(cls, reply: ReplyCreated) -> "ReplyPart":
        """As it was made just now."""
        return cls(
            reply_id=reply.reply_id,
            source=reply.in_reply_to,
            conversation_id=reply.conversation_id,
            part=reply.part,
            parts=reply.parts,
            text=reply.text,
            facets=reply.facets,
            langs=reply.langs,
            visibility=reply.visibility,
            built_on=reply.built_on,
            decision_id=reply.decision_id,
            created_at=reply.created_at,
        )


@dataclass(frozen=True, slots=True)
class ReplySet:
    """The reply to one source, its parts in order, those taken back among them.

    ``source`` names the revision that the latest decision answered; ``decision_id`` is that
    decision. ``private``: it stands on ``bot.direct-replies``.
    """

    source: Ref
    conversation_id: str
    decision_id: str
    parts: tuple[ReplyPart, ...]
    private: bool

    @property
    def standing(self) -> tuple[ReplyPart, ...]:
        """The parts that were not taken back."""
        return tuple(part for part in self.parts if not part.retracted)


Turn = Message | ReplyPart
"""One turn of a private talk: somebody's message, or a part of a reply of the bot."""


class Knowledge(Protocol):
    """What is known in one partition. Everything but ``reached`` answers at once."""

    # Repeats, and what was decided.

    def meet(
        self, envelope: Envelope, data: Source, decision_id: str, *, redriven: bool = False
    ) -> None:
        """An input was read, in offset order: whatever comes later repeats it. Never raises."""
        ...

    def seen(
        self, envelope: Envelope, data: Source, decision_id: str, *, redriven: bool = False
    ) -> Seen:
        """What was met before ``decision_id``'s input, also days ago; changes nothing.

        ``redriven``: it is a dead letter's record, published again on purpose, and may try
        again where every earlier try ended as a dead letter.
        """
        ...

    def decided(self, record: DecisionRecorded, replies: Sequence[ReplyCreated]) -> None:
        """A decision was made here; it counts before the view has read it back."""
        ...

    def failed(self, decision_id: str) -> None:
        """The input of that decision became a dead letter."""
        ...

    def reviewed(self, source: str, event_id: str, decision_id: str) -> str | None:
        """The decision on an earlier record of that very review; none where there is none."""
        ...

    def replies_to(self, source_uri: str) -> ReplySet | None:
        """The reply to a post or message, whatever its revision."""
        ...

    def replies_to_each(self, source_uris: Sequence[str]) -> Mapping[str, ReplySet]:
        """The same of several at once, of those that have a reply."""
        ...

    def question(self, uri: str, conversation_id: str | None = None) -> Question | None:
        """The latest input event about that post or message, to ask it again; none where it is
        unknown or deleted. What the same uri was told as in another conversation than the one
        that is asked for (none: the last) counts as unknown.

        Its post or message is the newest revision that is known; the posts around it are as the
        event carried them, as the platform vouched for these and no others.
        """
        ...

    # How far the views are.

    async def reached(self, timestamp_ms: int) -> bool:
        """Whether the views hold everything up to that broker time, after a bounded wait."""
        ...

    def positions(self) -> dict[str, int]:
        """The next offset of every view that answers, ``view/topic/partition``."""
        ...

    # Who wants what, and what moderators decided.

    def account(self, account_id: str) -> AccountState:
        """``UNKNOWN_ACCOUNT`` where nothing is known."""
        ...

    def refusing(self, account_ids: Collection[str]) -> frozenset[str]:
        """Those of them that do not consent, told at once."""
        ...

    def conversation_blocked(self, conversation_id: str) -> bool: ...

    def stopped(self, surface: Surface) -> bool:
        """Whether a moderator switched the bot off, there or everywhere."""
        ...

    def paused(self, conversation_id: str, account_id: str) -> bool:
        """Whether a moderator has what comes there, or from there, wait."""
        ...

    def cancelled_ms(self, conversation_id: str, account_id: str) -> int | None:
        """When a moderator last cancelled what waited there, by Kafka's time, in ms since 1970;
        none where nobody did."""
        ...

    def has_approvals(self) -> bool:
        """Whether any reply at all may have to be approved, or was rejected."""
        ...

    def standing(self, subjects: tuple[str, ...]) -> tuple[Standing, ...]:
        """The last command on each of these subjects of ``bot.moderation`` that has one, in
        their order."""
        ...

    # Posts of this partition: a conversation is always whole in one.

    def latest(self, uri: str) -> Stored | None:
        """The newest of a post or message; none where nothing is known."""
        ...

    def is_deleted(self, uri: str, kind: Kind) -> bool:
        """Whether that post, or that message, is known to be gone."""
        ...

    def changed(self, post: Post | Message) -> Stored | None:
        """What became of that very revision since: another one, or a deletion; none where
        nothing newer is known. Cheaper than ``latest`` in the usual case of none."""
        ...

    def ancestors(self, post: Post, limit: int) -> tuple[Post, ...]:
        """Root-most first, an unbroken run that ends at the parent, all of one conversation.

        It ends early at a parent that is unknown, deleted or in another conversation, at a
        cycle, and after ``limit`` posts.
        """
        ...

    def root(self, post: Post) -> Post | None:
        """The first post of the thread, where ``post`` names it; none where it is unknown."""
        ...

    def quoted(self, post: Post | Message) -> Post | None:
        """The newest of the post that ``post`` quotes; none where it is unknown here."""
        ...

    def siblings(self, post: Post, authors: Collection[str], limit: int) -> tuple[Post, ...]:
        """The latest post of each of these authors that answers the same parent and was there
        before ``post``; oldest first."""
        ...

    def turns(self, message: Message, limit: int, oldest: datetime) -> tuple[Turn, ...]:
        """The last turns of a private talk before ``message``, oldest first: not older than
        ``oldest``, nothing that was deleted, nothing from before the last ``/forget``."""
        ...
