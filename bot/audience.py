"""Who may read a reply: everybody, or the asker alone.

In: the question, the context that the model saw, the parts of the reply. Out: ``ForAll`` or
``ForAsker``, which decide about the topics. Guaranteed: ``ForAll`` is made for mentions only, of
posts of threads that everybody may see; a ``TalkPost`` or a ``Message`` anywhere makes a reply
one for the asker. What contradicts that is refused, never published. Next: ``bot/handler.py``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.context import ContextPost, ThreadPost
from bot.values import Source, is_open, is_private
from schemas.feed import MentionCreated, Visibility
from schemas.replies import ReplyCreated


class WouldLeak(ValueError):
    """A reply that more people could read than the least of what it was built on: a mistake in
    the bot, so it is not published."""


@dataclass(frozen=True, slots=True)
class ForAll:
    """Parts of a reply that everybody may read. Raises ``WouldLeak`` where one is narrower."""

    replies: tuple[ReplyCreated, ...]

    def __post_init__(self) -> None:
        if not all(is_open(reply.visibility) for reply in self.replies):
            raise WouldLeak("a narrower reply among those for all")


@dataclass(frozen=True, slots=True)
class ForAsker:
    """Parts of a reply for the asker alone. Raises ``WouldLeak`` where one is wider."""

    replies: tuple[ReplyCreated, ...]

    def __post_init__(self) -> None:
        if any(reply.visibility is not Visibility.DIRECT for reply in self.replies):
            raise WouldLeak("a reply built on something narrower is not direct")


Audience = ForAll | ForAsker


def audience_of(
    asked: Source, context: Sequence[ContextPost], replies: tuple[ReplyCreated, ...]
) -> Audience:
    """Whom a reply is for. Raises ``WouldLeak``."""
    if isinstance(asked, MentionCreated) and for_everybody(context):
        return ForAll(replies)
    return ForAsker(replies)


def for_everybody(context: Iterable[ContextPost]) -> bool:
    """Whether everything that the model saw stands in public threads, for all to see."""
    return all(
        isinstance(post, ThreadPost) and is_open(post.visibility)
        for post in context
        if post.included
    )


def is_confidential(asked: Source, context: Iterable[ContextPost]) -> bool:
    """Whether the decision record may hold, or tell of, anything that not everybody may see."""
    return is_private(asked) or not all(is_open(post.visibility) for post in context)
