"""What can be set for the ``openai`` engine; ``bot/settings.py`` documents it for people."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Way = Literal["auto", "tokens", "chat"]
Kind = Literal["auto", "vllm", "sglang", "llama.cpp", "transformers", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times are in seconds.

    ``endpoints``: base addresses, ``http://host:port``, with or without ``/v1``. ``ca_file``: PEM
    file of the authorities to trust; None: the system's. ``model``: its
    name there; None: the only one that is served. ``tokenizer``: folder or Hugging Face name, at
    ``tokenizer_revision``; None: prompts go out as chat messages. ``way``: whether prompts go out
    as token ids. ``kind``: which server it is. ``slots``: most requests out at once, over all
    endpoints; ``max_queued`` more wait. ``retry_share``: most requests made again, as a share of
    all. ``poll``: between two looks at a server's own metrics.
    """

    endpoints: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    model: str | None = None
    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    way: Way = "auto"
    kind: Kind = "auto"
    context_length: int | None = None
    slots: int = 16
    max_queued: int = 1024
    start: float = 60.0
    connect: float = 5.0
    first_token: float = 60.0
    between_tokens: float = 30.0
    total: float = 120.0
    retry_share: float = 0.1
    poll: float = 1.0
