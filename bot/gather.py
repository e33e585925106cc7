"""The context of an input: what stands around it, without those who do not want to be seen.

In: a question, and what is known. Out: ``ContextPost`` values in reading order, each with
whether it is included and why. ``lost`` asks again, right before an answer is published, whether
all of it may still be used. Next: ``bot/prompt.py``.
"""

from collections.abc import Iterable

from bot import talk, thread
from bot.context import ContextPost, Kind, TalkPost, Why
from bot.knowledge import Kind as Thing
from bot.knowledge import Knowledge
from bot.values import BotIdentity, Limits, Question
from schemas.feed import MessageCreated


def gather(
    question: Question, bot: BotIdentity, limits: Limits, knowledge: Knowledge
) -> tuple[ContextPost, ...]:
    """Everything around a question. Raises ``KnowledgeUnavailable``."""
    posts: tuple[ContextPost, ...]
    if isinstance(question, MessageCreated):
        posts = talk.around(question.message, bot, limits, knowledge)
    else:
        posts = thread.around(question, bot, knowledge)
    refusing = _refusing(posts, knowledge)
    return tuple(
        post.left_out(Why.CONSENT) if post.author.id in refusing and _is_theirs(post) else post
        for post in posts
    )


def lost(posts: Iterable[ContextPost], knowledge: Knowledge) -> Why | None:
    """Why one of the included posts may not be used any more; none where all of them may."""
    included = [post for post in posts if post.included and _is_theirs(post)]
    if _refusing(included, knowledge):
        return Why.CONSENT
    gone = (knowledge.is_deleted(post.ref.uri, _what_it_is(post)) for post in included)
    return Why.DELETED if any(gone) else None


def _refusing(posts: Iterable[ContextPost], knowledge: Knowledge) -> frozenset[str]:
    """The authors of these posts who do not want the bot to use what they wrote."""
    authors = {post.author.id for post in posts if _is_theirs(post)}
    return frozenset(author for author in authors if not knowledge.account(author).consents)


def _what_it_is(post: ContextPost) -> Thing:
    """What a talk quotes is a post."""
    is_message = isinstance(post, TalkPost) and post.kind is not Kind.QUOTED
    return "message" if is_message else "post"


def _is_theirs(post: ContextPost) -> bool:
    """Whether it is for others to say whether it may be used: the asker was asked by the
    policy."""
    return not post.is_bot and post.kind is not Kind.ASKING
