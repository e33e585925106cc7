"""The context of an input: what stands around it, without those who do not want to be seen.

In: a question, and what is known. Out: ``ContextPost`` values in reading order, each with
whether it is included and why. ``lost`` and ``narrowed`` ask again, right before an answer is
published, whether all of it may still be used, and by the same readers. Next: ``bot/prompt.py``.
"""

from collections.abc import Iterable

from bot import talk, thread
from bot.context import ContextPost, Kind, TalkPost, Why
from bot.knowledge import Kind as Thing
from bot.knowledge import Knowledge
from bot.values import BotIdentity, Limits, Question, narrowest, visibility_of
from schemas.feed import MessageCreated, Visibility


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


def narrowed(
    before: Iterable[ContextPost],
    question: Question,
    bot: BotIdentity,
    limits: Limits,
    knowledge: Knowledge,
) -> bool:
    """Whether fewer people may see one of the included posts, the asking one among them, than
    when it was gathered. Gathers anew, so that what would be made again comes out narrower."""
    now = {post.ref.uri: post for post in gather(question, bot, limits, knowledge)}
    return any(
        _is_narrower(post, now.get(post.ref.uri), knowledge) for post in before if post.included
    )


def _is_narrower(post: ContextPost, now: ContextPost | None, knowledge: Knowledge) -> bool:
    if now is None:
        return not post.is_bot and _is_known_as_narrower(post, knowledge)
    if now.why is Why.VISIBILITY:
        return True
    return _narrower(post.visibility, now.visibility)


def _is_known_as_narrower(post: ContextPost, knowledge: Knowledge) -> bool:
    """Of one that is no longer around the question."""
    stored = knowledge.latest(post.ref.uri)
    now = stored.post if stored is not None else None
    same = now is not None and now.author.id == post.author.id
    return now is not None and same and _narrower(post.visibility, visibility_of(now))


def _narrower(before: Visibility | None, after: Visibility | None) -> bool:
    """One that nobody knows is narrower than all others."""
    if before is None or after is None:
        return before is not None
    return narrowest(before, after) is not before


def _refusing(posts: Iterable[ContextPost], knowledge: Knowledge) -> frozenset[str]:
    """The authors of these posts who do not want the bot to use what they wrote."""
    authors = {post.author.id for post in posts if _is_theirs(post)}
    return knowledge.refusing(authors)


def _what_it_is(post: ContextPost) -> Thing:
    """What a talk quotes is a post."""
    is_message = isinstance(post, TalkPost) and post.kind is not Kind.QUOTED
    return "message" if is_message else "post"


def _is_theirs(post: ContextPost) -> bool:
    """Whether it is for others to say whether it may be used: the asker was asked by the
    policy."""
    return not post.is_bot and post.kind is not Kind.ASKING
