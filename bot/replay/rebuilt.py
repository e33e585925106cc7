"""An input sent through today's pipeline once more, with the views as they were then.

In: a decision, its original input, the views at the offsets that the record names. Out: ``Again``,
from the same functions that a worker calls: policy, context, prompt, model, checks, or for reviews
``bot.review_handler``. What they would publish is compared, and dropped. The clock stands at the
moment of the decision.

Not made again, but taken from the record, is what depends on other inputs of that moment: which
event it repeats, whether a quota was used up, whether it said the bot's own words back, and what
was deleted while the answer was made.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from bot import corrections, facts, policy
from bot.changes import Changes
from bot.context import Why
from bot.conversation import Decision, answer
from bot.facts import DEFAULTS
from bot.knowledge import Knowledge
from bot.known import KnowledgeOfViews
from bot.memory import NoKnowledge
from bot.observe import AUDIT_TOPICS
from bot.publishing import Publishing
from bot.quotas import Correction
from bot.rates import LiveLimits
from bot.replay.compare import Again, side_of
from bot.replay.frozen import CannotReplay
from bot.replay.loaded import Loaded
from bot.replay.log import Held, Log
from bot.replay.report import changed_context
from bot.replay.snapshots import Pinned, Snapshots
from bot.review_handler import Ask, ReviewsHandler
from bot.values import Asked, Setup, Source
from consumers.handler import GiveUp, RetryLater
from model.engine import Engine, EngineUnavailable, RequestRefused
from schemas.audit import DecisionRecorded, RuleVerdict
from schemas.codec import Undecodable, decode
from schemas.codes import ErrorCode, Outcome, SkipReason
from schemas.dead_letters import redrive_of
from schemas.names import BOT_REVIEWS
from schemas.record import Output, Record
from schemas.replays import NotReplayed, ReplaySide

AS_RECORDED = "taken from the record"
NO_POSITIONS = "the record does not say what the views held: made again without them"
OWN = frozenset({Why.OWN.value, Why.TURN.value})


class Rebuilt:
    """``scratch``: a folder for the views, which is removed in the end; ``limits``: today's."""

    def __init__(
        self,
        log: Log,
        setup: Setup,
        engine: Engine,
        scratch: Path,
        *,
        limits: LiveLimits = DEFAULTS,
    ) -> None:
        self.setup = setup
        self.engine = engine
        self.limits = limits
        self.snapshots = Snapshots(log, Held(log), setup.bot.id, scratch)

    async def prepare(self, chunk: Sequence[Loaded]) -> None:
        """The views are brought to where the first of them wants them."""
        wanted = [one.decision.positions for one in chunk if one.original and one.decision]
        partition = next((one.planned.at.partition for one in chunk if one.planned.at), None)
        if wanted and partition is not None:
            await self.snapshots.prepare(partition, wanted)

    async def begin(self, loaded: Loaded) -> "RebuiltCase":
        """Raises ``CannotReplay``."""
        decision, original = loaded.decision, loaded.original
        if decision is None or loaded.why is not None:
            raise CannotReplay(loaded.why or NotReplayed.UNKNOWN_ID)
        if original is None:
            raise CannotReplay(loaded.gone or NotReplayed.ORIGINAL_GONE)
        if decision.reason == SkipReason.OVERTAKEN.value:
            raise CannotReplay(NotReplayed.DEPENDS_ON_LATER)
        pinned = None
        if decision.positions:
            replies = {item.ref.uri for item in decision.context if item.why in OWN}
            pinned = await self.snapshots.pin(decision.positions, replies)
        return RebuiltCase(self, decision, original, pinned)

    async def end(self) -> None:
        """The files are removed."""
        self.snapshots.close()


@dataclass(frozen=True, slots=True)
class RebuiltCase:
    """One decision with its views. ``pinned`` None: the record names no positions."""

    way: Rebuilt
    then: DecisionRecorded
    original: Record
    pinned: Pinned | None

    async def run(self) -> Again:
        """Raises ``EngineUnavailable``."""
        knowledge = self._knowledge()
        try:
            now = await self._decided(knowledge)
        except (RequestRefused, GiveUp) as error:
            code = getattr(error, "code", "") if isinstance(error, GiveUp) else None
            now = _failed(self.then, code or ErrorCode.HANDLER_ERROR.value, self.way.setup)
        notes = [] if self.pinned or not self._needs_views() else [NO_POSITIONS]
        side, more = _as_then(side_of(now), self.then)
        return Again(
            side=side,
            asked_model=now.output is not None,
            notes=(*notes, *more, *await self._lost(side)),
        )

    def close(self) -> None:
        """Gives the views back."""
        if self.pinned is not None:
            self.pinned.close()

    async def _decided(self, knowledge: Knowledge) -> DecisionRecorded:
        if self.original.topic == BOT_REVIEWS:
            return await _reviewed(self.original, knowledge, self._ask(knowledge), self)
        try:
            event = decode(self.original)
        except Undecodable as error:
            raise GiveUp(error.code.value, error.detail, private=True) from None
        if not isinstance(event.data, Source):
            raise GiveUp(ErrorCode.WRONG_TOPIC.value, "", private=True)
        asked = Asked(
            topic=self.original.topic,
            partition=self.original.partition,
            offset=self.original.offset,
            timestamp_ms=self.original.timestamp_ms,
            envelope=event.envelope,
            data=event.data,
            redrive_of=redrive_of(self.original),
        )
        asked = self._seen(asked, knowledge)
        return (await self._answer(asked, knowledge, self._decide(knowledge))).record

    def _seen(self, asked: Asked, knowledge: Knowledge) -> Asked:
        """With what it repeats: what was handled just before was not in a view yet."""
        seen = knowledge.seen(
            asked.envelope,
            asked.data,
            self.then.decision_id,
            redriven=asked.redrive_of is not None,
        )
        first = seen.duplicate_of or self.then.duplicate_of
        return replace(asked, seen=replace(seen, duplicate_of=first))

    async def _answer(
        self,
        asked: Asked,
        knowledge: Knowledge,
        decide: Callable[[Asked], Awaitable[policy.Verdict]],
    ) -> Decision:
        return await answer(
            asked,
            self.way.setup,
            self.way.engine,
            knowledge,
            decide=decide,
            now=self._now,
            counter=time.perf_counter,
        )

    def _decide(self, knowledge: Knowledge) -> Callable[[Asked], Awaitable[policy.Verdict]]:
        """Today's policy; quotas and echoes as they were."""
        setup, limits = self.way.setup, self.way.limits
        settings = policy.Settings.of(setup.bot, setup.limits)

        async def decide(asked: Asked) -> policy.Verdict:
            known = facts.gather(asked, setup.bot.id, knowledge, None, self._now(), limits)
            known = replace(known, echo=_skipped_by(self.then, "echo") is not None)
            verdict, rules = policy.judge(asked, settings, known, policy.BEFORE_QUOTA)
            if isinstance(verdict, policy.Skip):
                return verdict, rules
            return self._counted("quota", verdict, rules)

        return decide

    def _ask(self, knowledge: Knowledge) -> Ask:
        """Answers under the rules of a review, without limits on corrections."""
        setup = self.way.setup
        settings = policy.Settings.of(setup.bot, setup.limits)

        async def ask(asked: Asked, correction: Correction | None = None) -> Decision:
            async def decide(asked: Asked) -> policy.Verdict:
                verdict, rules = await corrections.decide(
                    asked, settings, knowledge, None, correction, self._now
                )
                if isinstance(verdict, policy.Skip):
                    return verdict, rules
                return self._counted(corrections.RULE, verdict, rules)

            return await self._answer(asked, knowledge, decide)

        return ask

    def _counted(
        self, name: str, verdict: policy.Answer, rules: tuple[RuleVerdict, ...]
    ) -> policy.Verdict:
        """What the quota of that name said then: it depends on everybody else."""
        said = tuple(rule for rule in self.then.rules if rule.name == name)
        used_up = _skipped_by(self.then, name)
        if used_up is not None:
            return policy.Skip(SkipReason.QUOTA, used_up.detail), (*rules, *said)
        return verdict, (*rules, *said)

    def _knowledge(self) -> Knowledge:
        pinned = self.pinned
        if pinned is None:
            return NoKnowledge()
        known = KnowledgeOfViews(lambda: pinned.views, self.way.setup.bot.id, wait_s=0.0)
        for record in pinned.fresh.values():
            reply = decode(record).data
            # What a worker keeps of a reply that it made: which decision, and that it was one.
            made = {"decision_id": reply.decision_id, "outcome": Outcome.REPLIED}
            known.decided(self.then.model_copy(update=made), (reply,))
        return known

    def _now(self) -> datetime:
        return self.then.recorded_at

    def _needs_views(self) -> bool:
        return self.then.outcome is not Outcome.DEAD_LETTERED or self.then.prompt is not None

    async def _lost(self, side: ReplaySide) -> list[str]:
        """What may be why the context is another: said only where it is."""
        if self.pinned is None or not changed_context(side_of(self.then), side):
            return []
        return await self.way.snapshots.begins_at(self.then.positions)


async def _reviewed(
    record: Record, knowledge: Knowledge, ask: Ask, case: RebuiltCase
) -> DecisionRecorded:
    """What today's handler of reviews decides. Raises ``GiveUp`` and ``EngineUnavailable``."""
    setup = case.way.setup
    publishing = Publishing(setup.bot.id, lambda: case.then.recorded_at)
    changes = Changes(setup.bot, publishing, 1)
    handler = ReviewsHandler(setup, publishing, changes, knowledge, ask)
    try:
        outputs = await handler.handle(handler.open(record), attempt=1)
    except RetryLater as error:
        raise EngineUnavailable(str(error)) from error
    return _audited(outputs)


def _audited(outputs: Sequence[Output]) -> DecisionRecorded:
    output = next(one for one in outputs if one.topic in AUDIT_TOPICS)
    record = Record(
        topic=output.topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )
    data = decode(record).data
    assert isinstance(data, DecisionRecorded)  # noqa: S101 - nothing else may stand there
    return data


def _failed(then: DecisionRecorded, code: str, setup: Setup) -> DecisionRecorded:
    """The record of a dead letter."""
    return DecisionRecorded(
        decision_id=then.decision_id,
        outcome=Outcome.DEAD_LETTERED,
        reason=code,
        input=then.input,
        code_version=setup.code_version,
        settings_digest=setup.settings_digest,
        recorded_at=then.recorded_at,
    )


def _as_then(now: ReplaySide, then: DecisionRecorded) -> tuple[ReplaySide, list[str]]:
    """An answer that was not given, as something was deleted or switched off meanwhile, is not
    given now either."""
    notes = []
    if then.duplicate_of is not None or _skipped_by(then, "quota") or _skipped_by(then, "echo"):
        notes.append(f"what it repeats, and quotas: {AS_RECORDED}")
    second = _skipped_by(then, "second-look")
    if second is None or now.outcome is not Outcome.REPLIED:
        return now, notes
    rules = tuple(second if rule.name == second.name else rule for rule in now.rules)
    told = {"outcome": then.outcome, "reason": then.reason, "rules": rules}
    return now.model_copy(update=told), [*notes, f"what happened meanwhile: {AS_RECORDED}"]


def _skipped_by(decision: DecisionRecorded, rule: str) -> RuleVerdict | None:
    """The verdict of a rule that ended it; none where it did not."""
    skips = (one for one in decision.rules if (one.name, one.verdict) == (rule, policy.SKIP))
    return next(skips, None)
