"""The ``Engine`` protocol: what every engine promises, whatever runs behind it.

Prompts and outputs are token ids. An engine draws the n-th token of a reply with a
generator seeded by (``Sampling.seed``, n), so a reply does not depend on its neighbours.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

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
    """A prompt as the model sees it; ``segments`` cover ``token_ids`` without gaps."""

    token_ids: tuple[int, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to make. ``id`` is unique among the requests in flight."""

    id: str
    prompt: Prompt
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished reply; ``logprobs`` (natural log) has one entry per token id."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply on its way; the last one carries the whole ``generation``."""

    text: str
    generation: Generation | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much an engine can take now: slots in all, slots free, prompt tokens queued."""

    slots: int
    free_slots: int
    queued_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """Which weights and which settings answer: goes on every decision record."""

    name: str
    model: str
    revision: str
    weights_digest: str
    precision: str
    attention: str
    context_length: int
    versions: Mapping[str, str] = field(default_factory=dict)


class EngineError(Exception):
    """Base of what an engine raises; ``code`` is stable, the message says what to do."""

    code = "engine-error"


class EngineUnavailable(EngineError):
    """The engine is down or full for now: the same request may work later."""

    code = "engine-unavailable"


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

        Raises ``RequestRefused`` before the model is touched, or ``EngineUnavailable``.
        """
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """The reply piece by piece; the last chunk carries the whole generation."""
        ...

    async def cancel(self, request_id: str) -> None:
        """End a request early; it finishes as ``cancelled``. Unknown ids are fine."""
        ...

    def capacity(self) -> Capacity: ...

    def describe(self) -> EngineDescription: ...
