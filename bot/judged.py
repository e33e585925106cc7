"""A review and what it came to, and small questions about them.

In and out: the values that ``bot/review_handler.py`` passes on between looking at a reply again
and publishing what comes of it.
"""

from dataclasses import dataclass
from datetime import datetime

from bot.audience import ForAll, WouldLeak, audience_of, is_confidential
from bot.conversation import Decision
from bot.knowledge import ReplySet
from bot.reviews import Verdict
from bot.values import Asked, Question, is_open, post_of, visibility_of
from schemas.audit import RuleVerdict
from schemas.codes import Outcome
from schemas.envelope import Envelope
from schemas.feed import Ref
from schemas.record import Record
from schemas.reviews import ReviewAsked


@dataclass(frozen=True, slots=True)
class Review:
    """A decoded review with its place on the log. ``since``: when it was read."""

    record: Record
    envelope: Envelope
    data: ReviewAsked
    since: datetime


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the answer of today where the model was asked."""

    verdict: Verdict
    replies: ReplySet | None
    asked: Asked | None = None
    decision: Decision | None = None
    checks: tuple[RuleVerdict, ...] = ()
    """The verdicts on a moderator's words; with these no answer was made."""
    duplicate_of: str | None = None
    """The decision on the first record of that very command."""


def state_of(replies: ReplySet | None) -> tuple[tuple[str, str | None, bool], ...]:
    """What tells whether a reply is still the one that was looked at."""
    parts = replies.parts if replies is not None else ()
    return tuple((part.reply_id, part.revision, part.retracted) for part in parts)


def check_audience(judged: Judged) -> None:
    """New words on a public topic are made of public words only. Raises ``WouldLeak``."""
    replies, asked, decision = judged.replies, judged.asked, judged.decision
    if judged.verdict.outcome is not Outcome.CORRECTED or replies is None or replies.private:
        return
    if judged.checks:  # a moderator's own words
        return
    if asked is None or decision is None:
        raise WouldLeak("new words without a question")
    if not isinstance(audience_of(asked.data, decision.context, decision.replies), ForAll):
        raise WouldLeak("words for the asker among those for all")


def is_private(review: Review, judged: Judged) -> bool:
    """Whether the decision record may hold, or tell of, what is not public or unlisted."""
    change = review.data.change
    if review.data.private or change.message is not None:
        return True
    if change.post is not None and not is_open(visibility_of(change.post)):
        return True
    if judged.replies is not None and judged.replies.private:
        return True
    if judged.asked is None:
        return False
    context = judged.decision.context if judged.decision is not None else ()
    return is_confidential(judged.asked.data, context)


def version_of(ref: Ref, review: Review, asked: Asked | None) -> int | None:
    """The version of a revision, where it is at hand."""
    change = review.data.change
    if (ref.uri, ref.revision) == (change.uri, change.revision):
        return change.version
    post = post_of(asked.data) if asked is not None and isinstance(asked.data, Question) else None
    return post.version if post is not None and post.ref == ref else None
