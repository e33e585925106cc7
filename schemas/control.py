"""What moderators command: ``twite.bot.moderation.commanded.v1`` on ``bot.moderation``."""

from schemas.fields import Id, Payload, Str


class ModerationCommanded(Payload):
    """A command (takedown, correction, block, kill switch, …) on a ``subject``, its key.

    ``command`` stays an open word here: a worker that does not know one says so and goes on.
    """

    command: Id
    subject: Id
    reason: Str
    moderator: Id
    decision_id: Id | None = None
