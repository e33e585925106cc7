"""The way of one input, as DESIGN tells it: policy → context → prompt → model → checks → reply.

In: one decoded input with its place, and everything that does not change (``Setup``, the
engine, the clocks). Out: ``Decision``: the replies, none for a skip, and the decision record.
Nothing here touches Kafka. What the engine raises goes up: ``EngineUnavailable`` may pass,
``RequestRefused`` never will. Next: ``bot/handler.py`` makes records to publish of it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bot import policy
from bot.audit import Stopwatch, Trace, decision_record, id_of
from bot.context import ContextPost, gather
from bot.facts import Facts
from bot.prompt import Composed, compose
from bot.reply import allow_set, check, first_reply_id, lang_of, make, seed_of
from bot.values import Asked, Question, Setup, post_of
from model.engine import (
    Engine,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    Prompt,
    Sampling,
)
from schemas.audit import DecisionRecorded
from schemas.codes import Outcome, SkipReason
from schemas.feed import MentionCreated
from schemas.replies import ReplyCreated

# Ids of requests in flight must differ, also when a record is tried again.
_attempts = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Decision:
    """The one outcome of an input: its replies (none: skipped) and the record of it."""

    replies: tuple[ReplyCreated, ...]
    record: DecisionRecorded

    @property
    def outcome(self) -> Outcome:
        return self.record.outcome


async def answer(
    asked: Asked,
    setup: Setup,
    engine: Engine,
    *,
    now: Callable[[], datetime],
    counter: Callable[[], float],
) -> Decision:
    """The decision on one input. ``counter`` is seconds that only go up."""
    watch = Stopwatch(counter)
    trace = Trace(asked=asked, timings_ms=watch.timings_ms)

    facts = Facts(now_ms=int(now().timestamp() * 1000))
    verdict, rules = policy.judge(asked, policy.Settings.of(setup.bot, setup.limits), facts)
    trace = replace(trace, rules=rules)
    watch.lap("policy")
    if isinstance(verdict, policy.Skip):
        return _skipped(trace, setup, now(), verdict.reason)

    context = gather(verdict.question, setup.bot.id)
    watch.lap("context")
    composed = _compose(context, verdict.question, setup, engine)
    watch.lap("prompt")

    post = post_of(verdict.question)
    sampling = replace(setup.sampling, seed=seed_of(first_reply_id(post, setup.bot)))
    generation = await _generate(engine, id_of(asked, setup), composed.prompt, sampling)
    watch.lap("model")

    checked = check(generation, allow_set(post, setup.bot.id), setup.limits, lang_of(post))
    watch.lap("checks")
    trace = replace(
        trace,
        rules=(*rules, *checked.verdicts),
        context=composed.context,
        composed=composed,
        engine=engine.describe(),
        sampling=sampling,
        generation=generation,
    )
    if not checked.text:
        return _skipped(trace, setup, now(), SkipReason.NO_ANSWER)
    replies = make(post, composed.context, checked, setup.bot, id_of(asked, setup), now())
    watch.lap("reply")
    return _replied(trace, setup, now(), replies)


async def _generate(
    engine: Engine, decision: str, prompt: Prompt, sampling: Sampling
) -> Generation:
    """The model's words. Raises ``EngineUnavailable`` also where the request was cancelled."""
    request = GenerationRequest(f"{decision}/{next(_attempts)}", prompt, sampling)
    generation = await engine.generate(request)
    if generation.finish_reason == "cancelled":
        raise EngineUnavailable("The request was cancelled; it is to be made again.")
    return generation


def _compose(
    context: Sequence[ContextPost], question: Question, setup: Setup, engine: Engine
) -> Composed:
    """The prompt of this surface, as long as the limits and the model allow."""
    prompts = setup.prompts
    template = prompts.mention if isinstance(question, MentionCreated) else prompts.direct
    length = engine.describe().context_length
    room = min(setup.limits.prompt_tokens, max(length // 2, length - setup.sampling.max_tokens))
    return compose(context, engine.tokenizer, template, setup.bot, setup.limits, room)


def _skipped(trace: Trace, setup: Setup, now: datetime, reason: SkipReason) -> Decision:
    return Decision((), decision_record(trace, setup, now, Outcome.SKIPPED, reason))


def _replied(
    trace: Trace, setup: Setup, now: datetime, replies: tuple[ReplyCreated, ...]
) -> Decision:
    ids = tuple(reply.reply_id for reply in replies)
    return Decision(replies, decision_record(trace, setup, now, Outcome.REPLIED, reply_ids=ids))
