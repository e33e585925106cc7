"""An input as things stand: before it is answered, and right before the answer is published.

In: the input, and what is known. Out: the input with its post in the newest revision, how far the
views were, and whether an answer may still be said after the time that it took to make it.
Next: ``bot/conversation.py``.
"""

from dataclasses import replace
from datetime import datetime

from bot import policy
from bot.audit import Stopwatch, Trace
from bot.gather import lost, narrowed
from bot.knowledge import Knowledge, KnowledgeUnavailable
from bot.values import Asked, Question, Setup, post_of
from schemas.audit import RuleVerdict
from schemas.codes import SkipReason
from schemas.feed import MentionCreated, Message, MessageCreated, Post

_REWRITTEN = frozenset({SkipReason.NOT_ADDRESSED, SkipReason.VISIBILITY})
"""What only an edit can bring about. One that also lets fewer people see the post has the input
looked at from the start, so that nothing of the text before stays in a public record."""


class ContextChanged(KnowledgeUnavailable):
    """Something that an answer was built on may not be used any more: make it again without."""


async def begin(asked: Asked, knowledge: Knowledge, watch: Stopwatch) -> Trace:
    """Waits a bounded moment for the views to reach the input, and keeps whether they did."""
    reached = await knowledge.reached(asked.timestamp_ms)
    positions = knowledge.positions()
    trace = Trace(asked=asked, positions=positions, timings_ms=watch.timings_ms)
    watch.lap("views")
    if not positions:
        return trace
    return trace.judged((RuleVerdict(name="views", verdict="reached" if reached else "behind"),))


def newest(asked: Asked, knowledge: Knowledge) -> Asked:
    """The input with its post as it reads now: an edit may overtake the answer."""
    data = asked.data
    if not isinstance(data, Question) or asked.seen.duplicate_of is not None:
        return asked
    news = knowledge.changed(post_of(data))
    now = news.post if news is not None else None
    if isinstance(data, MentionCreated) and isinstance(now, Post):
        return replace(asked, data=data.model_copy(update={"post": now}))
    if isinstance(data, MessageCreated) and isinstance(now, Message):
        message = now.model_copy(update={"quoted": data.message.quoted})
        return replace(asked, data=MessageCreated(message=message))
    return asked


def second_look(
    trace: Trace, asked: Asked, setup: Setup, knowledge: Knowledge, now: datetime
) -> tuple[Trace, SkipReason | None]:
    """Whether the answer may still be published, after the time that it took to make it.

    Raises ``ContextChanged`` where something that it was built on may not be used any more, or
    may be seen by fewer: it is to be made again without. Where no view has read anything since
    the answer was begun, no post can have changed, and only the rules are asked again.
    """
    is_news = not trace.positions or knowledge.positions() != trace.positions
    now_asked = newest(asked, knowledge) if is_news else asked
    verdict, _ = policy.look_again(
        now_asked, policy.Settings.of(setup.bot, setup.limits), knowledge, now
    )
    reason = verdict.reason if isinstance(verdict, policy.Skip) else None
    if is_news and (reason is None or reason in _REWRITTEN):
        _require_unchanged(trace, now_asked, setup, knowledge)
    rule = RuleVerdict(name="second-look", verdict=policy.SKIP if reason else policy.PASS)
    return trace.judged((rule,)), reason


def _require_unchanged(trace: Trace, asked: Asked, setup: Setup, knowledge: Knowledge) -> None:
    """Raises ``ContextChanged``."""
    if why := lost(trace.context, knowledge):
        raise ContextChanged(f"a post of the context is out: {why.value}")
    assert isinstance(asked.data, Question)  # noqa: S101 - the policy lets nothing else through
    if narrowed(trace.context, asked.data, setup.bot, setup.limits, knowledge):
        raise ContextChanged("fewer people may see what the answer was built on")
