"""How often the model is asked for corrections: whoever edits without end asks for an answer each.

In: a question that is to be asked again since a post was edited, and for whom that counts. Out:
the verdict of the rules of a review; where none of them says skip, a share of the limits
``corrections_per_reply`` and ``corrections_per_author``. Where they are used up the reply stays as
it is for now: ``NotYet`` has the review wait, and of those that wait for one post only the last is
answered. After ``correction_wait_minutes`` it is skipped, ``quota``.

A retraction never comes here, nor what lets fewer people see a post, nor a deletion: those go at
once. Next: ``bot/conversation.py`` asks the model.
"""

from collections.abc import Callable
from datetime import datetime

from bot import policy
from bot.knowledge import Knowledge, ReplySet
from bot.quotas import Correction, Quotas, Taken
from bot.values import Asked, narrowest, visibility_of
from consumers.handler import NotYet
from schemas.audit import RuleVerdict
from schemas.codes import SkipReason
from schemas.reviews import PostChanged

RULE = "corrections"
SHORTEST_S, LONGEST_S = 1.0, 30.0  # until a review that waits is looked at again


def is_limited(change: PostChanged, replies: ReplySet, knowledge: Knowledge) -> bool:
    """Whether a correction for that change may wait: no words have to go because of it. A post
    that is too large to travel with its change is looked up. Raises ``KnowledgeUnavailable``."""
    if change.deleted:
        return False
    new = change.post or change.message
    if new is None:
        latest = knowledge.latest(change.uri)
        if latest is not None and latest.deleted:
            return False
        new = latest.post if latest is not None else None
    if new is None:
        return True
    now, then = visibility_of(new), replies.standing[0].visibility
    return now is not None and narrowest(now, then) == then


def author_of(change: PostChanged) -> str:
    """Whose edit it is; the post where its author does not travel with it."""
    new = change.post or change.message
    return change.uri if new is None else new.author.id


async def decide(
    asked: Asked,
    settings: policy.Settings,
    knowledge: Knowledge,
    quotas: Quotas | None,
    correction: Correction | None,
    now: Callable[[], datetime],
) -> policy.Verdict:
    """The verdict on a reply that is there. ``correction`` None: it counts for nobody. ``now`` is
    the clock.

    Raises ``NotYet``, ``KnowledgeUnavailable`` and ``QuotasUnavailable``.
    """
    verdict, rules = policy.look_again(asked, settings, knowledge, now(), policy.REVIEW)
    if isinstance(verdict, policy.Skip) or quotas is None or correction is None:
        return verdict, rules
    taken, wait_s = await _share(quotas, correction, now())
    if taken.used_up is None:
        return verdict, (*rules, RuleVerdict(name=RULE, verdict=policy.PASS))
    if wait_s <= 0:
        told = RuleVerdict(name=RULE, verdict=policy.SKIP, detail=taken.used_up)
        return policy.Skip(SkipReason.QUOTA, taken.used_up), (*rules, told)

    async def look() -> float:
        return (await _share(quotas, correction, now()))[1]

    raise NotYet(wait_s, look)


async def _share(quotas: Quotas, correction: Correction, now: datetime) -> tuple[Taken, float]:
    """Its share, if there is one, and how many seconds to wait for it: 0 where it has one, as it
    then keeps it, or has waited long enough."""
    limits = await quotas.limits()
    taken = await quotas.take(correction, limits, now)
    waited_s = (now - correction.since).total_seconds()
    if taken.used_up is None or waited_s >= limits.correction_wait_minutes * 60:
        return taken, 0.0
    return taken, _look_again_after(taken, waited_s)


def _look_again_after(taken: Taken, waited_s: float) -> float:
    """Seconds: a tenth of the window that is full, longer where it has waited long already, for
    thousands may wait."""
    return min(max(taken.window_s / 10, waited_s / 4, SHORTEST_S), LONGEST_S)
