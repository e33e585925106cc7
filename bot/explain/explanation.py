"""Why the bot said this, or did not: a case told to people, as plain values.

In: a ``Case``. Out: ``Explanation``: what happened, the thread as the bot saw it, what was left
out and why, the rules with their verdicts, prompt, model and timings, what came of it later, and
who could do what about it. ``hidden``: what people wrote, and what the bot said to them, is shown
as lengths only. Texts are as they are on the log: whoever shows them makes them harmless. Next:
``bot/explain/text.py``, ``bot/explain/page.py``, or JSON.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import exp, fsum
from typing import Any

from bot.explain import words
from bot.explain.case import Case, Decided, Later, Said
from bot.explain.complete import faults_of, missing_of
from bot.explain.gather import text_of
from bot.explain.remedies import Remedy, remedies
from schemas.audit import ContextItem, DecisionRecorded, PromptMessage, PromptRecord
from schemas.codes import Outcome
from schemas.feed import Ref
from schemas.fields import format_time
from schemas.replies import ReplyCorrected, ReplyCreated

SKIPPED = "skip"


@dataclass(frozen=True, slots=True)
class SaidText:
    """What was said: ``what`` is ``reply``, ``correction`` or ``retraction``; ``text`` is none
    for the last."""

    what: str
    reply_id: str
    text: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A post as the bot looked at it. ``text``: as the model saw it, none where it did not."""

    uri: str
    revision: str | None
    author_id: str
    included: bool
    why: str | None
    meaning: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """The verdict of one rule or check; ``meaning`` is what it looks at."""

    name: str
    verdict: str
    detail: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of the prompt; ``by``: the account that wrote it, or where it comes from."""

    role: str
    trust: str
    by: str
    uri: str | None
    text: str


@dataclass(frozen=True, slots=True)
class PromptShown:
    """``tokens``: how many there are by trust."""

    template: str
    template_hash: str
    tokens: dict[str, int]
    parts: tuple[PromptPart, ...]


@dataclass(frozen=True, slots=True)
class OutputShown:
    """``probability``: of its tokens on average (geometric mean), none where unknown."""

    text: str
    tokens: int
    finish_reason: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class LaterShown:
    """A later decision on the same post or reply. ``because``: what brought it about, or the rule
    that ended it, where that is recorded; ``moderation``: the command that it came of, if any."""

    at: str
    time: str
    decision_id: str
    outcome: str
    reason: str | None
    meaning: str
    because: str | None
    moderation: dict[str, str] | None
    said: tuple[SaidText, ...]


@dataclass(frozen=True, slots=True)
class CommandShown:
    """What a moderator commanded."""

    time: str
    command: str
    subject: str
    moderator: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything, in the order in which it is shown. ``because``: the rule that decided, if one
    did; ``moderation``: the moderator's command that it came of, if any, with its id;
    ``warnings``: what is missing, torn, or contradicts itself."""

    decision_id: str
    outcome: str
    reason: str | None
    headline: str
    meaning: str
    because: Step | None
    moderation: dict[str, str] | None
    private: bool
    hidden: bool
    at: str
    decided_at: str
    input: dict[str, Any]
    source: dict[str, Any] | None
    conversation_id: str | None
    said: tuple[SaidText, ...]
    thread: tuple[Seen, ...]
    rules: tuple[Step, ...]
    prompt: PromptShown | None
    output: OutputShown | None
    engine: dict[str, Any] | None
    sampling: dict[str, Any] | None
    timings_ms: dict[str, float]
    positions: dict[str, int]
    code_version: str
    settings_digest: str
    causation: str | None
    correlation: str | None
    later: tuple[LaterShown, ...]
    feedback: dict[str, int]
    commands: tuple[CommandShown, ...]
    remedies: tuple[Remedy, ...]
    warnings: tuple[str, ...]
    tokens: dict[str, Any] | None = None

    def value(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def explain(case: Case, *, hidden: bool = False, tokens: bool = False) -> Explanation:
    """``tokens``: with the token ids of prompt and output."""
    decided, data = case.decided, case.decided.data
    rules = tuple(Step(r.name, r.verdict, r.detail, words.rule(r.name)) for r in data.rules)
    return Explanation(
        decision_id=data.decision_id,
        outcome=data.outcome.value,
        reason=data.reason,
        headline=_headline(decided),
        meaning=_meaning(data),
        because=_because(decided, rules),
        moderation=_moderation(data),
        private=decided.private,
        hidden=hidden,
        at=str(decided.at),
        decided_at=format_time(data.recorded_at),
        input=_input(case),
        source=data.source_ref.model_dump(mode="json") if data.source_ref else None,
        conversation_id=data.conversation_id,
        said=tuple(_said(said, hidden) for said in case.said),
        thread=tuple(_thread(case, hidden)),
        rules=rules,
        prompt=_prompt(decided, hidden),
        output=_output(decided, hidden),
        engine=data.engine.model_dump(mode="json") if data.engine else None,
        sampling=data.sampling.model_dump(mode="json") if data.sampling else None,
        timings_ms=dict(data.timings_ms),
        positions=dict(data.positions),
        code_version=data.code_version,
        settings_digest=data.settings_digest,
        causation=decided.envelope.causationid,
        correlation=decided.envelope.correlationid,
        later=tuple(_later(later, hidden) for later in case.later),
        feedback=dict(case.feedback),
        commands=tuple(_commands(case)),
        remedies=remedies(case),
        warnings=tuple(_warnings(case)),
        tokens=_tokens(decided, hidden) if tokens else None,
    )


def masked(text: str, hidden: bool) -> str:
    """The text, or only how long it is."""
    return f"[{len(text)} characters]" if hidden else text


def _headline(decided: Decided) -> str:
    """One line: what the bot did."""
    data = decided.data
    if data.outcome is Outcome.SKIPPED:
        first = f", first decided in {data.duplicate_of}" if data.duplicate_of else ""
        return f"The bot said nothing: {data.reason}{first}"
    if data.outcome is Outcome.DEAD_LETTERED:
        return f"The record could not be handled: {data.reason}"
    parts = f" in {len(data.reply_ids)} parts" if len(data.reply_ids) > 1 else ""
    why = f": {data.reason}" if data.reason else ""
    what = {
        Outcome.REPLIED: f"The bot replied{parts}",
        Outcome.CORRECTED: f"The bot corrected its reply{why}",
        Outcome.RETRACTED: f"The bot took its reply back{why}",
    }
    return what[data.outcome]


def _meaning(data: DecisionRecorded) -> str:
    """Of the reason where nothing was said, else of what was done."""
    silent = data.outcome in (Outcome.SKIPPED, Outcome.DEAD_LETTERED)
    return words.meaning(data.reason if silent else data.outcome)


def _because(decided: Decided, rules: Sequence[Step]) -> Step | None:
    """The rule that said skip, which is the last that did."""
    if decided.data.outcome is not Outcome.SKIPPED:
        return None
    return next((step for step in reversed(rules) if step.verdict == SKIPPED), None)


def _moderation(data: DecisionRecorded) -> dict[str, str] | None:
    return data.moderation.model_dump(mode="json") if data.moderation else None


def _input(case: Case) -> dict[str, Any]:
    """The input, when Kafka took it in, and whether it is there still."""
    told, record = case.decided.data.input, case.input
    taken_ms = told.timestamp_ms if record is None else record.timestamp_ms
    time = None if taken_ms is None or taken_ms < 0 else _time(taken_ms)
    return {
        "at": str(case.decided.input),
        "id": told.id,
        "source": told.source,
        "redrive_of": told.redrive_of,
        "taken_in_at": time,
        "gone": case.gone.get("input"),
    }


def _said(said: Said, hidden: bool) -> SaidText:
    kinds = {ReplyCreated: "reply", ReplyCorrected: "correction"}
    text = text_of(said)
    shown = None if text is None else masked(text, hidden)
    return SaidText(
        kinds.get(type(said.data), "retraction"), said.data.reply_id, shown, str(said.at)
    )


def _thread(case: Case, hidden: bool) -> Iterator[Seen]:
    data = case.decided.data
    messages = data.prompt.messages if data.prompt else ()
    for item in data.context:
        text = _as_seen(item, messages) if item.included else None
        yield Seen(
            uri=item.ref.uri,
            revision=item.ref.revision,
            author_id=item.author_id,
            included=item.included,
            why=item.why,
            meaning=words.why(item.why),
            text=None if text is None else masked(text, hidden),
        )


def _as_seen(item: ContextItem, messages: Sequence[PromptMessage]) -> str | None:
    """The text of a post as it stands in the prompt, name and frame included."""
    parts = [part.content for part in messages if part.ref == item.ref]
    return "".join(parts) if parts else None


def _prompt(decided: Decided, hidden: bool) -> PromptShown | None:
    prompt = decided.data.prompt
    if prompt is None:
        return None
    authors = {_key(item.ref): item.author_id for item in decided.data.context}
    return PromptShown(
        prompt.template,
        prompt.template_hash,
        _counts(prompt),
        tuple(_part(part, authors, prompt, hidden) for part in prompt.messages),
    )


def _counts(prompt: PromptRecord) -> dict[str, int]:
    counts = {"trusted": 0, "untrusted": 0}
    for segment in prompt.segments:
        counts[segment.trust] += segment.end - segment.start
    return {"all": len(prompt.token_ids), **counts}


def _part(
    part: PromptMessage,
    authors: dict[tuple[str, str | None], str],
    prompt: PromptRecord,
    hidden: bool,
) -> PromptPart:
    if part.trust == "trusted":
        by = f"the prompt {prompt.template}" if part.role == "system" else "the frame"
    else:
        by = authors.get(_key(part.ref), "somebody") if part.ref else "somebody"
    text = masked(part.content, hidden and part.trust == "untrusted")
    return PromptPart(part.role, part.trust, by, part.ref.uri if part.ref else None, text)


def _key(ref: Ref) -> tuple[str, str | None]:
    return ref.uri, ref.revision


def _output(decided: Decided, hidden: bool) -> OutputShown | None:
    output = decided.data.output
    if output is None:
        return None
    return OutputShown(
        masked(output.text, hidden),
        len(output.token_ids),
        output.finish_reason,
        _probability(output.logprobs),
    )


def _probability(logprobs: Sequence[float]) -> float | None:
    return exp(min(0.0, fsum(logprobs) / len(logprobs))) if logprobs else None


def _later(later: Later, hidden: bool) -> LaterShown:
    data = later.decided.data
    return LaterShown(
        at=str(later.decided.at),
        time=format_time(data.recorded_at),
        decision_id=data.decision_id,
        outcome=data.outcome.value,
        reason=data.reason,
        meaning=_meaning(data),
        because=next((r.detail for r in reversed(data.rules) if r.detail), None),
        moderation=_moderation(data),
        said=tuple(_said(said, hidden) for said in later.said),
    )


def _commands(case: Case) -> Iterator[CommandShown]:
    for command in case.commands:
        data = command.data
        time = format_time(command.at)
        yield CommandShown(time, data.command, data.subject, data.moderator, data.reason)


def _warnings(case: Case) -> Iterator[str]:
    if why := case.gone.get("input"):
        yield f"the input is gone: {why}"
    if why := case.gone.get("replies"):
        yield f"replies are not there: {why}"
    if missing := missing_of(case.decided):
        yield f"not on the record: {', '.join(missing)}"
    yield from (f"contradictory: {fault}" for fault in faults_of(case))


def _tokens(decided: Decided, hidden: bool) -> dict[str, Any]:
    """Token ids by segment, and those of the output with their log-probabilities. Ids spell what
    people wrote, so hidden ones are only counted."""
    prompt, output = decided.data.prompt, decided.data.output
    segments = (
        [
            {
                **segment.model_dump(mode="json"),
                "token_ids": None
                if hidden and segment.trust == "untrusted"
                else list(prompt.token_ids[segment.start : segment.end]),
            }
            for segment in prompt.segments
        ]
        if prompt
        else []
    )
    shown = output if output and not hidden else None
    return {
        "prompt": segments,
        "output": list(shown.token_ids) if shown else None,
        "logprobs": list(shown.logprobs) if shown else None,
    }


def _time(timestamp_ms: int) -> str:
    return format_time(datetime.fromtimestamp(timestamp_ms / 1000, UTC))
