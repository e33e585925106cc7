"""One decision record per input: what came in, what the model saw, what was decided, and why.

Made by ``bot.audit``; goes to ``bot.audit``, or to ``bot.audit-private`` for whatever is not
public or unlisted. Replays and the console read it.
"""

from typing import Final, Literal

from pydantic import Field

from schemas.codes import Outcome
from schemas.control import Moderation
from schemas.feed import Ref
from schemas.fields import Bool, Count, Float, Id, Int, Many, Payload, Str, Time

Trust = Literal["trusted", "untrusted"]

TEXTS: Final = (
    "prompt.messages[].content",
    "prompt.token_ids",
    "output.text",
    "output.token_ids",
    "output.logprobs",
)
"""Members of a decision record that hold what people wrote or the model said, token ids among
them. They may be erased, and the chain of seals goes on proving everything else (``bot.sealing``);
no other member may ever hold such text."""


class InputRef(Payload):
    """Where the input stands; ``source`` and ``id`` are the event's, null if unreadable.

    ``timestamp_ms``: when Kafka took it in (ms since 1970; negative where it did not say): the
    audit outlives the input. ``redrive_of``: where it failed before, ``topic/partition/offset``,
    if it was re-driven.
    """

    topic: Id
    partition: Count
    offset: Count
    source: Id | None = None
    id: Id | None = None
    timestamp_ms: Int | None = None
    redrive_of: Id | None = None


class ContextItem(Payload):
    """A post that was looked at; ``why`` says why it was left out, or what it is there for."""

    ref: Ref
    author_id: Id
    trust: Trust
    included: Bool
    why: Str | None = None


class PromptMessage(Payload):
    """One turn as the model saw it; ``ref`` is the post it comes from."""

    role: Literal["system", "user", "assistant"]
    content: Str
    ref: Ref | None = None
    trust: Trust


class SegmentRecord(Payload):
    """Token ids ``start`` (included) to ``end`` (excluded) of the prompt."""

    start: Count
    end: Count
    trust: Trust


class PromptRecord(Payload):
    """The exact prompt; ``segments`` cover ``token_ids`` without gaps."""

    template: Str
    template_hash: Str
    messages: Many[PromptMessage] = ()
    token_ids: Many[Count] = ()
    segments: Many[SegmentRecord] = ()


class EngineRecord(Payload):
    """Which weights answered; ``versions`` maps a library to its version. ``adapter``: name of the
    LoRA weights over them, if any, and the digest of those. ``context_length``: in tokens; it
    bounds how long a prompt may be."""

    name: Str
    model: Str
    revision: Str
    weights_digest: Str
    precision: Str
    attention: Str
    versions: dict[Str, Str] = Field(default_factory=dict)
    adapter: Str | None = None
    adapter_digest: Str | None = None
    context_length: Count | None = None


class SamplingRecord(Payload):
    """How tokens were drawn; ``temperature`` 0 is greedy."""

    temperature: Float
    top_k: Int
    top_p: Float
    min_p: Float
    repetition_penalty: Float
    max_tokens: Count
    stop: Many[Str] = ()
    seed: Int


class OutputRecord(Payload):
    """What the model gave; ``logprobs`` (natural log) has one entry per token id."""

    text: Str
    token_ids: Many[Count] = ()
    logprobs: Many[Float] = ()
    finish_reason: Str


class RuleVerdict(Payload):
    """What one rule said; ``detail`` never holds what people wrote."""

    name: Str
    verdict: Str
    detail: Str | None = None


class DecisionRecorded(Payload):
    """``twite.bot.decision.recorded.v1``.

    ``reason`` is a ``SkipReason`` or an ``ErrorCode``; ``duplicate_of`` the first decision's
    id; ``positions`` maps a view to the offset up to which it had read; ``timings_ms`` a
    stage to its milliseconds. ``salt``: drawn by chance, there where texts are; the seals hold
    digests of texts with it, and it is erased with them, so that no text can be guessed from
    its digest. ``moderation``: the moderator's command that led to the outcome.
    """

    decision_id: Id
    outcome: Outcome
    reason: Str | None = None
    duplicate_of: Id | None = None
    input: InputRef
    source_ref: Ref | None = None
    conversation_id: Id | None = None
    reply_ids: Many[Id] = ()
    context: Many[ContextItem] = ()
    prompt: PromptRecord | None = None
    engine: EngineRecord | None = None
    sampling: SamplingRecord | None = None
    output: OutputRecord | None = None
    rules: Many[RuleVerdict] = ()
    positions: dict[Str, Int] = Field(default_factory=dict)
    timings_ms: dict[Str, Float] = Field(default_factory=dict)
    code_version: Str
    settings_digest: Str
    recorded_at: Time
    salt: Str | None = None
    moderation: Moderation | None = None
