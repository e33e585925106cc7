"""Replies that a moderator is to approve before they are published.

In: an input, and a way to make the decision on it. Out: the decision that may be published; until
then ``NotYet`` has the input wait in its lane, without a slot, an attempt or a deadline, and
``bot.held`` shows what waits. It ends in exactly one outcome: approved, the very words that were
shown are published; rejected, or not approved in time, it is skipped; what would not be published
any more anyway is skipped as ever. Where nobody is to approve it any more it is published.

What is made is kept here, for one assignment; after that, or where too many wait, it is made anew.
An approval names the digest of what was shown, so what comes out differently is held anew.
Next: ``bot/handler.py``.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from bot.as_of_now import ContextChanged, newest, second_look
from bot.audit import Trace, id_of
from bot.conversation import Decision, replied, skipped
from bot.held import HeldLog
from bot.knowledge import Knowledge, Standing
from bot.publishing import Place, Publishing
from bot.standing import approval_of, verdict_on
from bot.values import Asked, Setup, conversation_of, is_open, written
from consumers.handler import NotYet
from schemas import names
from schemas.audit import RuleVerdict
from schemas.codes import Outcome, SkipReason
from schemas.control import Moderation
from schemas.held import ReplyHeld, digest_of

log = structlog.get_logger(__name__)

KEPT = 128  # decisions that wait with all that led to them, for each assignment
PAUSE_S = 0.5  # until what waits is looked at again
RULE = "approval"

Make = Callable[[], Awaitable[Decision]]


@dataclass(slots=True)
class _Waiting:
    """A reply that waits. ``made`` None: it is to be made anew; ``positions``: of the views when
    it was last looked at."""

    asked: Asked
    digest: str
    since: datetime
    until: datetime
    made: Decision | None = None
    positions: Mapping[str, int] | None = None


class Approval:
    """For one assignment of one partition; ``held`` is told what waits."""

    def __init__(
        self, setup: Setup, knowledge: Knowledge, publishing: Publishing, held: HeldLog
    ) -> None:
        self._setup = setup
        self._knowledge = knowledge
        self._publishing = publishing
        self._held = held
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()  # by decision

    def is_wanted(self, asked: Asked) -> bool:
        """Whether nobody may see yet what is made of it."""
        return self._knowledge.has_approvals() and self._why(asked) is not None

    async def decided(self, asked: Asked, make: Make) -> Decision:
        """The decision that may be published. Raises ``NotYet``, and what ``make`` raises."""
        waiting = self._waiting.get(id_of(asked, self._setup))
        if waiting is not None and not self._is_due(waiting):
            raise self._not_yet(waiting)
        if waiting is not None and waiting.made is not None:
            try:
                return self._settled(asked, self._looked_at(waiting.made))
            except ContextChanged:
                waiting.made = None
        return self._settled(asked, await make())

    def _why(self, asked: Asked) -> Standing | None:
        return approval_of(asked, self._knowledge)

    def _is_due(self, waiting: _Waiting) -> bool:
        """Whether there is anything new to decide. Raises what reading the views raises."""
        if self._publishing.now() >= waiting.until:
            return True
        positions = self._knowledge.positions()
        if positions == waiting.positions:
            return False
        if self._why(waiting.asked) is None or self._says(waiting) is not None:
            return True
        if waiting.made is not None:
            try:
                if self._looked_at(waiting.made).outcome is not Outcome.REPLIED:
                    return True
            except ContextChanged:
                return True
        waiting.positions = positions
        return False

    def _says(self, waiting: _Waiting) -> Standing | None:
        """What a moderator said of these very words."""
        verdict = verdict_on(id_of(waiting.asked, self._setup), self._knowledge)
        return verdict if verdict and _is_about(verdict, waiting.digest) else None

    def _looked_at(self, made: Decision) -> Decision:
        """What was made, if it may still be published. Raises ``ContextChanged``, ``NotYet``."""
        trace, now = _trace_of(made), self._publishing.now()
        asked = newest(trace.asked, self._knowledge)
        looked_at, reason = second_look(trace, asked, self._setup, self._knowledge, now)
        if reason is not None:
            return skipped(looked_at, self._setup, now, reason)
        return replace(made, trace=looked_at)

    def _settled(self, asked: Asked, decision: Decision) -> Decision:
        """Raises ``NotYet`` where it is to wait."""
        decision_id = decision.record.decision_id
        if decision.outcome is not Outcome.REPLIED or not self._knowledge.has_approvals():
            return self._ended(decision_id, decision)
        why, verdict = self._why(asked), verdict_on(decision_id, self._knowledge)
        waiting, digest = self._waiting.get(decision_id), digest_of(decision.replies)
        if verdict is not None and verdict.command == "reject":
            ended = self._skipped(decision, waiting, SkipReason.REJECTED, verdict.moderation)
        elif why is None:
            ended = decision
        elif verdict is not None and _is_about(verdict, digest):
            ended = self._approved(decision, waiting, verdict.moderation)
        elif waiting is not None and self._publishing.now() >= waiting.until:
            ended = self._skipped(decision, waiting, SkipReason.NOT_APPROVED, why.moderation)
        else:
            raise self._not_yet(self._hold(asked, decision, digest))
        return self._ended(decision_id, ended)

    def _approved(
        self, decision: Decision, waiting: _Waiting | None, command: Moderation
    ) -> Decision:
        """The very replies that were shown."""
        trace = self._told(decision, waiting, "approved")
        return _because(
            replied(trace, self._setup, self._publishing.now(), decision.replies), command
        )

    def _skipped(
        self, decision: Decision, waiting: _Waiting | None, reason: SkipReason, command: Moderation
    ) -> Decision:
        trace = self._told(decision, waiting, reason.value)
        return _because(skipped(trace, self._setup, self._publishing.now(), reason), command)

    def _told(self, decision: Decision, waiting: _Waiting | None, verdict: str) -> Trace:
        """What led to the decision, with what came of the approval and how long it took."""
        trace = _trace_of(decision).judged((RuleVerdict(name=RULE, verdict=verdict),))
        if waiting is None:
            return trace
        waited_ms = (self._publishing.now() - waiting.since) / timedelta(milliseconds=1)
        return replace(trace, timings_ms={**trace.timings_ms, RULE: round(waited_ms, 3)})

    def _hold(self, asked: Asked, decision: Decision, digest: str) -> _Waiting:
        """Keep it, and show it unless that very text is shown already."""
        decision_id, now = decision.record.decision_id, self._publishing.now()
        waiting = self._waiting.get(decision_id)
        if waiting is None:
            until = now + timedelta(hours=self._setup.limits.approval_hours)
            waiting = self._waiting[decision_id] = _Waiting(asked, "", now, until)
        shown, waiting.digest = waiting.digest, digest
        waiting.made, waiting.positions = decision, None
        self._waiting.move_to_end(decision_id)
        kept = [one for one in self._waiting.values() if one.made is not None]
        for one in kept[: max(0, len(kept) - KEPT)]:
            one.made = None
        if shown != digest:
            self._tell(waiting, decision_id, decision)
        return waiting

    def _ended(self, decision_id: str, decision: Decision) -> Decision:
        waiting = self._waiting.pop(decision_id, None)
        if waiting is not None:
            self._tell(waiting, decision_id, None)
        return decision

    def _tell(self, waiting: _Waiting, decision_id: str, decision: Decision | None) -> None:
        """``decision`` None: it waits no more."""
        asked, post = waiting.asked, written(waiting.asked.data)
        assert post is not None  # noqa: S101 - the policy lets nothing else through
        replies = decision.replies if decision is not None else ()
        data = ReplyHeld(
            decision_id=decision_id,
            conversation_id=conversation_of(asked.data),
            source_uri=post.uri,
            author_id=post.author.id,
            private=not replies or not all(is_open(one.visibility) for one in replies),
            waiting=decision is not None,
            texts=tuple(one.text for one in replies),
            text_digest=waiting.digest,
            held_until=waiting.until,
        )
        place = Place(names.BOT_HELD, data.conversation_id, asked.partition)
        event = f"{decision_id}/{waiting.digest[:16]}/{'held' if replies else 'ended'}"
        try:
            made = self._publishing.output(place, names.REPLY_HELD, event, data, asked.envelope)
        except ValueError as error:  # it waits all the same, and nobody can approve it
            log.warning("a reply that is held can't be shown", error=type(error).__name__)
            return
        self._held.tell(decision_id, made)

    def _not_yet(self, waiting: _Waiting) -> NotYet:
        async def look() -> float:
            return 0.0 if self._is_due(waiting) else PAUSE_S

        return NotYet(PAUSE_S, look)


def _is_about(verdict: Standing, digest: str) -> bool:
    """A rejection is about whatever would be said instead, an approval about what was shown."""
    return verdict.command == "reject" or verdict.text_digest == digest


def _because(decision: Decision, command: Moderation) -> Decision:
    record = decision.record.model_copy(update={"moderation": command})
    return replace(decision, record=record)


def _trace_of(decision: Decision) -> Trace:
    assert decision.trace is not None  # noqa: S101 - it was made by ``bot.conversation``
    return decision.trace
