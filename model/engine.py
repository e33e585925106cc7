"""The ``Engine`` protocol: what every engine promises, whatever runs behind it.

Prompts and outputs are token ids. An engine draws the n-th token of a reply with a
generator seeded by (``Sampling.seed``, n), so a reply does not depend on its neighbours. What
engines count of themselves is in ``model.stats``.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from model.stats import EngineStats

FinishReason = Literal["stop", "length", "cancelled"]
Role = Literal["system", "user", "assistant"]
Trust = Literal["trusted", "untrusted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 are off."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message. Only trusted parts are the operator's own words."""

    text: str
    trust: Trust = "untrusted"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a chat, made of parts that are tokenized apart from each other."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def content(self) -> str:
        """The text of all parts, joined."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Segment:
    """Token ids ``start`` (included) to ``end`` (excluded) of a prompt, and who wrote them."""

    start: int
    end: int
    trust: Trust


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the model sees it; ``segments`` cover ``token_ids`` without gaps.

    ``messages``: what it was made of, where the engine may have to send that instead of ids.
    """

    token_ids: tuple[int, ...]
    segments: tuple[Segment, ...]
    messages: tuple[ChatMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to make. ``id`` is unique among the requests in flight.

    ``priority``: the higher, the earlier it gets a slot. ``deadline``: seconds from submission,
    after which it ends as ``DeadlineExceeded``. ``adapter``: name of the LoRA weights to answer
    with. ``cache_key``: the private talk or thread that this prompt belongs to, whose earlier
    turns an engine may have kept; no output ever depends on it.
    """

    id: str
    prompt: Prompt
    sampling: Sampling
    priority: int = 0
    deadline: float | None = None
    adapter: str | None = None
    cache_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What a reply cost. Seconds since the request was submitted, and prompt tokens.

    ``queued_s``: until the model began to read; ``first_token_s``: until the first token was
    drawn (0 where none was); ``cached_tokens``: of the prompt, those that were not read again.
    """

    queued_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished reply; ``logprobs`` (natural log) has one entry per token id."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    timings: Timings = field(default=Timings(), compare=False)


@dataclass(frozen=True, slots=True)
class Score:
    """Whether a model would draw the tokens of a recorded reply again, from one forward pass.

    ``logprobs``: one per recorded token, as in ``Generation``. ``diverged_at``: number of the
    first token that it would not draw, and ``margin``: how far that one was from being drawn, in
    logits where sampling is greedy, else in probability; numeric noise is no divergence.
    """

    logprobs: tuple[float, ...]
    verdict: Literal["identical", "diverged"]
    diverged_at: int | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply on its way; the last one carries the whole ``generation``."""

    text: str
    generation: Generation | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much an engine can take now: slots in all (none while it is down), slots free, prompt
    tokens queued."""

    slots: int
    free_slots: int
    queued_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """Which weights and which settings answer: goes on every decision record. ``adapters``: the
    digests of those that a request may name."""

    name: str
    model: str
    revision: str
    weights_digest: str
    precision: str
    attention: str
    context_length: int
    versions: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)


class EngineError(Exception):
    """Base of what an engine raises; ``code`` is stable, the message says what to do."""

    code = "engine-error"


class EngineUnavailable(EngineError):
    """The engine is down or full for now: the same request may work later."""

    code = "engine-unavailable"


class DeadlineExceeded(EngineUnavailable):
    """The request's own deadline passed before it was answered."""

    code = "deadline"


class StepFailed(EngineUnavailable):
    """A step of the model raised while it had this request: it, or one that was there too, may be
    why."""

    code = "step-failed"


class NotSupported(EngineError):
    """This engine cannot do that at all (``score``, an adapter); another one may."""

    code = "not-supported"


class RequestRefused(EngineError):
    """This request can never work: empty, too long, or with ids outside the vocabulary."""

    code = "request-refused"


class ModelNotFound(EngineError):
    """No such model here; the message says where it was looked for and what to set."""

    code = "model-not-found"


class ChatTokenizer(Protocol):
    """Chat messages to token ids, such that no text of a user becomes a control token."""

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids with a meaning beyond text; none of them ever comes from an untrusted part."""
        ...

    def encode_chat(self, messages: Sequence[ChatMessage]) -> Prompt:
        """The prompt that asks for the next assistant turn."""
        ...

    def count(self, text: str) -> int:
        """How many tokens an untrusted text takes."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of output ids, control tokens left out."""
        ...

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of any ids for people to look at, control tokens by their names."""
        ...


class Engine(Protocol):
    """A model that is ready to answer."""

    @property
    def tokenizer(self) -> ChatTokenizer: ...

    async def start(self) -> None:
        """Load and warm up; raises ``ModelNotFound`` or ``EngineError``."""
        ...

    async def stop(self) -> None:
        """Give everything back; requests in flight end as ``EngineUnavailable``."""
        ...

    async def generate(self, request: GenerationRequest) -> Generation:
        """The whole reply. Cancelling the task cancels the request.

        Raises ``RequestRefused`` before the model is touched, or ``EngineUnavailable`` (as
        ``DeadlineExceeded`` where it is the request's own deadline that passed).
        """
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply piece by piece; the last chunk carries the whole generation."""
        ...

    async def cancel(self, request_id: str) -> None:
        """End a request early; it finishes as ``cancelled``. Unknown ids are fine."""
        ...

    async def score(
        self,
        prompt: Prompt,
        output_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None = None,
    ) -> Score:
        """Would ``sampling`` draw ``output_ids`` behind ``prompt`` again, with that ``adapter``?

        Raises ``RequestRefused``, ``EngineUnavailable``, or ``NotSupported``.
        """
        ...

    def capacity(self) -> Capacity: ...

    def describe(self) -> EngineDescription: ...

    def stats(self) -> EngineStats:
        """What was counted since the engine was made, and what it holds now."""
        ...
