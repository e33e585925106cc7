"""What the bot tells itself to take its words back: what was built on what, what changed.

``ReferenceMade`` and ``PostChanged`` travel on ``bot.references``, keyed by the URI of a post
and dealt out by it: a post and all that was built on it meet in one partition, whichever
conversations they belong to. Where they meet, a ``ReviewAsked`` goes back to the conversation
of the reply, on ``bot.reviews``; so does what moderators command about a reply. Nobody
but the bot needs them; the topics are private.
"""

from datetime import datetime
from typing import Self

from schemas.control import Moderation
from schemas.feed import DeletedBy, Message, Post, Ref
from schemas.fields import Bool, Count, Id, Number, Payload, Str, Time


class ReferenceMade(Payload):
    """``twite.bot.reference.made.v1``: the reply to ``source`` was built on ``uri``.

    ``revision`` and ``version`` are those that the model saw, ``conversation_id`` and
    ``partition`` those of the reply. ``private``: the decision is on ``bot.audit-private``.
    """

    uri: Id
    revision: Id | None = None
    version: Number | None = None
    conversation_id: Id
    partition: Count
    source: Ref
    decision_id: Id
    private: Bool


class PostChanged(Payload):
    """``twite.bot.post.changed.v1``: a post or private message was edited or deleted.

    Of an edit ``post`` or ``message`` is the new revision; neither is there where it is too
    large to travel, and of a deletion. ``at`` is when, as the platform told.
    """

    uri: Id
    revision: Id | None = None
    version: Number | None = None
    deleted: Bool = False
    deleted_by: DeletedBy | None = None
    post: Post | None = None
    message: Message | None = None
    at: Time


class ReviewAsked(Payload):
    """``twite.bot.review.asked.v1``: look again at the reply to ``source``.

    ``decision_id`` is the decision that built on what changed; ``private`` as it was there.
    ``moderation``: a moderator commands it; nothing of ``change`` counts then, and ``text`` is
    what the reply is to say (none: it is to be taken back).
    """

    conversation_id: Id
    source: Ref
    decision_id: Id
    private: Bool
    change: PostChanged
    moderation: Moderation | None = None
    text: Str | None = None

    @classmethod
    def commanded(
        cls,
        moderation: Moderation,
        text: str | None,
        *,
        source: Ref,
        conversation_id: str,
        decision_id: str,
        private: bool,
        at: datetime,
    ) -> Self:
        """What has a moderator's command about a reply obeyed."""
        return cls(
            conversation_id=conversation_id,
            source=source,
            decision_id=decision_id,
            private=private,
            change=PostChanged(uri=source.uri, revision=source.revision, at=at),
            moderation=moderation,
            text=text,
        )
