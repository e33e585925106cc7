"""What moderators command: ``twite.bot.moderation.commanded.v1``.

On ``bot.moderation`` by their subject, of which only the last counts, and all of them on
``bot.moderation-log``.
"""

from schemas.fields import Id, Payload, Str


class ModerationCommanded(Payload):
    """A command (takedown, correction, block, kill switch, …) on a ``subject``, its key.

    ``command`` stays an open word here: a worker that does not know one says so and goes on.
    ``text`` is what a corrected reply is to say, ``text_digest`` what a reply that is approved must
    have (``ReplyHeld``), ``prompt`` the beginning of the sha256 of the prompt file to use, in hex.
    ``review_id``: of the ``ReviewAsked`` that was written with it and has it obeyed; where a
    command about a reply has none, a worker asks for the review.
    """

    command: Id
    subject: Id
    reason: Str
    moderator: Id
    decision_id: Id | None = None
    text: Str | None = None
    text_digest: Str | None = None
    prompt: Str | None = None
    review_id: Id | None = None


class Moderation(Payload):
    """The command that an outcome came of; ``id`` is that of its event."""

    id: Id
    command: Id
    subject: Id
    moderator: Id
    reason: Str
