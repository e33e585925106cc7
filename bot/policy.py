"""Whether the bot answers an input at all.

In: one input, a few settings, and what is known about it. Out: ``Answer`` or ``Skip`` with its
reason, and the verdict of every rule that ran, for the audit. Each rule is one small pure
function over ``Facts``, which ``bot/facts.py`` gathers first; ``RULES`` is the order in which
they run, and the first skip ends it. ``quota`` is the last: what is skipped for another reason
takes nobody's share. Next: ``bot/context.py``.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

from bot.echoes import Echoes
from bot.facts import Facts, claim_of, gather
from bot.knowledge import Knowledge
from bot.quotas import Quotas
from bot.values import (
    GONE_MEANWHILE,
    Asked,
    BotIdentity,
    Limits,
    Question,
    visibility_of,
    written,
)
from consumers.handler import NotYet
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
HOUR_MS = 3_600_000
PAUSED_S = 30.0  # until what is paused is looked at again, should no command have it looked at


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

    bot: BotIdentity
    hop_limit: int

    @classmethod
    def of(cls, bot: BotIdentity, limits: Limits) -> "Settings":
        return cls(bot, limits.hop_limit)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name in the audit, its test, and the reasons for which it can skip."""

    name: str
    check: Callable[[Asked, Settings, Facts], Skip | None]
    reasons: tuple[SkipReason, ...]


def duplicate(asked: Asked, _: Settings, __: Facts) -> Skip | None:
    """The same event, or the same revision of a post, was met before, however long ago."""
    first = asked.seen.duplicate_of
    return Skip(SkipReason.DUPLICATE, f"first decision {first}") if first else None


def own_post(asked: Asked, settings: Settings, _: Facts) -> Skip | None:
    """The bot never answers itself; its own messages come back as the platform shows them."""
    post = written(asked.data)
    return Skip(SkipReason.OWN_POST) if post and post.author.id == settings.bot.id else None


def deleted(asked: Asked, _: Settings, facts: Facts) -> Skip | None:
    """A deletion asks nothing, and what was deleted meanwhile is not answered."""
    if isinstance(asked.data, MessageDeleted):
        return Skip(SkipReason.DELETED)
    return Skip(SkipReason.DELETED, GONE_MEANWHILE) if facts.gone else None


def edited(asked: Asked, _: Settings, __: Facts) -> Skip | None:
    """A new revision of what was answered corrects that answer; it never makes a second one."""
    seen = asked.seen
    if seen.earlier and seen.answered:
        return Skip(SkipReason.EDITED, f"earlier revision in decision {seen.earlier}")
    return Skip(SkipReason.EDITED) if isinstance(asked.data, MessageEdited) else None


def not_addressed(asked: Asked, settings: Settings, _: Facts) -> Skip | None:
    """Only accounts, facets, parents and quotes count: a handle in a text is just text."""
    match asked.data:
        case MentionCreated():
            detail = _mention_fault(asked.data, settings.bot.id)
        case MessageCreated() | MessageEdited():
            detail = _message_fault(asked.data.message, settings.bot.id)
        case _:
            detail = None
    return Skip(SkipReason.NOT_ADDRESSED, detail) if detail else None


def visibility(asked: Asked, _: Settings, __: Facts) -> Skip | None:
    """A visibility that nobody knows can't be honoured."""
    post = written(asked.data)
    known = post is None or visibility_of(post) is not None
    return None if known else Skip(SkipReason.VISIBILITY, "unknown visibility")


def loop(asked: Asked, settings: Settings, _: Facts) -> Skip | None:
    """Bots that answer bots stop at the hop limit; nobody goes on at the end of the counter."""
    post = written(asked.data)
    if post is None:
        return None
    limit = settings.hop_limit if post.author.bot else MAX_HOPS - 1
    return Skip(SkipReason.LOOP, f"{post.hops} hops") if post.hops > limit else None


def echo(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """Whoever says back what the bot just said is not answered, whatever the hops."""
    return Skip(SkipReason.LOOP, "the bot's own words") if facts.echo else None


def too_old(asked: Asked, _: Settings, facts: Facts) -> Skip | None:
    """Kafka took it in more than ``limits.max_age_hours`` ago. One without a time is not old."""
    age_ms = facts.now_ms - asked.timestamp_ms
    if asked.timestamp_ms < 0 or age_ms <= facts.max_age_hours * HOUR_MS:
        return None
    return Skip(SkipReason.TOO_OLD, f"{age_ms / HOUR_MS:.1f} hours old")


def opted_out(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """The asker wants no answers of this bot."""
    return Skip(SkipReason.OPTED_OUT) if facts.asker.opted_out else None


def account_deleted(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """The asker's account is gone, and its posts with it."""
    return Skip(SkipReason.DELETED, "the account is gone") if facts.asker.deleted else None


def blocked(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """The asker blocked the bot, or a moderator blocked the asker or the conversation."""
    if facts.asker.blocked_bot:
        return Skip(SkipReason.BLOCKED, "by the asker")
    if facts.asker.moderator_blocked:
        return Skip(SkipReason.BLOCKED, "the account, by a moderator")
    if facts.conversation_blocked:
        return Skip(SkipReason.BLOCKED, "the conversation, by a moderator")
    return None


def stopped(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """A moderator switched the bot off, everywhere or for this kind of input."""
    return Skip(SkipReason.STOPPED) if facts.stopped else None


def cancelled(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """A moderator cancelled what waited in the conversation, or from the asker."""
    return Skip(SkipReason.CANCELLED) if facts.cancelled else None


def quota(_: Asked, __: Settings, facts: Facts) -> Skip | None:
    """A quota of the asker, the thread, the person under whose post it stands, or all together
    is used up."""
    used_up = facts.taken.used_up
    return Skip(SkipReason.QUOTA, used_up) if used_up else None


RULES: tuple[Rule, ...] = (
    Rule("duplicate", duplicate, (SkipReason.DUPLICATE,)),
    Rule("own-post", own_post, (SkipReason.OWN_POST,)),
    Rule("deleted", deleted, (SkipReason.DELETED,)),
    Rule("edited", edited, (SkipReason.EDITED,)),
    Rule("not-addressed", not_addressed, (SkipReason.NOT_ADDRESSED,)),
    Rule("visibility", visibility, (SkipReason.VISIBILITY,)),
    Rule("loop", loop, (SkipReason.LOOP,)),
    Rule("echo", echo, (SkipReason.LOOP,)),
    Rule("too-old", too_old, (SkipReason.TOO_OLD,)),
    Rule("opted-out", opted_out, (SkipReason.OPTED_OUT,)),
    Rule("account-deleted", account_deleted, (SkipReason.DELETED,)),
    Rule("blocked", blocked, (SkipReason.BLOCKED,)),
    Rule("stopped", stopped, (SkipReason.STOPPED,)),
    Rule("cancelled", cancelled, (SkipReason.CANCELLED,)),
    Rule("quota", quota, (SkipReason.QUOTA,)),
)
"""All rules, in the order in which they run."""

_PASSED = {rule.name: RuleVerdict(name=rule.name, verdict=PASS) for rule in RULES}


def _named(*names: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.name in names)


BEFORE_QUOTA, QUOTA = RULES[:-1], RULES[-1:]
SECOND_LOOK = _named(
    "deleted",
    "not-addressed",
    "visibility",
    "opted-out",
    "account-deleted",
    "blocked",
    "stopped",
    "cancelled",
)
"""What may have changed while the answer was made: asked again before it is published."""
REVIEW = _named(
    "own-post", "deleted", "not-addressed", "visibility", "loop",
    "opted-out", "account-deleted", "blocked", "stopped",
)  # fmt: skip
"""What must still hold for a reply that is there already, when what it was built on changes."""

Verdict = tuple[Answer | Skip, tuple[RuleVerdict, ...]]


async def decide(
    asked: Asked,
    settings: Settings,
    knowledge: Knowledge,
    quotas: Quotas,
    echoes: Echoes,
    now: datetime,
) -> Verdict:
    """The decision and the verdict of every rule that ran, in their order.

    Raises ``KnowledgeUnavailable``, ``QuotasUnavailable`` where the settings say to wait, and
    ``NotYet`` where a moderator does.
    """
    limits = await quotas.limits()
    facts = gather(asked, settings.bot.id, knowledge, echoes, now, limits)
    verdict, verdicts = judge(asked, settings, facts, BEFORE_QUOTA)
    if isinstance(verdict, Skip):
        return verdict, verdicts
    if facts.paused:
        raise _paused(asked, settings, knowledge, facts, BEFORE_QUOTA)
    claim = claim_of(asked, settings.bot, facts.near)
    facts = replace(facts, taken=await quotas.take(claim, limits, now))
    verdict, last = judge(asked, settings, facts, QUOTA)
    return verdict, (*verdicts, *last)


def look_again(
    asked: Asked,
    settings: Settings,
    knowledge: Knowledge,
    now: datetime,
    rules: Sequence[Rule] = SECOND_LOOK,
) -> Verdict:
    """What these rules say now; takes nobody's share. Raises ``KnowledgeUnavailable``, and
    ``NotYet`` where a moderator has it wait."""
    facts = gather(asked, settings.bot.id, knowledge, None, now)
    verdict, verdicts = judge(asked, settings, facts, rules)
    if isinstance(verdict, Answer) and facts.paused:
        raise _paused(asked, settings, knowledge, facts, rules)
    return verdict, verdicts


def _paused(
    asked: Asked, settings: Settings, knowledge: Knowledge, facts: Facts, rules: Sequence[Rule]
) -> NotYet:
    """It waits until it is paused no more, or is skipped anyway, which is looked at without a
    slot, for thousands may wait. ``facts``: when it was paused."""
    began = time.monotonic()

    async def look() -> float:
        now_ms = facts.now_ms + round((time.monotonic() - began) * 1000)
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        today = gather(asked, settings.bot.id, knowledge, None, now)
        today = replace(today, max_age_hours=facts.max_age_hours)
        verdict, _ = judge(asked, settings, today, rules)
        return PAUSED_S if today.paused and isinstance(verdict, Answer) else 0.0

    return NotYet(PAUSED_S, look)


def judge(asked: Asked, settings: Settings, facts: Facts, rules: Sequence[Rule] = RULES) -> Verdict:
    """The first skip of the rules, or the answer; with the verdict of every rule that ran."""
    verdicts: list[RuleVerdict] = []
    for rule in rules:
        skip = rule.check(asked, settings, facts)
        if skip:
            told = RuleVerdict(name=rule.name, verdict=SKIP, detail=skip.detail)
            return skip, (*verdicts, told)
        verdicts.append(_PASSED[rule.name])
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
