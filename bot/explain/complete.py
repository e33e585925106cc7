"""Whether a decision record holds everything that explains it, and whether it fits together.

In: a decision with its record. Out: sentences for people, none where all is well. Guaranteed of
every decision that asked the model: everything of DESIGN's list is there. An older record, or one
that was edited, is told by what it lacks. Next: ``bot/explain/explanation.py`` shows them.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from bot.context import Why
from bot.explain.case import Case, Decided
from schemas.audit import DecisionRecorded, PromptRecord
from schemas.codes import Outcome
from schemas.replies import ReplyCorrected, ReplyCreated

Look = Callable[[DecisionRecorded], Any]

ALWAYS: Final[dict[str, Look]] = {
    "code version": lambda data: data.code_version,
    "digest of the settings": lambda data: data.settings_digest,
}
"""Of every decision."""

DECIDED: Final[dict[str, Look]] = {
    "id of the input event": lambda data: data.input.id,
    "source of the input event": lambda data: data.input.source,
    "when Kafka took the input in": lambda data: data.input.timestamp_ms is not None,
    "what the input is about": lambda data: data.source_ref,
    "conversation": lambda data: data.conversation_id,
    "verdicts of the rules": lambda data: data.rules,
    "timings": lambda data: data.timings_ms,
}
"""Of what the policy looked at."""

ASKED: Final[dict[str, Look]] = {
    "context": lambda data: data.context,
    "revisions of the context": lambda data: all(c.ref.revision for c in _known(data)),
    "why each post was in or out": lambda data: all(c.why for c in data.context),
    "prompt": lambda data: data.prompt,
    "hash of the template": lambda data: data.prompt and data.prompt.template_hash,
    "messages": lambda data: data.prompt and data.prompt.messages,
    "token ids of the prompt": lambda data: data.prompt and data.prompt.token_ids,
    "segments of the prompt": lambda data: data.prompt and data.prompt.segments,
    "engine": lambda data: data.engine,
    "revision of the model": lambda data: data.engine and data.engine.revision,
    "digest of the weights": lambda data: data.engine and data.engine.weights_digest,
    "context length of the model": lambda data: data.engine and data.engine.context_length,
    "versions of the libraries": lambda data: data.engine and data.engine.versions,
    "sampling and seed": lambda data: data.sampling,
    "output": lambda data: data.output,
    "token ids of the output": lambda data: data.output and data.output.token_ids,
    "log-probabilities": lambda data: data.output and data.output.logprobs,
}
"""Of what the model was asked about."""


def missing_of(decided: Decided) -> tuple[str, ...]:
    """What should be there for a decision of this kind, and is not."""
    data = decided.data
    wanted = dict(ALWAYS)
    if data.outcome is not Outcome.DEAD_LETTERED and not _is_review(data):
        wanted |= DECIDED
    if _asked_the_model(data):
        wanted |= ASKED
    lacking = [name for name, look in wanted.items() if not look(data)]
    if data.input.id is not None and not decided.envelope.causationid:
        lacking.append("causation")
    return tuple(lacking)


def _is_review(data: DecisionRecorded) -> bool:
    """A look at a reply that is there already; the model need not have been asked."""
    return any(rule.name == "review" for rule in data.rules)


def _asked_the_model(data: DecisionRecorded) -> bool:
    """An answer to ``/forget`` is made without it, and most skips are."""
    if any(rule.name == "forget" for rule in data.rules) or _is_review(data):
        return data.output is not None
    return data.outcome is Outcome.REPLIED or data.prompt is not None


def _known(data: DecisionRecorded) -> Iterator[Any]:
    """The posts that have revisions: of who wants no part in it nothing is recorded, and what
    the bot said has none until it is corrected."""
    return (item for item in data.context if item.why not in (Why.CONSENT, Why.OWN))


def faults_of(case: Case) -> tuple[str, ...]:
    """What of a case contradicts itself: it was edited, or is torn."""
    return tuple(_faults(case))


def _faults(case: Case) -> Iterator[str]:
    decided, data = case.decided, case.decided.data
    if decided.envelope.id != data.decision_id:
        yield "the record's ce_id is not the id of its decision"
    if data.prompt and not _is_covered(data.prompt):
        yield "the segments do not cover the token ids of the prompt"
    if data.output and len(data.output.logprobs) not in (0, len(data.output.token_ids)):
        yield "there is not one log-probability for each token of the output"
    for said in case.said:
        hash_ = (
            said.data.prompt_hash if isinstance(said.data, ReplyCreated | ReplyCorrected) else None
        )
        if hash_ and data.prompt and hash_ != data.prompt.template_hash:
            yield f"the reply {said.data.reply_id} names another prompt than the decision"


def _is_covered(prompt: PromptRecord) -> bool:
    """Segments follow each other without gaps."""
    at = 0
    for segment in prompt.segments:
        if segment.start != at or segment.end < segment.start:
            return False
        at = segment.end
    return at == len(prompt.token_ids) or not prompt.segments
