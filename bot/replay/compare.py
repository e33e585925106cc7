"""What changed: a decision as it was recorded beside the same input decided again.

In: the decision record, and ``Again``, what came of it now. Out: ``ReplayCompared``. Pure. An
action is the outcome with its reason; verdicts are those of all rules but the ones that tell of
the moment; the text is what the model gave. Next: ``bot/replay/folder.py`` and ``door.py``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.replay.plan import Planned
from model.engine import EngineDescription, Score
from schemas.audit import DecisionRecorded, RuleVerdict
from schemas.replays import (
    Change,
    NotReplayed,
    ReplayCompared,
    ReplayMode,
    ReplaySide,
    ScoreVerdict,
)
from schemas.topics import TOPICS

OF_THE_MOMENT = frozenset({"views"})
"""Rules whose verdict says how busy the worker was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """An input decided again. ``score`` only where the weights are those of then."""

    side: ReplaySide
    asked_model: bool
    score: Score | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What all results of one replay share. ``reveal``: private texts stand in them."""

    replay_id: str
    mode: ReplayMode
    reveal: bool = False


def side_of(decision: DecisionRecorded) -> ReplaySide:
    """What a decision record says of those things that are compared."""
    output, prompt, engine = decision.output, decision.prompt, decision.engine
    return ReplaySide(
        outcome=decision.outcome,
        reason=decision.reason,
        text=output.text if output else None,
        length=len(output.text) if output else None,
        finish_reason=output.finish_reason if output else None,
        rules=decision.rules,
        context=decision.context,
        template=prompt.template if prompt else None,
        template_hash=prompt.template_hash if prompt else None,
        model=engine.model if engine else None,
        weights_digest=engine.weights_digest if engine else None,
        code_version=decision.code_version,
        settings_digest=decision.settings_digest,
    )


def compared(
    naming: Naming, planned: Planned, decision: DecisionRecorded, again: Again, now: datetime
) -> ReplayCompared:
    """The result of a decision that was made again."""
    before, after = side_of(decision), again.side
    hidden = is_private(planned) and not naming.reveal
    return ReplayCompared(
        replay_id=naming.replay_id,
        mode=naming.mode,
        decision_id=decision.decision_id,
        decision=str(planned.at) if planned.at else None,
        input=decision.input,
        conversation_id=decision.conversation_id,
        change=change_of(before, after),
        notes=again.notes,
        asked_model=again.asked_model,
        hidden=hidden,
        before=_without_text(before) if hidden else before,
        after=_without_text(after) if hidden else after,
        score=None if again.score is None else _score(again.score),
        compared_at=now,
    )


def not_replayed(
    naming: Naming,
    planned: Planned,
    why: NotReplayed,
    now: datetime,
    *,
    decision: DecisionRecorded | None = None,
    notes: Sequence[str] = (),
) -> ReplayCompared:
    """The result where nothing can be said."""
    hidden = is_private(planned) and not naming.reveal
    before = side_of(decision) if decision else None
    return ReplayCompared(
        replay_id=naming.replay_id,
        mode=naming.mode,
        decision_id=planned.decision_id,
        decision=str(planned.at) if planned.at else None,
        input=decision.input if decision else None,
        conversation_id=decision.conversation_id if decision else None,
        change=Change.NOT_REPLAYED,
        why=why,
        notes=tuple(notes),
        hidden=hidden,
        before=_without_text(before) if before and hidden else before,
        compared_at=now,
    )


def change_of(before: ReplaySide, after: ReplaySide) -> Change:
    """The gravest of what is different."""
    if (before.outcome, before.reason) != (after.outcome, after.reason):
        return Change.ACTION
    if verdicts(before.rules) != verdicts(after.rules):
        return Change.VERDICT
    return Change.IDENTICAL if before.text == after.text else Change.TEXT


def verdicts(rules: Iterable[RuleVerdict]) -> list[tuple[str, str]]:
    """What the rules said, in their order."""
    return [(rule.name, rule.verdict) for rule in rules if rule.name not in OF_THE_MOMENT]


def is_private(planned: Planned) -> bool:
    """Whether what was written may not be shown to everybody."""
    return planned.at is not None and TOPICS[planned.at.topic].private


def is_same_model(decision: DecisionRecorded, engine: EngineDescription) -> bool:
    """Whether the weights that answered, an adapter over them included, are those of this
    engine."""
    then = decision.engine
    if then is None or (then.model, then.weights_digest) != (engine.model, engine.weights_digest):
        return False
    return then.adapter is None or engine.adapters.get(then.adapter) == then.adapter_digest


def _without_text(side: ReplaySide) -> ReplaySide:
    return side.model_copy(update={"text": None})


def _score(score: Score) -> ScoreVerdict:
    return ScoreVerdict(verdict=score.verdict, diverged_at=score.diverged_at, margin=score.margin)
