"""The way of one input, as DESIGN tells it: policy → context → prompt → model → checks → reply.

In: one decoded input with its place, and everything that does not change (``Setup``, the
engine, the clocks). Out: ``Decision``: the replies, none for a skip, and the decision record.
Nothing here touches Kafka. What the engine raises goes up: ``EngineUnavailable`` may pass,
``RequestRefused`` never will. Next: ``bot/handler.py`` makes records to publish of it.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bot import language, policy
from bot.as_of_now import ContextChanged, begin, newest, second_look
from bot.audit import Stopwatch, Trace, decision_record, id_of
from bot.context import ContextPost
from bot.forget import FORGOTTEN, is_forget
from bot.gather import gather
from bot.knowledge import Knowledge
from bot.language import Tongue, langs_of_reply, tongue_of
from bot.live import Watcher
from bot.prompt import Composed, prompt_for
from bot.reply import Checked, Said, first_reply_id, make
from bot.tries import Tried, answer_of
from bot.values import Asked, Question, Setup, post_of, written
from model.engine import Engine
from schemas.audit import DecisionRecorded, RuleVerdict
from schemas.codes import Outcome, SkipReason
from schemas.feed import Message, Post
from schemas.replies import ReplyCreated


@dataclass(frozen=True, slots=True)
class Decision:
    """The one outcome of an input: its replies (none: skipped), the record of it, the posts that
    were looked at, and ``trace``: what led to it, so that it can be looked at again later."""

    replies: tuple[ReplyCreated, ...]
    record: DecisionRecorded
    context: tuple[ContextPost, ...] = ()
    trace: Trace | None = None

    @property
    def outcome(self) -> Outcome:
        return self.record.outcome


REMAKES = 5
"""How often an answer is made with its context, before it is made without."""

Decide = Callable[[Asked], Awaitable[policy.Verdict]]
"""The policy with all that it needs: ``bot.policy.decide``, or the rules of a review."""


async def answer(
    asked: Asked,
    setup: Setup,
    engine: Engine,
    knowledge: Knowledge,
    *,
    decide: Decide | None = None,
    now: Callable[[], datetime],
    counter: Callable[[], float],
    watcher: Watcher | None = None,
) -> Decision:
    """The decision on one input. ``decide`` is the policy, by default without quotas;
    ``counter`` is seconds that only go up; ``watcher`` sees the answer grow.
    Raises ``EngineError``, ``KnowledgeUnavailable``.

    Made again at once where what it was built on changes meanwhile, and after ``REMAKES`` times
    with nothing but the post that asks: nobody can keep others from an answer that way.
    """
    make_one = functools.partial(
        _made, asked, setup, engine, knowledge, decide, now, Stopwatch(counter), watcher
    )
    for _ in range(REMAKES):
        try:
            return await make_one(alone=False)
        except ContextChanged:
            continue
    return await make_one(alone=True)


async def _made(
    asked: Asked,
    setup: Setup,
    engine: Engine,
    knowledge: Knowledge,
    decide: Decide | None,
    now: Callable[[], datetime],
    watch: Stopwatch,
    watcher: Watcher | None,
    *,
    alone: bool,
) -> Decision:
    """The decision as things stand now. ``alone``: without what stands around the question.
    Raises ``ContextChanged``."""
    trace = await begin(asked, knowledge, watch)
    edited = newest(asked, knowledge)
    trace = replace(trace, asked=_hops_of_both(asked, edited))
    asked = _hops_of_both(edited, asked)

    verdict, rules = await (decide or _unlimited(setup, knowledge, now))(asked)
    trace = trace.judged(rules)
    watch.lap("policy")
    if isinstance(verdict, policy.Skip):
        return skipped(trace, setup, now(), verdict.reason)

    question, post = verdict.question, post_of(verdict.question)
    context = gather(question, setup.bot, setup.limits, knowledge)
    if alone or is_forget(post, setup.bot.id):
        context = context[-1:]
    watch.lap("context")
    if is_forget(post, setup.bot.id):
        return _confirmed(replace(trace, context=context), setup, now())
    tongue = tongue_of(post)
    composed = _prompt(context, question, tongue, setup, engine)
    trace = trace.prompted(composed, language.verdict(tongue, hinted=bool(composed.hint)))
    watch.lap("prompt")

    tried = await _ask(trace, composed, post, tongue, setup, engine, watch, watcher)
    trace = trace.tried(tried.generation, tried.sampling, engine.describe(), tried.rules)
    if tried.fault is not None:
        return skipped(trace, setup, now(), SkipReason.NO_ANSWER)

    trace, reason = second_look(trace, asked, setup, knowledge, now())
    watch.lap("second-look")
    if reason is not None:
        return skipped(trace, setup, now(), reason)
    replies = _reply(trace, composed, tried, post, tongue, setup, now())
    watch.lap("reply")
    return replied(trace, setup, now(), replies)


def source_of(trace: Trace) -> Post | Message:
    """The post as the input had it: ids and refs of a reply are the same however often, and
    however late, the input is handled."""
    data = trace.asked.data
    assert isinstance(data, Question)  # noqa: S101 - the policy lets nothing else through
    return post_of(data)


def _hops_of_both(asked: Asked, other: Asked) -> Asked:
    """``asked`` with the larger hops of two revisions of its post: no edit hides a loop."""
    post, another = written(asked.data), written(other.data)
    if post is None or another is None or post.hops >= another.hops:
        return asked
    name = "post" if isinstance(post, Post) else "message"
    counted = post.model_copy(update={"hops": another.hops})
    return replace(asked, data=asked.data.model_copy(update={name: counted}))


def _prompt(
    context: Sequence[ContextPost],
    question: Question,
    tongue: Tongue | None,
    setup: Setup,
    engine: Engine,
) -> Composed:
    length = engine.describe().context_length
    return prompt_for(context, question, tongue, setup, engine.tokenizer, length)


async def _ask(
    trace: Trace,
    composed: Composed,
    post: Post | Message,
    tongue: Tongue | None,
    setup: Setup,
    engine: Engine,
    watch: Stopwatch,
    watcher: Watcher | None,
) -> Tried:
    """The model and the checks: what the model gave, and what of it may be said."""
    return await answer_of(
        engine,
        composed,
        post,
        setup,
        reply_id=first_reply_id(source_of(trace), setup.bot),
        decision_id=id_of(trace.asked, setup),
        lang=tongue.tag if tongue else None,
        watch=watch,
        watcher=watcher,
    )


def _reply(
    trace: Trace,
    composed: Composed,
    tried: Tried,
    post: Post | Message,
    tongue: Tongue | None,
    setup: Setup,
    now: datetime,
) -> tuple[ReplyCreated, ...]:
    return make(
        source_of(trace),
        trace.context,
        tried.checked,
        setup.bot,
        id_of(trace.asked, setup),
        now,
        langs=langs_of_reply(tried.checked.text, post, tongue),
        prompt_hash=composed.template.hash,
    )


def _unlimited(setup: Setup, knowledge: Knowledge, now: Callable[[], datetime]) -> Decide:
    """The policy without quotas."""

    async def decide(asked: Asked) -> policy.Verdict:
        settings = policy.Settings.of(setup.bot, setup.limits)
        return policy.look_again(asked, settings, knowledge, now(), policy.BEFORE_QUOTA)

    return decide


def _confirmed(trace: Trace, setup: Setup, now: datetime) -> Decision:
    """``/forget`` is done, and confirmed without the model."""
    said = Checked(FORGOTTEN, (Said(FORGOTTEN),), ())
    post, decision = source_of(trace), id_of(trace.asked, setup)
    replies = make(post, trace.context, said, setup.bot, decision, now, langs=("en",))
    return replied(trace.judged((RuleVerdict(name="forget", verdict="done"),)), setup, now, replies)


def skipped(trace: Trace, setup: Setup, now: datetime, reason: SkipReason) -> Decision:
    """Nothing is said."""
    record = decision_record(trace, setup, now, Outcome.SKIPPED, reason)
    return Decision((), record, trace.context, trace)


def replied(
    trace: Trace, setup: Setup, now: datetime, replies: tuple[ReplyCreated, ...]
) -> Decision:
    """These are said."""
    ids = tuple(reply.reply_id for reply in replies)
    record = decision_record(trace, setup, now, Outcome.REPLIED, reply_ids=ids)
    return Decision(replies, record, trace.context, trace)
