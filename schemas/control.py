"""What moderators command: ``twite.bot.moderation.commanded.v1`` on ``bot.moderation``, and the
replies that wait for them: ``twite.bot.reply.held.v1`` on ``bot.held``.

Commands stand on ``bot.moderation`` by their subject, of which only the last counts, and all of
them on ``bot.moderation-log``.
"""

from schemas.feed import Ref, Visibility
from schemas.fields import Id, Many, Payload, Str, Time


class ModerationCommanded(Payload):
    """A command (takedown, correction, block, kill switch, …) on a ``subject``, its key.

    ``command`` stays an open word here: a worker that does not know one says so and goes on.
    ``text`` is what a corrected reply is to say, ``text_digest`` that of the held text that was
    approved, ``prompt`` the name of a prompt, or the sha256 of its file, that is to be used.
    """

    command: Id
    subject: Id
    reason: Str
    moderator: Id
    decision_id: Id | None = None
    text: Str | None = None
    text_digest: Id | None = None
    prompt: Id | None = None


class Moderation(Payload):
    """The command that an outcome came of; ``id`` is that of its event."""

    id: Id
    command: Id
    subject: Id
    moderator: Id
    reason: Str


class ReplyHeld(Payload):
    """A reply that waits for a moderator: its ``texts``, a part each, and their digest.

    ``held_by`` is the subject of the command that asks for approval. Nothing is published after
    ``expires_at``. The last record of a decision counts.
    """

    decision_id: Id
    conversation_id: Id
    source: Ref
    author_id: Id
    visibility: Visibility
    texts: Many[Str]
    text_digest: Id
    held_by: Str
    held_at: Time
    expires_at: Time
