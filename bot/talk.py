"""The context of a private message: the last turns of the talk, and what the message quotes.

In: a message, and what is known. Out: ``TalkPost`` values in reading order. Guaranteed: turns of
this talk only, none from before the last ``/forget``, none that was deleted, none older than the
settings say; and nothing that somebody who reads along now could not read then.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bot.context import Kind, TalkPost, Why, own_reply, talk_post
from bot.knowledge import Knowledge, Turn
from bot.thread import quoted_now
from bot.values import BotIdentity, Limits
from schemas.feed import Message

_FIRST = datetime(1990, 1, 1, tzinfo=UTC)  # no event is older


def around(
    message: Message, bot: BotIdentity, limits: Limits, knowledge: Knowledge
) -> tuple[TalkPost, ...]:
    """Everything around a message, in reading order, consent not yet looked at."""
    posts = list(_turns(message, bot, limits, knowledge))
    if message.quoted is not None:
        known = {message.uri, *(post.ref.uri for post in posts)}
        post, why = quoted_now(message.quoted, message.quote, known, knowledge)
        posts.append(talk_post(post, Kind.QUOTED, why, bot.id, included=why is Why.QUOTED))
    posts.append(talk_post(message, Kind.ASKING, Why.ASKING, bot.id))
    return tuple(posts)


def _turns(
    message: Message, bot: BotIdentity, limits: Limits, knowledge: Knowledge
) -> Iterator[TalkPost]:
    if limits.talk_turns == 0:
        return
    readers: frozenset[str] = frozenset({message.author.id, *message.participants})
    could_read = True
    for turn in knowledge.turns(message, limits.talk_turns, _oldest(message, limits)):
        if isinstance(turn, Message):
            could_read = _could_read(turn, readers, bot.id)
        # A reply stands behind the message it answers, and is for the same readers.
        post = _turn(turn, bot)
        yield post if could_read else post.left_out(Why.AUDIENCE)


def _turn(turn: Turn, bot: BotIdentity) -> TalkPost:
    if isinstance(turn, Message):
        return talk_post(turn, Kind.TURN, Why.TURN, bot.id)
    return own_reply(TalkPost, turn, bot.account)


def _could_read(turn: Message, readers: frozenset[str], bot_id: str) -> bool:
    """Whether everybody who reads along now was there then; where the platform does not tell
    who is there, the talk is that of its two."""
    then = {turn.author.id, *turn.participants, bot_id}
    return not turn.participants or readers <= then


def _oldest(message: Message, limits: Limits) -> datetime:
    """By the time of the message itself, so that a replay sees the same turns."""
    try:
        return max(_FIRST, message.created_at - timedelta(hours=limits.talk_hours))
    except OverflowError:
        return _FIRST
