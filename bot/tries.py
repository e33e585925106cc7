"""The model's answer, checked: asked for once, and once more where the first one is none.

In: a prompt, the post that asks, its context, and the engine. Out: ``Tried``: what the model gave
in the try that counts, how it was drawn, what of it may be said, and the verdicts of all tries.
What the engine raises goes up. Next: ``bot/conversation.py``.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from bot.audit import Stopwatch
from bot.degenerate import Fault, again, fault_of, verdict
from bot.live import Watcher, watched
from bot.prompt import Composed
from bot.reply import Checked, allow_set, check, seed_of
from bot.values import Setup
from model.engine import Engine, EngineUnavailable, Generation, GenerationRequest, Sampling
from schemas.audit import RuleVerdict
from schemas.feed import Message, Post

PRIVATE_PRIORITY = 1  # mentions have 0

# Ids of requests in flight must differ, also when a record is tried again.
_requests = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The last try; ``fault``: why nothing of it is said, if so."""

    sampling: Sampling
    generation: Generation
    checked: Checked
    fault: Fault | None
    rules: tuple[RuleVerdict, ...]


async def answer_of(
    engine: Engine,
    composed: Composed,
    post: Post | Message,
    setup: Setup,
    *,
    reply_id: str,
    decision_id: str,
    lang: str | None,
    watch: Stopwatch,
    watcher: Watcher | None = None,
) -> Tried:
    """The model's answer to ``post``. ``lang``: of the asker, for the ends of sentences;
    ``watcher``: who sees a beginning of it, checked in the same way.

    Raises ``EngineError``; ``EngineUnavailable`` also where the request was cancelled.
    """
    allowed, rules = allow_set(post, setup.bot.id), list[RuleVerdict]()

    def sayable(begun: str) -> str:
        part = check(Generation(begun, (), (), "stop"), allowed, setup.limits, lang)
        return "" if fault_of(part, post, composed.context) else part.text

    for is_last in (False, True):
        sampling = _sampling(setup, reply_id, is_last=is_last)
        request = _request(decision_id, composed, sampling, post, setup.adapter)
        generation = await _generate(engine, request, watcher, sayable)
        watch.lap("model")
        checked = check(generation, allowed, setup.limits, lang)
        fault = fault_of(checked, post, composed.context)
        rules += [*checked.verdicts, verdict(fault, sampling, last=is_last)]
        watch.lap("checks")
        if fault is None:
            break
    return Tried(
        sampling=sampling, generation=generation, checked=checked, fault=fault, rules=tuple(rules)
    )


def _sampling(setup: Setup, reply_id: str, *, is_last: bool) -> Sampling:
    """How the first try is drawn, or the last one."""
    first = replace(setup.sampling, seed=seed_of(reply_id))
    return again(first, reply_id, setup.retry_temperature) if is_last else first


def _request(
    decision: str,
    composed: Composed,
    sampling: Sampling,
    post: Post | Message,
    adapter: str | None,
) -> GenerationRequest:
    """Private talks go before mentions, and their earlier turns are worth keeping."""
    private = isinstance(post, Message)
    return GenerationRequest(
        f"{decision}/{next(_requests)}",
        composed.prompt,
        sampling,
        priority=PRIVATE_PRIORITY if private else 0,
        adapter=adapter,
        cache_key=post.conversation_id if private else None,
    )


async def _generate(
    engine: Engine,
    request: GenerationRequest,
    watcher: Watcher | None,
    sayable: Callable[[str], str],
) -> Generation:
    generation = await watched(engine, request, watcher, sayable)
    if generation.finish_reason == "cancelled":
        raise EngineUnavailable("The request was cancelled; it is to be made again.")
    return generation
