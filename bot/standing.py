"""Which commands of moderators stand for an input: who is to approve, what was said, which prompt.

In: an input, a decision or a surface, and ``Knowledge``. Out: the command as it stands on
``bot.moderation`` (``bot/views/moderation.py`` tells its subjects), none where nothing does.
Next: ``bot/approval.py``, ``bot/pins.py``, and the decision record, which names the command.
"""

from bot.knowledge import Knowledge, Standing, Surface
from bot.values import Asked, written
from bot.views.moderation import SURFACES
from schemas.codes import SkipReason
from schemas.control import Moderation
from schemas.feed import Message, Post

_WORDS = {
    SkipReason.BLOCKED: "block",
    SkipReason.STOPPED: "stop",
    SkipReason.CANCELLED: "cancel",
}


def surface_of(post: Post | Message) -> Surface:
    """Where the bot is spoken to."""
    return "direct" if isinstance(post, Message) else "mention"


def approval_of(asked: Asked, knowledge: Knowledge) -> Standing | None:
    """Why a reply to it is to be approved first; none where it may be published."""
    post = written(asked.data)
    if post is None:
        return None
    subjects = tuple(f"approval:{one}" for one in (*_people(post), *_surfaces(post)))
    return _first(knowledge.standing(subjects), "approve-first")


def verdict_on(decision_id: str, knowledge: Knowledge) -> Standing | None:
    """What a moderator said last of a reply that is held."""
    return _first(knowledge.standing((f"held:{decision_id}",)), "approve", "reject")


def pin_of(surface: Surface, knowledge: Knowledge) -> Standing | None:
    """The command that pins the prompt of a surface."""
    return _first(knowledge.standing((f"prompt:{surface}",)), "pin")


def cause_of(reason: str | None, asked: Asked, knowledge: Knowledge) -> Moderation | None:
    """The command that an input is skipped for; none where it is skipped for anything else."""
    post = written(asked.data)
    word = _WORDS.get(SkipReason(reason)) if reason is not None else None
    if post is None or word is None:
        return None
    if word == "block" and knowledge.account(post.author.id).blocked_bot:
        return None  # the asker did
    subjects = _surfaces(post) if word == "stop" else _people(post)
    if word == "cancel":
        subjects = tuple(f"cancel:{one}" for one in subjects)
    found = knowledge.standing(subjects)
    if word == "cancel":
        found = tuple(one for one in found if asked.timestamp_ms <= one.at_ms)
    cause = _first(found, word)
    return cause.moderation if cause else None


def _people(post: Post | Message) -> tuple[str, ...]:
    return f"account:{post.author.id}", f"conversation:{post.conversation_id}"


def _surfaces(post: Post | Message) -> tuple[str, ...]:
    return "everything", SURFACES[surface_of(post)]


def _first(found: tuple[Standing, ...], *words: str) -> Standing | None:
    return next((one for one in found if one.command in words), None)
