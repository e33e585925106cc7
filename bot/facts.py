"""What is known about an input when it is decided, gathered once so that the rules can be pure.

In: an input, ``Knowledge``, and what the bot said lately. Out: ``Facts`` for ``bot/policy.py``,
and ``Claim``: what the input counts for in ``bot/quotas.py``.
"""

from dataclasses import dataclass
from datetime import datetime

from bot.echoes import Echoes, same_words
from bot.knowledge import UNKNOWN_ACCOUNT, AccountState, Knowledge
from bot.quotas import Claim, Taken
from bot.rates import LiveLimits
from bot.values import Asked, BotIdentity, conversation_of, written
from schemas import names
from schemas.feed import MentionCreated, Message, Post
from schemas.ids import decision_id

NOT_COUNTED = Taken()
DEFAULTS = LiveLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about an input when it is decided. ``now_ms``: since 1970."""

    now_ms: int
    max_age_hours: float = DEFAULTS.max_age_hours
    asker: AccountState = UNKNOWN_ACCOUNT
    conversation_blocked: bool = False
    stopped: bool = False
    cancelled: bool = False
    """A moderator cancelled what waited there when it had come in already."""
    paused: bool = False
    """A moderator has it wait."""
    gone: bool = False
    """The post that asks was deleted."""
    near: Post | Message | None = None
    """What it answers, else what it quotes; not looked up where echoes are not."""
    echo: bool = False
    """It says what the bot just said."""
    taken: Taken = NOT_COUNTED
    """Its shares of the quotas."""


def gather(
    asked: Asked,
    bot_id: str,
    knowledge: Knowledge,
    echoes: Echoes | None,
    now: datetime,
    limits: LiveLimits | None = None,
) -> Facts:
    """What the rules need to know, but for the quotas."""
    now_ms = int(now.timestamp() * 1000)
    max_age_hours = (limits or DEFAULTS).max_age_hours
    post = written(asked.data)
    if post is None or asked.seen.duplicate_of:
        return Facts(now_ms=now_ms, max_age_hours=max_age_hours)
    near = _near(asked, knowledge) if echoes is not None else None
    return Facts(
        now_ms=now_ms,
        max_age_hours=max_age_hours,
        asker=knowledge.account(post.author.id),
        conversation_blocked=knowledge.conversation_blocked(post.conversation_id),
        stopped=knowledge.stopped("direct" if isinstance(post, Message) else "mention"),
        cancelled=_is_cancelled(asked, post, knowledge),
        paused=_is_input(asked) and knowledge.paused(post.conversation_id, post.author.id),
        gone=knowledge.is_deleted(post.uri, "message" if isinstance(post, Message) else "post"),
        near=near,
        echo=echoes is not None and _is_echo(post, near, bot_id, echoes),
    )


def claim_of(asked: Asked, bot: BotIdentity, near: Post | Message | None) -> Claim:
    """What an input counts for. ``near``: as ``gather`` found it."""
    post = written(asked.data)
    if post is None:
        raise ValueError("a deletion claims nothing")
    return Claim(
        decision_id=decision_id(bot.id, bot.cluster_id, asked.topic, asked.partition, asked.offset),
        author=post.author,
        thread=conversation_of(asked.data),
        target=_target(asked, bot.id, near),
    )


def _is_input(asked: Asked) -> bool:
    """Whether somebody waits for an answer. Reviews are of replies that are there already: words
    that must go never wait."""
    return asked.topic != names.BOT_REVIEWS


def _is_cancelled(asked: Asked, post: Post | Message, knowledge: Knowledge) -> bool:
    if not _is_input(asked):
        return False
    at_ms = knowledge.cancelled_ms(post.conversation_id, post.author.id)
    return at_ms is not None and asked.timestamp_ms <= at_ms


def _is_echo(
    post: Post | Message, near: Post | Message | None, bot_id: str, echoes: Echoes
) -> bool:
    """Whether it says what the bot said lately, or in the post that it answers or quotes."""
    if post.author.id == bot_id:
        return False
    if echoes.knows(post.text, None if post.author.bot else post.conversation_id):
        return True
    return near is not None and near.author.id == bot_id and same_words(near.text, post.text)


def _target(asked: Asked, bot_id: str, near: Post | Message | None) -> str | None:
    """Whom it is about, where that is neither the bot nor the asker."""
    if not isinstance(asked.data, MentionCreated):
        return None
    post = asked.data.post
    if near is None:
        ref = post.parent or post.quote
        return f"post/{ref.uri}" if ref else None
    if near.author.id in (bot_id, post.author.id):
        return None
    return f"account/{near.author.id}"


def _near(asked: Asked, knowledge: Knowledge) -> Post | Message | None:
    """The post that it answers, else the one that it quotes: from the event, else as known."""
    if not isinstance(asked.data, MentionCreated):
        return None
    data, post = asked.data, asked.data.post
    if data.ancestors:
        return data.ancestors[-1]
    if post.parent is not None:
        known = knowledge.latest(post.parent.uri)
        return known.post if known else None
    return data.quoted or knowledge.quoted(post)
