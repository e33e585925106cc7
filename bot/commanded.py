"""A moderator's words for a reply, looked at like those of the model.

In: the text of a command, and the question that the reply answers, as far as it is known. Out:
``Checked``: within the platform's length, in one post, with no mention or link outside the
allow-set of the question; no parts where nothing is left of it. Next: ``bot/reviews.py`` corrects
the reply.
"""

from dataclasses import replace

from bot.reply import Allowed, Checked, allow_set, check
from bot.values import BotIdentity, Limits, Question, post_of
from model.engine import Generation

NOTHING = Allowed({}, {})


def words(text: str, question: Question | None, bot: BotIdentity, limits: Limits) -> Checked:
    """The text as it may be said. ``question`` None: nobody may be named, nothing linked."""
    allowed = NOTHING if question is None else allow_set(post_of(question), bot.id)
    said = Generation(text=text, token_ids=(), logprobs=(), finish_reason="stop")
    return check(said, allowed, replace(limits, max_parts=1), None)
