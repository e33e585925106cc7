"""What the platform tells: posts, mentions, private messages, accounts, feedback.

In: ``data`` of the ``twite.feed.*`` events. Guaranteed: types, ids, times and list lengths
are checked, and every facet that is left points at whole characters of its own text and
carries what its type needs. Whether refs and ancestors fit together is not checked here:
a contradiction is answered or skipped by the bot, it is no reason for a dead letter.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from schemas.fields import Bool, Hops, Id, Int, Many, Number, Payload, Str, Time, check_id

MAX_ANCESTORS = 100


class Visibility(StrEnum):
    """Who may see a post. Any other string on a post is legal, and the bot skips it."""

    PUBLIC = "public"
    UNLISTED = "unlisted"
    FOLLOWERS = "followers"
    DIRECT = "direct"


class FacetType(StrEnum):
    """What a stretch of text means. A facet of another type is dropped."""

    MENTION = "mention"
    LINK = "link"
    TAG = "tag"


class DeletedBy(StrEnum):
    """Who took a post or message away."""

    AUTHOR = "author"
    MODERATOR = "moderator"
    ACCOUNT = "account"


class MentionReason(StrEnum):
    """Why the platform thinks that the bot is spoken to."""

    MENTION = "mention"
    REPLY = "reply"
    QUOTE = "quote"


class FeedbackKind(StrEnum):
    """What somebody thinks of a reply of the bot."""

    LIKE = "like"
    DISLIKE = "dislike"
    REPORT = "report"


class Account(Payload):
    """Somebody. ``id`` is stable; ``handle`` and ``display_name`` can change and can lie."""

    id: Id
    handle: Str
    display_name: Str | None = None
    bot: Bool = False
    created_at: Time | None = None


class Ref(Payload):
    """One revision of a post or message; ``revision`` is null where nobody knows it."""

    uri: Id
    revision: Id | None = None


class Facet(Payload):
    """Bytes ``byte_start`` (included) to ``byte_end`` (excluded) of a text's UTF-8.

    ``type`` is ``mention`` (with ``account_id``), ``link`` (``url``) or ``tag`` (``tag``).
    """

    type: Str
    byte_start: Int
    byte_end: Int
    account_id: Str | None = None
    url: Str | None = None
    tag: Str | None = None

    def fits(self, text: bytes) -> bool:
        """Whether this facet means something in ``text`` (UTF-8); if not it is dropped."""
        start, end = self.byte_start, self.byte_end
        return self._complete() and 0 <= start < end <= len(text) and _whole(text, start, end)

    def _complete(self) -> bool:
        match self.type:
            case FacetType.MENTION:
                return self.account_id is not None and _is_id(self.account_id)
            case FacetType.LINK:
                return bool(self.url)
            case FacetType.TAG:
                return bool(self.tag)
        return False


def _whole(text: bytes, start: int, end: int) -> bool:
    """Neither end stands inside a character (on a continuation byte 10xxxxxx)."""
    return text[start] & 0xC0 != 0x80 and (end == len(text) or text[end] & 0xC0 != 0x80)


def _is_id(value: str) -> bool:
    try:
        return bool(check_id(value))
    except ValueError:
        return False


class Texted(Payload):
    """A text with facets. ``text`` is plain Unicode as shown: no markup, never normalised."""

    text: Str
    facets: Many[Facet] = ()  # after ``text``: the check needs it

    @field_validator("facets")
    @classmethod
    def _drop_faulty(cls, facets: tuple[Facet, ...], info: ValidationInfo) -> tuple[Facet, ...]:
        text = info.data.get("text", "").encode()
        return tuple(facet for facet in facets if facet.fits(text))


class Attachment(Payload):
    """A picture, a link card, …; all its texts are somebody's words."""

    type: Str
    alt: Str | None = None
    title: Str | None = None
    description: Str | None = None
    url: Str | None = None


class _Written(Texted):
    """What posts and messages have in common. ``version`` grows with each edit."""

    uri: Id
    revision: Id
    version: Number = 1
    conversation_id: Id
    author: Account
    attachments: Many[Attachment] = ()
    langs: Many[Str] = ()
    created_at: Time
    edited_at: Time | None = None
    root: Ref | None = None
    parent: Ref | None = None
    quote: Ref | None = None
    hops: Hops = 0

    @property
    def ref(self) -> Ref:
        """This very revision."""
        return Ref(uri=self.uri, revision=self.revision)


class Post(_Written):
    """A post. ``visibility`` is any string; only those of ``Visibility`` are understood."""

    visibility: Str


class Message(_Written):
    """A private message between ``participants`` (account ids)."""

    participants: Many[Id] = ()
    quoted: Post | None = None


class PostCreated(Payload):
    """``twite.feed.post.created.v1``"""

    post: Post


class PostEdited(Payload):
    """``twite.feed.post.edited.v1``: ``post`` is the new revision."""

    post: Post
    previous_revision: Id


class PostDeleted(Payload):
    """``twite.feed.post.deleted.v1``"""

    ref: Ref
    conversation_id: Id
    deleted_by: DeletedBy
    deleted_at: Time


class MentionCreated(Payload):
    """``twite.feed.mention.created.v1``: somebody mentioned, answered or quoted the bot.

    ``ancestors`` is meant as one unbroken run, root-most first, that ends at the parent.
    More than 100 are an error; a broken run is not, the context makes of it what it can.
    """

    post: Post
    mentioned_account_id: Id
    reason: MentionReason = MentionReason.MENTION
    ancestors: Annotated[Many[Post], Field(max_length=MAX_ANCESTORS)] = ()
    ancestors_complete: Bool = False
    quoted: Post | None = None


class MessageCreated(Payload):
    """``twite.feed.direct-message.created.v1``"""

    message: Message


class MessageEdited(Payload):
    """``twite.feed.direct-message.edited.v1``: ``message`` is the new revision."""

    message: Message
    previous_revision: Id


class MessageDeleted(PostDeleted):
    """``twite.feed.direct-message.deleted.v1``"""


class AccountChanged(Payload):
    """``twite.feed.account.changed.v1``: the whole present state, as the topic is compacted."""

    account_id: Id
    opted_out: Bool = False
    blocked_bot: Bool = False
    deleted: Bool = False


class FeedbackGiven(Payload):
    """``twite.feed.feedback.given.v1``: on one reply of the bot."""

    reply_id: Id
    account_id: Id
    kind: FeedbackKind
    reason: Str | None = None
