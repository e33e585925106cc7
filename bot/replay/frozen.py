"""The recorded prompt put to a model once more: nothing is gathered, nothing is decided anew.

In: a decision with its recorded token ids, sampling and seed. Out: ``Again``: what the model
gives now, and what today's checks say of it, as far as the input is still there to check it
against. Only the last try is made again: it is the one that the record holds. Other weights get
the recorded messages, as their token ids are others.
"""

import itertools
from collections.abc import Sequence

from bot.context import ContextPost, Kind, ThreadPost, Why
from bot.degenerate import RULE, fault_of
from bot.degenerate import verdict as verdict_of
from bot.language import tongue_of
from bot.prompt import messages_of
from bot.replay.compare import Again, is_same_model, side_of
from bot.replay.loaded import Loaded
from bot.reply import allow_set, check
from bot.values import Setup, Source, written
from model.engine import (
    Engine,
    EngineDescription,
    Generation,
    GenerationRequest,
    NotSupported,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
    Segment,
)
from schemas.audit import DecisionRecorded, PromptMessage, PromptRecord, RuleVerdict, SamplingRecord
from schemas.codec import Undecodable, decode
from schemas.codes import Outcome, SkipReason
from schemas.feed import Account, Message, Post, Ref
from schemas.replays import NotReplayed, ReplaySide

NOT_ASKED = "the model was not asked"
OTHER_MODEL = "another model answers: it gets the recorded messages"
UNCHECKED = "today's checks were not run: the question is not at hand"
PRIORITY = -1  # behind whatever the same engine does for people
_requests = itertools.count(1)


class CannotReplay(Exception):
    """There is no way to make this decision again; ``why`` says why."""

    def __init__(self, why: NotReplayed, note: str = "") -> None:
        super().__init__(why.value)
        self.why = why
        self.note = note


class Frozen:
    """``same_model``: a decision of other weights is not made again. ``score``: the recorded
    tokens are also scored, where the weights are those of then."""

    def __init__(
        self, setup: Setup, engine: Engine, *, same_model: bool, score: bool = True
    ) -> None:
        self._setup = setup
        self._engine = engine
        self._same_model = same_model
        self._score_too = score

    async def prepare(self, chunk: Sequence[Loaded]) -> None:
        """Nothing is needed beforehand."""

    async def begin(self, loaded: Loaded) -> "FrozenCase":
        """Raises ``CannotReplay``."""
        decision = loaded.decision
        if decision is None or loaded.why is not None:
            raise CannotReplay(loaded.why or NotReplayed.UNKNOWN_ID)
        self._require_model(decision)
        return FrozenCase(self, loaded, decision)

    async def end(self) -> None:
        """Nothing to clean up."""

    def _require_model(self, decision: DecisionRecorded) -> None:
        engine, recorded = self._engine.describe(), decision.engine
        if recorded is None or not self._same_model or is_same_model(decision, engine):
            return
        note = f"{recorded.model} {recorded.weights_digest} answered then"
        raise CannotReplay(NotReplayed.MODEL_GONE, note)

    async def run(self, loaded: Loaded, decision: DecisionRecorded) -> Again:
        """Raises ``EngineError`` and ``CannotReplay``."""
        prompt, sampling = decision.prompt, decision.sampling
        if prompt is None or sampling is None or decision.output is None:
            return Again(side=side_of(decision), asked_model=False, notes=(NOT_ASKED,))
        same = is_same_model(decision, self._engine.describe())
        asked, how = self._prompt(prompt, same=same), _sampling(sampling)
        request = GenerationRequest(
            f"replay/{decision.decision_id}/{next(_requests)}",
            asked,
            how,
            priority=PRIORITY,
            adapter=decision.engine.adapter if same and decision.engine else self._setup.adapter,
        )
        try:
            generation = await self._engine.generate(request)
        except RequestRefused as error:
            raise CannotReplay(NotReplayed.REFUSED, error.code) from error
        score = await self._score(asked, decision, how) if same and self._score_too else None
        post = _post(loaded)
        side = _side(decision, generation, self._engine.describe(), self._setup)
        side = _checked(side, decision, generation, post, self._setup)
        notes = [*([] if same else [OTHER_MODEL]), *([] if post else [UNCHECKED])]
        return Again(side=side, asked_model=True, score=score, notes=tuple(notes))

    def _prompt(self, prompt: PromptRecord, *, same: bool) -> Prompt:
        messages = messages_of(prompt.messages)
        if same and prompt.token_ids:
            segments = tuple(Segment(s.start, s.end, s.trust) for s in prompt.segments)
            return Prompt(prompt.token_ids, segments, messages)
        if not messages:
            raise CannotReplay(NotReplayed.OLDER_SCHEMA, "the record holds no messages")
        return self._engine.tokenizer.encode_chat(messages)

    async def _score(
        self, prompt: Prompt, decision: DecisionRecorded, how: Sampling
    ) -> Score | None:
        output = decision.output
        if output is None or not output.token_ids:
            return None
        try:
            adapter = decision.engine.adapter if decision.engine else None
            return await self._engine.score(prompt, output.token_ids, how, adapter)
        except (NotSupported, RequestRefused):
            return None


class FrozenCase:
    """One decision on its way."""

    def __init__(self, frozen: Frozen, loaded: Loaded, decision: DecisionRecorded) -> None:
        self._frozen = frozen
        self._loaded = loaded
        self._decision = decision

    async def run(self) -> Again:
        """Raises ``EngineError`` and ``CannotReplay``."""
        return await self._frozen.run(self._loaded, self._decision)

    def close(self) -> None:
        """Nothing is held."""


def _adapter(decision: DecisionRecorded) -> str | None:
    """Name of the weights over those of the model, where some answered."""
    return decision.engine.adapter if decision.engine else None


def _sampling(record: SamplingRecord) -> Sampling:
    return Sampling(**{name: getattr(record, name) for name in SamplingRecord.model_fields})


def _post(loaded: Loaded) -> Post | Message | None:
    """What was answered, where the input tells."""
    if loaded.original is None:
        return None
    try:
        data = decode(loaded.original).data
    except Undecodable:
        return None
    return written(data) if isinstance(data, Source) else None


def _side(
    decision: DecisionRecorded,
    generation: Generation,
    engine: EngineDescription,
    setup: Setup,
) -> ReplaySide:
    """What is known before the checks: outcome and rules are those of then."""
    now = {
        "text": generation.text,
        "length": len(generation.text),
        "finish_reason": generation.finish_reason,
        "model": engine.model,
        "weights_digest": engine.weights_digest,
        "code_version": setup.code_version,
        "settings_digest": setup.settings_digest,
    }
    return side_of(decision).model_copy(update=now)


def _checked(
    side: ReplaySide,
    decision: DecisionRecorded,
    generation: Generation,
    post: Post | Message | None,
    setup: Setup,
) -> ReplaySide:
    """With what today's checks say in the place of what they said then."""
    prompt, sampling = decision.prompt, decision.sampling
    if post is None or prompt is None or sampling is None:
        return side
    tongue = tongue_of(post)
    checked = check(
        generation, allow_set(post, setup.bot.id), setup.limits, tongue.tag if tongue else None
    )
    fault = fault_of(checked, post, _context(prompt.messages))
    told = verdict_of(fault, _sampling(sampling), last=True)
    rules = _replaced(decision.rules, (*checked.verdicts, told))
    return side.model_copy(update={"rules": rules, **_action(decision, faulty=fault is not None)})


def _action(decision: DecisionRecorded, *, faulty: bool) -> dict[str, object]:
    """Outcome and reason, where the checks come to something else than they did."""
    was_faulty = decision.reason == SkipReason.NO_ANSWER.value
    if faulty == was_faulty:
        return {}
    if faulty:
        return {"outcome": Outcome.SKIPPED, "reason": SkipReason.NO_ANSWER.value}
    return {"outcome": Outcome.REPLIED, "reason": None}


def _replaced(
    rules: Sequence[RuleVerdict], checks: Sequence[RuleVerdict]
) -> tuple[RuleVerdict, ...]:
    """The rules with the checks of their last try replaced by these. Those of a try are as many
    as come before ``RULE``; where the record has none, they come last."""
    ends = [n for n, rule in enumerate(rules) if rule.name == RULE]
    if not ends:
        return (*rules, *checks)
    last = ends[-1]
    names = {check.name for check in checks}
    first = last
    while first > 0 and rules[first - 1].name in names and first - 1 not in ends:
        first -= 1
    return (*rules[:first], *checks, *rules[last + 1 :])


def _context(messages: Sequence[PromptMessage]) -> list[ContextPost]:
    """The turns of the prompt, as far as the checks look at them."""
    return [
        ThreadPost(
            ref=part.ref or Ref(uri="unknown", revision=None),
            author=Account(id="unknown", handle="unknown"),
            text=part.content,
            kind=Kind.TURN,
            visibility=None,
            is_bot=part.role == "assistant",
            included=True,
            why=Why.TURN,
        )
        for part in messages
        if part.trust == "untrusted"
    ]
