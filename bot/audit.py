"""The decision record: what came in, what the model saw, what was decided, and why.

In: ``Trace``, which each step of ``bot/conversation.py`` fills a little further. Out: one
``DecisionRecorded``. Nothing is invented: what did not happen is null or empty, so a skip by a
rule has no prompt. Texts stand in it only as far as the model saw them, so its size is bounded
by the limits, whatever the size of the input. Next: ``bot/handler.py`` publishes it.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from bot.context import ContextPost
from bot.prompt import Composed
from bot.values import Asked, Setup, conversation_of, source_ref
from model.engine import EngineDescription, Generation, Sampling
from schemas.audit import (
    DecisionRecorded,
    EngineRecord,
    InputRef,
    OutputRecord,
    PromptRecord,
    RuleVerdict,
    SamplingRecord,
    SegmentRecord,
)
from schemas.codes import Outcome
from schemas.dead_letters import redrive_of
from schemas.fields import Payload
from schemas.ids import decision_id
from schemas.record import Record

P = TypeVar("P", bound=Payload)


class Stopwatch:
    """Milliseconds of each stage; ``counter`` gives seconds and only goes up."""

    def __init__(self, counter: Callable[[], float]) -> None:
        self._counter = counter
        self._last = counter()
        self.timings_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The stage that ends now; one that comes again is added up."""
        now = self._counter()
        before = self.timings_ms.get(stage, 0.0)
        self.timings_ms[stage] = round(before + (now - self._last) * 1000, 3)
        self._last = now


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """How far an input came, and what was met on the way."""

    asked: Asked
    rules: tuple[RuleVerdict, ...] = ()
    context: tuple[ContextPost, ...] = ()
    composed: Composed | None = None
    engine: EngineDescription | None = None
    sampling: Sampling | None = None
    generation: Generation | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def judged(self, rules: Iterable[RuleVerdict]) -> "Trace":
        """With the verdicts of more rules."""
        return replace(self, rules=(*self.rules, *rules))

    def prompted(self, composed: Composed, rule: RuleVerdict) -> "Trace":
        """With the prompt, and with the posts as far as they fitted."""
        rules = (*self.rules, rule)
        return replace(self, context=composed.context, composed=composed, rules=rules)

    def tried(
        self,
        generation: Generation,
        sampling: Sampling,
        engine: EngineDescription,
        rules: Iterable[RuleVerdict],
    ) -> "Trace":
        """With what the model gave, and the verdicts of the checks on it."""
        told = self.judged(rules)
        return replace(told, generation=generation, sampling=sampling, engine=engine)


def id_of(asked: Asked, setup: Setup) -> str:
    """The id of the decision on an input."""
    bot = setup.bot
    return decision_id(bot.id, bot.cluster_id, asked.topic, asked.partition, asked.offset)


def decision_record(
    trace: Trace,
    setup: Setup,
    now: datetime,
    outcome: Outcome,
    reason: str | None = None,
    reply_ids: tuple[str, ...] = (),
) -> DecisionRecorded:
    """The record of a reply or a skip."""
    asked = trace.asked
    return DecisionRecorded(
        decision_id=id_of(asked, setup),
        outcome=outcome,
        reason=reason,
        duplicate_of=asked.seen.duplicate_of,
        input=_input(asked),
        source_ref=source_ref(asked.data),
        conversation_id=conversation_of(asked.data),
        reply_ids=reply_ids,
        context=tuple(post.item() for post in trace.context),
        prompt=_prompt(trace.composed),
        engine=_engine(trace.engine, setup.adapter),
        sampling=_copied(SamplingRecord, trace.sampling),
        output=_copied(OutputRecord, trace.generation),
        rules=trace.rules,
        positions=dict(trace.positions),
        timings_ms=dict(trace.timings_ms),
        code_version=setup.code_version,
        settings_digest=setup.settings_digest,
        recorded_at=now,
        salt=_salt(trace),
    )


def dead_letter_record(
    record: Record,
    asked: Asked | None,
    source: tuple[str, str] | None,
    setup: Setup,
    now: datetime,
    code: str,
) -> DecisionRecorded:
    """The record of a dead letter. ``asked`` is none where it could not be decoded;
    ``source`` is the event's (source, id), none where not even that can be read."""
    bot = setup.bot
    return DecisionRecorded(
        decision_id=decision_id(
            bot.id, bot.cluster_id, record.topic, record.partition, record.offset
        ),
        outcome=Outcome.DEAD_LETTERED,
        reason=code,
        input=InputRef(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            source=source[0] if source else None,
            id=source[1] if source else None,
            timestamp_ms=record.timestamp_ms,
            redrive_of=redrive_of(record),
        ),
        source_ref=source_ref(asked.data) if asked else None,
        conversation_id=conversation_of(asked.data) if asked else None,
        code_version=setup.code_version,
        settings_digest=setup.settings_digest,
        recorded_at=now,
    )


def _salt(trace: Trace) -> str | None:
    """Only where there are texts (``schemas.audit.TEXTS``) is there something to guess."""
    return secrets.token_hex(16) if trace.composed or trace.generation else None


def _engine(told: EngineDescription | None, adapter: str | None) -> EngineRecord | None:
    if told is None:
        return None
    return EngineRecord(
        name=told.name,
        model=told.model,
        revision=told.revision,
        weights_digest=told.weights_digest,
        precision=told.precision,
        attention=told.attention,
        versions=dict(told.versions),
        adapter=adapter,
        adapter_digest=told.adapters.get(adapter) if adapter else None,
        context_length=told.context_length,
    )


def _input(asked: Asked) -> InputRef:
    return InputRef(
        topic=asked.topic,
        partition=asked.partition,
        offset=asked.offset,
        source=asked.envelope.source,
        id=asked.envelope.id,
        timestamp_ms=asked.timestamp_ms,
        redrive_of=asked.redrive_of,
    )


def _prompt(composed: Composed | None) -> PromptRecord | None:
    if composed is None:
        return None
    segments = composed.prompt.segments
    return PromptRecord(
        template=composed.template.name,
        template_hash=composed.template.hash,
        messages=composed.record,
        token_ids=composed.prompt.token_ids,
        segments=tuple(SegmentRecord(start=s.start, end=s.end, trust=s.trust) for s in segments),
    )


def _copied(record: type[P], value: object | None) -> P | None:
    """The fields of ``value`` that ``record`` has under the same names."""
    if value is None:
        return None
    return record(**{name: getattr(value, name) for name in record.model_fields})
