"""Whether the bot answers an input at all.

In: one input and a few settings. Out: ``Answer`` or ``Skip`` with its reason, and the verdict
of every rule that ran, for the audit. Each rule is one small pure function; ``RULES`` is the
order in which they run, and the first skip ends it. Next: ``bot/context.py``.

Rules to come (quotas, consent, too old, the kill switch) are more functions in that tuple.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from bot.values import Asked, BotIdentity, Limits, Question, visibility_of, written
from schemas.audit import RuleVerdict
from schemas.codes import SkipReason
from schemas.feed import (
    Facet,
    FacetType,
    MentionCreated,
    MentionReason,
    Message,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
)

MAX_HOPS = 255
PASS = "pass"  # noqa: S105 - a verdict
SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Answer:
    """Go on with ``question``."""

    question: Question


@dataclass(frozen=True, slots=True)
class Skip:
    """Say nothing. ``detail`` is one line for people and never holds what was written."""

    reason: SkipReason
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the rules need to know about the bot."""

    bot_id: str
    hop_limit: int

    @classmethod
    def of(cls, bot: BotIdentity, limits: Limits) -> "Settings":
        return cls(bot.id, limits.hop_limit)


Rule = Callable[[Asked, Settings], Skip | None]


def duplicate(asked: Asked, _: Settings) -> Skip | None:
    """The same event, or the same revision, was met before."""
    first = asked.seen.duplicate_of
    return Skip(SkipReason.DUPLICATE, f"first decision {first}") if first else None


def own_post(asked: Asked, settings: Settings) -> Skip | None:
    """The bot never answers itself; its own messages come back as the platform shows them."""
    post = written(asked.data)
    return Skip(SkipReason.OWN_POST) if post and post.author.id == settings.bot_id else None


def deleted(asked: Asked, _: Settings) -> Skip | None:
    """A deletion asks nothing."""
    return Skip(SkipReason.DELETED) if isinstance(asked.data, MessageDeleted) else None


def edited(asked: Asked, _: Settings) -> Skip | None:
    """A new revision never makes a second reply."""
    earlier = asked.seen.earlier
    if earlier:
        return Skip(SkipReason.EDITED, f"earlier revision in decision {earlier}")
    return Skip(SkipReason.EDITED) if isinstance(asked.data, MessageEdited) else None


def not_addressed(asked: Asked, settings: Settings) -> Skip | None:
    """Only accounts, facets, parents and quotes count: a handle in a text is just text."""
    match asked.data:
        case MentionCreated():
            detail = _mention_fault(asked.data, settings.bot_id)
        case MessageCreated() | MessageEdited():
            detail = _message_fault(asked.data.message, settings.bot_id)
        case _:
            detail = None
    return Skip(SkipReason.NOT_ADDRESSED, detail) if detail else None


def visibility(asked: Asked, _: Settings) -> Skip | None:
    """A visibility that nobody knows can't be honoured."""
    post = written(asked.data)
    known = post is None or visibility_of(post) is not None
    return None if known else Skip(SkipReason.VISIBILITY, "unknown visibility")


def loop(asked: Asked, settings: Settings) -> Skip | None:
    """Bots that answer bots stop at the hop limit; nobody goes on at the end of the counter."""
    post = written(asked.data)
    if post is None:
        return None
    limit = settings.hop_limit if post.author.bot else MAX_HOPS - 1
    return Skip(SkipReason.LOOP, f"{post.hops} hops") if post.hops > limit else None


RULES: tuple[tuple[str, Rule], ...] = (
    ("duplicate", duplicate),
    ("own-post", own_post),
    ("deleted", deleted),
    ("edited", edited),
    ("not-addressed", not_addressed),
    ("visibility", visibility),
    ("loop", loop),
)


def decide(asked: Asked, settings: Settings) -> tuple[Answer | Skip, tuple[RuleVerdict, ...]]:
    """The decision and the verdict of every rule that ran, in their order."""
    verdicts = []
    for name, rule in RULES:
        skip = rule(asked, settings)
        verdicts.append(
            RuleVerdict(name=name, verdict=SKIP if skip else PASS, detail=skip and skip.detail)
        )
        if skip:
            return skip, tuple(verdicts)
    # ``deleted`` and ``edited`` let nothing else through.
    return Answer(cast("Question", asked.data)), tuple(verdicts)


def names_account(facets: Iterable[Facet], account_id: str) -> bool:
    """Whether a mention facet names this account."""
    return any(f.type == FacetType.MENTION and f.account_id == account_id for f in facets)


def _mention_fault(data: MentionCreated, bot_id: str) -> str | None:
    """Why a mention does not mean the bot; none where it does."""
    if data.mentioned_account_id != bot_id:
        return "another account is mentioned"
    match data.reason:
        case MentionReason.MENTION if not names_account(data.post.facets, bot_id):
            return "no mention facet names the bot"
        case MentionReason.REPLY if data.ancestors and data.ancestors[-1].author.id != bot_id:
            return "the parent is not the bot's"
        case MentionReason.QUOTE if data.quoted and data.quoted.author.id != bot_id:
            return "the quoted post is not the bot's"
    return None


def _message_fault(message: Message, bot_id: str) -> str | None:
    """Why a private message does not mean the bot; none where it does."""
    participants = {message.author.id, *message.participants}
    if bot_id not in participants:
        return "the bot is no participant"
    if len(participants) > 2 and not names_account(message.facets, bot_id):
        return "in a group, and no facet names the bot"
    return None
